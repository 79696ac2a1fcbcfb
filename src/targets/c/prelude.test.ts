import { beforeAll, describe, expect, it } from "vitest";
import { bf16Bits, bf16FromBits, f16Bits, f16FromBits } from "../../ir/dtype.js";
import { Kernels, Memory, nativeFlags } from "../../testing/c/harness.js";

/** A kernel that applies `expression` to blocks of 16 elements of up to three inputs. */
function mapKernel(name: string, input: string, output: string, expression: string): string {
  const vector = { f32: "vf", bf16: "vf", f16: "vf", i32: "vi", u32: "vu", u8: "vu", bool: "vi" }[input] ?? "vf";
  return `EXPORT void ${name}(const int64_t* w, Context* context) {
  int64_t begin, end;
  share(w[4], 16, context->thread, context->threads, &begin, &end);
  for (int64_t i = begin; i < end; i += 16) {
    int n = (int)smaller(16, end - i);
    ${vector} a = load_${input}_n((void*)(w[0] + i * (int64_t)sizeof(${elementOf(input)})), n);
    ${vector} b = load_${input}_n((void*)(w[1] + i * (int64_t)sizeof(${elementOf(input)})), n);
    ${vector} c = load_${input}_n((void*)(w[2] + i * (int64_t)sizeof(${elementOf(input)})), n);
    (void)a; (void)b; (void)c;
    store_${output}_n((void*)(w[3] + i * (int64_t)sizeof(${elementOf(output)})), ${expression}, n);
  }
}`;
}

function elementOf(type: string): string {
  return (
    { bf16: "uint16_t", f16: "uint16_t", u8: "uint8_t", bool: "uint8_t", i32: "int32_t", u32: "uint32_t" }[type] ??
    "float"
  );
}

type Numbers = Float32Array | Int32Array | Uint32Array | Uint16Array | Uint8Array;

function apply<T extends Numbers>(kernels: Kernels, name: string, inputs: readonly Numbers[], output: T): T {
  const memories = [0, 1, 2].map((index) => {
    const input = inputs[index] ?? inputs[0]!;
    const memory = new Memory(input.byteLength);
    memory.data.set(new Uint8Array(input.buffer, input.byteOffset, input.byteLength));
    return memory;
  });
  const result = new Memory(output.byteLength);
  kernels.run(name, [...memories.map((memory) => memory.address), result.address, inputs[0]!.length], 2);
  new Uint8Array(output.buffer).set(result.data);
  expect(result.intact()).toBe(true);
  [...memories, result].forEach((memory) => {
    memory.free();
  });
  return output;
}

let seed = 12345;
function random(): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed;
}

/** Every kind of float: random bits, small and large numbers, halves, zeros, infinities, NaN, denormals. */
function floats(count: number): Float32Array {
  const words = new Uint32Array(count).map(() => random());
  const values = new Float32Array(words.buffer);
  const special = [0, -0, 0.5, -0.5, 1.5, 2.5, -1.5, -2.5, 8388607.5, -8388607.5, 2 ** 24, Infinity, -Infinity, NaN];
  values.set([
    ...special,
    1e-45,
    -1e-45,
    1.1754942e-38,
    3.4028235e38,
    65504,
    65520,
    65519.99,
    5.96e-8,
    2.98e-8,
    6.1e-5,
  ]);
  for (let i = 40; i < count / 2; i++) values[i] = (random() / 2 ** 31 - 1) * 10 ** (i % 7);
  return values;
}

