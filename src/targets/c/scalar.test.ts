import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import koffi from "koffi";
import { describe, expect, test } from "vitest";
import type { Scalar, ScalarType } from "../../ir/scalar.js";
import { scalar as s } from "../../ir/scalar.js";
import { compileScalar } from "../../ir/scalar-javascript.js";
import { prelude } from "./prelude.js";
import type { ScalarMode } from "./scalar.js";
import { literal, renderScalar, tableSources } from "./scalar.js";

/** Arguments of every test expression: two floats, two i32, two u32, and a bool. */
const types: readonly ScalarType[] = ["f32", "f32", "i32", "i32", "u32", "u32", "bool"];
const [x, y, i, j, u, v, p] = types.map((type, index) => s.argument(index, type)) as [
  Scalar,
  Scalar,
  Scalar,
  Scalar,
  Scalar,
  Scalar,
  Scalar,
];
const lanes = 16;

/** Results come back as 32-bit words. */
type Kernel = (inputs: Uint8Array, out: Uint8Array) => void;

function source(name: string, expression: Scalar, mode: ScalarMode): string {
  const names = types.map((_, index) => `a${index}`);
  const { statements, result } = renderScalar(expression, names, mode);
  const pointers = { f32: "float", i32: "int32_t", u32: "uint32_t", bool: "int32_t" } as const;
  const body = statements.map((text) => `    ${text}`).join("\n");
  const head = `void ${name}(const uint32_t* in, void* out) {`;
  if (mode === "scalar") {
    const loads = types.map(
      (type, index) =>
        `    const ${pointers[type]} a${index} = ((const ${pointers[type]}*)in)[${index * lanes} + lane];`,
    );
    const store = `((${pointers[expression.type]}*)out)[lane] = ${result};`;
    return `${head}\n  for (int lane = 0; lane < ${lanes}; lane++) {\n${loads.join("\n")}\n${body}\n    ${store}\n  }\n}`;
  }
  const vectors = { f32: "vf", i32: "vi", u32: "vu", bool: "vi" } as const;
  const loads = types.map((type, index) => {
    const load = `*(const thimble_loose_i*)(in + ${index * lanes})`;
    return `    const ${vectors[type]} a${index} = (${vectors[type]})${type === "bool" ? `-(vi)(${load})` : `(${load})`};`;
  });
  const value = expression.type === "bool" ? `-(vi)${result}` : `(vi)${result}`;
  return `${head}\n${loads.join("\n")}\n${body}\n    *(thimble_loose_i*)out = ${value};\n}`;
}