const unary: Readonly<Record<string, (x: number) => number>> = {
  floor_f: Math.floor,
  sqrt_f: Math.sqrt,
  abs_f: Math.abs,
  round_even_f: (x) => {
    const low = Math.floor(x);
    if (x - low !== 0.5) return Object.is(x, -0) || (x < 0 && x > -0.5) ? -0 : Math.round(x);
    const even = low % 2 === 0 ? low : low + 1;
    return even === 0 && x < 0 ? -0 : even;
  },
};
const binary: Readonly<Record<string, (a: number, b: number) => number>> = {
  min_f: (a, b) => (a < b ? a : b),
  max_f: (a, b) => (a > b ? a : b),
};
const sources = [
  ...Object.keys(unary).map((name) => mapKernel(`test_${name}`, "f32", "f32", `${name}(a)`)),
  ...Object.keys(binary).map((name) => mapKernel(`test_${name}`, "f32", "f32", `${name}(a, b)`)),
  mapKernel("test_fma", "f32", "f32", "fma_f(a, b, c)"),
  mapKernel("test_exp", "f32", "f32", "exp_f(a)"),
  mapKernel("test_log", "f32", "f32", "log_f(a)"),
  mapKernel("test_select", "f32", "f32", "select_f(a < b, a, c)"),
  mapKernel("test_to_bf16", "f32", "bf16", "a"),
  mapKernel("test_to_f16", "f32", "f16", "a"),
  mapKernel("test_round_bf16", "f32", "f32", "round_bf16(a)"),
  mapKernel("test_from_bf16", "bf16", "f32", "a"),
  mapKernel("test_from_f16", "f16", "f32", "a"),
  mapKernel("test_from_u8", "u8", "u32", "a"),
  mapKernel("test_to_u8", "u32", "u8", "a"),
  mapKernel("test_bool", "bool", "bool", "~a"),
  mapKernel("test_mask", "bool", "i32", "a"),
  mapKernel("test_mulhi", "u32", "u32", "mulhi_u(a, b)"),
  mapKernel("test_f_to_i", "f32", "i32", "convert_f_to_i(a)"),
  mapKernel("test_f_to_u", "f32", "u32", "convert_f_to_u(a)"),
  mapKernel("test_i_to_f", "i32", "f32", "convert_i_to_f(a)"),
  mapKernel("test_u_to_f", "u32", "f32", "convert_u_to_f(a)"),
  mapKernel("test_sum", "f32", "f32", "splat_f(sum_lanes(a)) + convert_i_to_f(lanes_iota() & first_lanes(0))"),
  mapKernel("test_largest", "f32", "f32", "splat_f(max_lanes(a))"),
  mapKernel("test_lanes", "i32", "i32", "select_i(first_lanes(5), lanes_iota(), splat_i(-7))"),
  `EXPORT void test_scalars(const int64_t* w, Context* context) {
  (void)context;
  for (int64_t i = 0; i < w[4]; i++) {
    float x = ((float*)w[0])[i];
    ((uint32_t*)w[3])[i] = (uint32_t)f32_to_bf16(x) << 16 | f32_to_f16(x);
  }
}`,
];

/** The correctly rounded a * b + c, from exact integers. */
function exactFma(a: number, b: number, c: number): number {
  if (![a, b, c].every(Number.isFinite)) return Math.fround(a * b + c);
  const integer = (x: number): bigint => BigInt(x * 2 ** 149);
  const sum = integer(a) * integer(b) + (integer(c) << 149n);
  if (sum === 0n) return a * b + c;
  const magnitude = sum < 0n ? -sum : sum;
  const length = magnitude.toString(2).length;
  const shift = BigInt(Math.max(length - 24, 149));
  const floor = magnitude >> shift;
  const rest = magnitude - (floor << shift);
  const half = 1n << (shift - 1n);
  const rounded = rest > half || (rest === half && (floor & 1n) === 1n) ? floor + 1n : floor;
  const power = Number(shift) - 298;
  const value = Number(rounded) * 2 ** Math.trunc(power / 2) * 2 ** (power - Math.trunc(power / 2));
  return Math.fround(sum < 0n ? -value : value);
}

function ulps(actual: number, expected: number): number {
  if (Object.is(actual, Math.fround(expected)) || (Number.isNaN(actual) && Number.isNaN(expected))) return 0;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(expected))), -126);
  return Math.abs(actual - expected) / 2 ** (exponent - 23);
}

const builds: readonly (readonly [string, readonly string[]])[] = [
  ["this machine", nativeFlags],
  ["portable code", ["-DTHIMBLE_GENERIC"]],
  ...(process.arch === "x64" ? ([["AVX2", ["-mavx2", "-mfma"]]] as const) : []),
];