function compile(expressions: readonly Scalar[], mode: ScalarMode, flags: readonly string[]): Kernel[] {
  const folder = mkdtempSync(join(tmpdir(), "thimble-scalar-"));
  try {
    const kernels = expressions.map((expression, index) => source(`kernel_${index}`, expression, mode));
    writeFileSync(join(folder, "kernels.c"), [prelude, tableSources(expressions), ...kernels].join("\n"));
    const library = join(folder, "kernels.so");
    const always = ["-std=gnu11", "-ffp-contract=off", "-fno-strict-aliasing", "-w", "-shared", "-fPIC"];
    execFileSync("cc", [...always, ...flags, "-o", library, join(folder, "kernels.c"), "-lm"]);
    const loaded = koffi.load(library);
    return expressions.map(
      (_, index) => loaded.func(`void kernel_${index}(const uint8_t* in, _Out_ uint8_t* out)`) as Kernel,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** An expression of every operation. */
const operations: Readonly<Record<string, Scalar>> = {
  table: s.table([3, -0.5, 1e-7, Infinity, -0, 7, 1 / 3, 2], s.and(i, 7)),
  negate: s.negate(x),
  "negate i32": s.negate(i),
  "negate u32": s.negate(u),
  absolute: s.absolute(x),
  "absolute i32": s.absolute(i),
  floor: s.floor(x),
  roundEven: s.roundEven(x),
  sqrt: s.sqrt(s.absolute(x)),
  not: s.not(i),
  "not bool": s.not(p),
  add: s.add(x, y),
  subtract: s.subtract(x, y),
  multiply: s.multiply(x, y),
  divide: s.divide(x, y),
  minimum: s.minimum(x, y),
  maximum: s.maximum(x, y),
  "minimum i32": s.minimum(i, j),
  "maximum u32": s.maximum(u, v),
  "add i32": s.add(i, j),
  "subtract i32": s.subtract(i, j),
  "multiply i32": s.multiply(i, j),
  "divide i32": s.divide(i, s.or(s.and(j, 1023), 1)),
  "divide u32": s.divide(u, s.or(v, 1)),
  "multiply u32": s.multiply(u, v),
  multiplyHigh: s.multiplyHigh(u, v),
  and: s.and(i, j),
  or: s.or(u, v),
  xor: s.xor(i, j),
  "and bool": s.and(s.less(x, y), p),
  "xor bool": s.xor(s.less(i, j), p),
  shiftLeft: s.shiftLeft(i, s.and(j, 31)),
  "shiftLeft u32": s.shiftLeft(u, s.and(v, 31)),
  shiftRight: s.shiftRight(i, s.and(j, 31)),
  "shiftRight u32": s.shiftRight(u, s.and(v, 31)),
  less: s.less(x, y),
  lessEqual: s.lessEqual(i, j),
  "less u32": s.less(u, v),
  equal: s.equal(x, y),
  notEqual: s.notEqual(u, v),
  fma: s.fma(x, y, s.multiply(x, s.negate(y))),
  "fma near": s.fma(x, s.f32(1.0000001), s.negate(x)),
  select: s.select(p, x, y),
  "select i32": s.select(s.less(x, y), i, j),
  "select bool": s.select(p, s.less(x, y), s.less(i, j)),
  "f32 to i32": s.convert("i32", s.maximum(s.minimum(x, s.f32(2e9)), s.f32(-2e9))),
  "f32 to u32": s.convert("u32", s.maximum(s.minimum(x, s.f32(4e9)), s.f32(0))),
  "i32 to f32": s.convert("f32", i),
  "u32 to f32": s.convert("f32", u),
  "bool to f32": s.convert("f32", p),
  "bool to i32": s.convert("i32", p),
  "f32 to bool": s.convert("bool", x),
  "i32 to bool": s.convert("bool", i),
  "i32 to u32": s.convert("u32", i),
  "f32 as u32": s.bitcast("u32", x),
  "f32 as i32": s.bitcast("i32", s.negate(x)),
  "i32 as f32": s.bitcast("f32", s.and(i, 0x3fffffff)),
  constants: s.add(s.multiply(x, s.f32(0.1)), s.select(p, s.f32(-0), s.f32(-1e-45))),
  infinities: s.minimum(s.f32(Infinity), s.maximum(s.f32(-Infinity), x)),
  "integer constants": s.xor(s.add(i, -2147483648), s.bitcast("i32", s.add(u, 0xffffffff))),
  shared: s.multiply(s.add(s.multiply(x, y), 1), s.add(s.multiply(x, y), 1)),
};

const float = fc.oneof(
  fc.float(),
  fc.float({ min: -8, max: 8, noNaN: true }),
  fc.constantFrom(0, -0, 0.5, 2.5, -1.5, 2 ** -149),
);
const row = fc.tuple(float, float, fc.integer(), fc.integer(), fc.nat(), fc.nat(), fc.boolean());
const block = fc.array(row, { minLength: lanes, maxLength: lanes });

/** The arguments as the kernels take them: 16 values of each in turn. */
function pack(rows: readonly (readonly (number | boolean)[])[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(types.length * lanes * 4));
  types.forEach((type, argument) => {
    rows.forEach((values, lane) => {
      const at = (argument * lanes + lane) * 4;
      if (type === "f32") view.setFloat32(at, Number(values[argument]), true);
      else view.setUint32(at, Number(values[argument]), true);
    });
  });
  return new Uint8Array(view.buffer);
}

function read(out: Uint8Array, lane: number, type: ScalarType): number {
  const view = new DataView(out.buffer);
  if (type === "f32") return view.getFloat32(lane * 4, true);
  return type === "i32" ? view.getInt32(lane * 4, true) : view.getUint32(lane * 4, true);
}

const builds = [
  { mode: "scalar", flags: ["-O3", "-march=native"] },
  { mode: "scalar", flags: ["-O0"] },
  { mode: "vector", flags: ["-O2", "-march=native"] },
  { mode: "vector", flags: ["-O1", "-DTHIMBLE_GENERIC"] },
] as const;

describe.each(builds)("$mode code, $flags", ({ mode, flags }) => {
  const names = Object.keys(operations);
  const kernels = compile(Object.values(operations), mode, flags);

  test.each(names)("%s gives the bits of JavaScript", (name) => {
    const expression = operations[name]!;
    const kernel = kernels[names.indexOf(name)]!;
    const expected = compileScalar(expression, types.length);
    fc.assert(
      fc.property(block, (rows) => {
        const out = new Uint8Array(lanes * 4);
        kernel(pack(rows), out);
        rows.forEach((values, lane) => {
          const value = expected(...values.map(Number));
          const given = read(out, lane, expression.type);
          if (!Object.is(given, value)) expect({ values, given }).toEqual({ values, given: value });
        });
      }),
      { numRuns: 60 },
    );
  });
});

test("literals are exact C constants", () => {
  expect([literal("f32", 1), literal("f32", 1e-45), literal("f32", -0), literal("f32", 2 ** 80)]).toEqual([
    "1.0f",
    "1.401298464324817e-45f",
    "(-0.0f)",
    "1.2089258196146292e+24f",
  ]);
  expect([literal("i32", -5), literal("i32", -2147483648), literal("u32", -1), literal("bool", 1)]).toEqual([
    "(-5)",
    "(-2147483647 - 1)",
    "4294967295u",
    "1",
  ]);
});

test("bytes are read only where the caller says how", () => {
  expect(() => renderScalar(s.byte(3), [], "scalar")).toThrow("block");
  expect(renderScalar(s.byte(3), [], "scalar", { prefix: "q", byte: (at) => `block[${at}]` })).toEqual({
    statements: ["const uint32_t q0 = block[3];"],
    result: "q0",
  });
});