describe.each(builds)("prelude on %s", (_name, flags) => {
  let kernels: Kernels;
  beforeAll(() => {
    kernels = new Kernels(sources, flags);
  });
  const input = floats(4001);
  const other = floats(4001).reverse();
  const third = new Float32Array(input.length).map((_, i) => input[(i * 7) % input.length]!);

  it.each(Object.keys(unary))("%s is exact", (name) => {
    const output = apply(kernels, `test_${name}`, [input], new Float32Array(input.length));
    expect(output).toEqual(input.map((x) => unary[name]!(x)));
  });

  it.each(Object.keys(binary))("%s follows its NaN rule", (name) => {
    const output = apply(kernels, `test_${name}`, [input, other], new Float32Array(input.length));
    expect(output).toEqual(input.map((x, i) => binary[name]!(x, other[i]!)));
  });

  it("selects by mask", () => {
    const output = apply(kernels, "test_select", [input, other, third], new Float32Array(input.length));
    expect(output).toEqual(input.map((x, i) => (x < other[i]! ? x : third[i]!)));
  });

  it("multiplies and adds with one rounding", () => {
    const output = apply(kernels, "test_fma", [input, other, third], new Float32Array(input.length));
    expect(output).toEqual(input.map((x, i) => exactFma(x, other[i]!, third[i]!)));
  });

  it("rounds to bf16 and f16 as the IR does", () => {
    const bf16 = Array.from(apply(kernels, "test_to_bf16", [input], new Uint16Array(input.length)));
    expect(bf16).toEqual(Array.from(input, bf16Bits));
    const f16 = apply(kernels, "test_to_f16", [input], new Uint16Array(input.length));
    expect(Array.from(f16, f16FromBits)).toEqual(Array.from(input, (x) => f16FromBits(f16Bits(x))));
    const rounded = apply(kernels, "test_round_bf16", [input], new Float32Array(input.length));
    expect(rounded).toEqual(input.map((x) => bf16FromBits(bf16Bits(x))));
    const scalars = apply(kernels, "test_scalars", [input], new Uint32Array(input.length));
    expect(Array.from(scalars)).toEqual(Array.from(input, (x) => ((bf16Bits(x) << 16) | f16Bits(x)) >>> 0));
  });

  it("reads every bf16 and f16", () => {
    const all = new Uint16Array(65536).map((_, i) => i);
    const half = apply(kernels, "test_from_f16", [all], new Float32Array(65536));
    expect(half).toEqual(Float32Array.from(all, f16FromBits));
    const brain = apply(kernels, "test_from_bf16", [all], new Float32Array(65536));
    expect(brain).toEqual(Float32Array.from(all, bf16FromBits));
  });

  it("loads and stores bytes and booleans", () => {
    const bytes = new Uint8Array(301).map((_, i) => i);
    expect(apply(kernels, "test_from_u8", [bytes], new Uint32Array(301))).toEqual(Uint32Array.from(bytes));
    expect(apply(kernels, "test_to_u8", [Uint32Array.from(bytes)], new Uint8Array(301))).toEqual(bytes);
    const flags01 = bytes.map((x) => x & 1);
    expect(apply(kernels, "test_bool", [flags01], new Uint8Array(301))).toEqual(flags01.map((x) => 1 - x));
    expect(apply(kernels, "test_mask", [flags01], new Int32Array(301))).toEqual(Int32Array.from(flags01, (x) => -x));
  });

  it("converts between integers and floats", () => {
    const words = new Uint32Array(999).map(() => random());
    words.set([0, 1, 0xffffffff, 0x80000000, 0x7fffffff, 0x01000001, 0xffffff7f, 0xffffff80]);
    const signed = new Int32Array(words.buffer);
    expect(apply(kernels, "test_u_to_f", [words], new Float32Array(999))).toEqual(Float32Array.from(words));
    expect(apply(kernels, "test_i_to_f", [signed], new Float32Array(999))).toEqual(Float32Array.from(signed));
    const plain = new Float32Array(999).map((_, i) => (random() / 2 ** 32) * 2 ** (i % 32));
    expect(apply(kernels, "test_f_to_u", [plain], new Uint32Array(999))).toEqual(Uint32Array.from(plain, Math.trunc));
    const either = plain.map((x, i) => (i % 2 === 1 ? -x : x) / 2);
    expect(apply(kernels, "test_f_to_i", [either], new Int32Array(999))).toEqual(Int32Array.from(either, Math.trunc));
    const high = words.map((x, i) => Number((BigInt(x) * BigInt(words[998 - i]!)) >> 32n));
    expect(apply(kernels, "test_mulhi", [words, words.slice().reverse()], new Uint32Array(999))).toEqual(high);
  });

  it("combines lanes in tree order", () => {
    const values = new Float32Array(16).map((_, i) => Math.sin(i) * 10 ** (i % 5));
    const tree = values.slice();
    for (let width = 8; width > 0; width >>= 1) for (let i = 0; i < width; i++) tree[i]! += tree[i + width]!;
    expect(apply(kernels, "test_sum", [values], new Float32Array(16))).toEqual(new Float32Array(16).fill(tree[0]!));
    const largest = new Float32Array(16).fill(Math.max(...values));
    expect(apply(kernels, "test_largest", [values], new Float32Array(16))).toEqual(largest);
    const lanes = Int32Array.from({ length: 16 }, (_, i) => (i < 5 ? i : -7));
    expect(apply(kernels, "test_lanes", [lanes], new Int32Array(16))).toEqual(lanes);
  });

  it("computes exp and log within two units in the last place", () => {
    const range = new Float32Array(20000).map((_, i) => -110 + i * 0.01005);
    const exponents = Float32Array.from([...range, ...input]);
    const exp = apply(kernels, "test_exp", [exponents], new Float32Array(exponents.length));
    const positive = Float32Array.from([...input, ...range.map((x) => Math.exp(x)), ...range.map((x) => 1 + x / 1000)]);
    const log = apply(kernels, "test_log", [positive], new Float32Array(positive.length));
    expect(Math.max(...exp.map((y, i) => ulps(y, Math.exp(exponents[i]!))))).toBeLessThan(2);
    expect(Math.max(...log.map((y, i) => ulps(y, Math.log(positive[i]!))))).toBeLessThan(2);
  });
});
