/**
 * Speed of the generated C kernels against the machine's measured peak: `npx tsx bench/kernels.ts [threads] [filter]`.
 * Prints GFLOP/s of the fastest of several calls, packing included.
 */
import { storeEpilogue } from "../src/targets/c/contraction-epilogue.js";
import {
  contractionArguments,
  contractionWorkspace,
  renderContraction,
  type ContractionDType,
  type ContractionSpec,
  type Operand,
} from "../src/targets/c/contraction.js";
import { Kernels, Memory } from "../src/targets/c/testing/harness.js";

const threads = Number(process.argv[2] ?? 2);
const filter = process.argv[3] ?? "";
const repeats = Number(process.env["REPEATS"] ?? 7);

const peakSource = `
EXPORT void peak_f32(const int64_t* w, Context* context) {
  (void)context;
  vn sums[24], x = thimble_splat_n(0.5f), y = thimble_splat_n(0.25f);
  for (int i = 0; i < 24; i++) sums[i] = (vn){0};
  for (int64_t k = 0; k < w[0]; k++) {
#pragma GCC unroll 24
    for (int i = 0; i < 24; i++) sums[i] = thimble_fma_n(x, y, sums[i]);
    __asm__ volatile("" : "+m"(*(int64_t*)w[1]));
  }
  float total = 0;
  for (int i = 0; i < 24; i++) total += sums[i][0];
  *(volatile float*)(w[1] + 64 * (context->thread + 1)) = total;
}
#ifdef HAS_BF16_DOT
EXPORT void peak_bf16(const int64_t* w, Context* context) {
  vn sums[24], x = thimble_splat_n(0.5f), y = thimble_splat_n(0.25f);
  for (int i = 0; i < 24; i++) sums[i] = (vn){0};
  for (int64_t k = 0; k < w[0]; k++) {
#pragma GCC unroll 24
    for (int i = 0; i < 24; i++) sums[i] = thimble_dot_n(x, y, sums[i]);
    __asm__ volatile("" : "+m"(*(int64_t*)w[1]));
  }
  float total = 0;
  for (int i = 0; i < 24; i++) total += sums[i][0];
  *(volatile float*)(w[1] + 64 * (context->thread + 1)) = total;
}
EXPORT int64_t peak_lanes(void) { return NATIVE * 4; }
#else
EXPORT void peak_bf16(const int64_t* w, Context* context) { peak_f32(w, context); }
EXPORT int64_t peak_lanes(void) { return NATIVE * 2; }
#endif
EXPORT void lanes(const int64_t* w, Context* context) {
  (void)context;
  ((int64_t*)w[0])[0] = NATIVE * 2;
  ((int64_t*)w[0])[1] = peak_lanes();
}`;

const plain = (dtype: ContractionDType): Operand => ({ dtype, transposed: false });
const turned = (dtype: ContractionDType): Operand => ({ dtype, transposed: true });

const layouts = {
  "X W^T": (a: ContractionDType, b: ContractionDType) => ({ a: plain(a), b: turned(b) }),
  "G W": (a: ContractionDType, b: ContractionDType) => ({ a: plain(a), b: plain(b) }),
  "G^T X": (a: ContractionDType, b: ContractionDType) => ({ a: turned(a), b: plain(b) }),
} as const;
type Layout = keyof typeof layouts;

/** Rows, columns, depth of the products of a 135M-parameter model's step at 1024 tokens, with LoRA rank 16. */
const shapes: readonly (readonly [Layout, number, number, number])[] = [
  ["X W^T", 1024, 576, 576],
  ["X W^T", 1024, 192, 576],
  ["X W^T", 1024, 1536, 576],
  ["X W^T", 1024, 576, 1536],
  ["X W^T", 1024, 16, 576],
  ["X W^T", 1024, 576, 16],
  ["X W^T", 1024, 4096, 4096],
  ["X W^T", 64, 1536, 576],
  ["X W^T", 8, 1536, 576],
  ["X W^T", 1, 49152, 576],
  ["G W", 1024, 576, 576],
  ["G W", 1024, 576, 1536],
  ["G W", 1024, 1536, 576],
  ["G W", 1024, 576, 192],
  ["G W", 1024, 576, 16],
  ["G^T X", 576, 576, 1024],
  ["G^T X", 1536, 576, 1024],
  ["G^T X", 192, 576, 1024],
  ["G^T X", 16, 576, 1024],
  ["G^T X", 1536, 16, 1024],
];

const variants = [
  { label: "f32", compute: "f32", a: "f32", b: "f32" },
  { label: "bf16", compute: "bf16", a: "bf16", b: "bf16" },
  { label: "bf16 of f32", compute: "bf16", a: "f32", b: "f32" },
] as const;

function specOf(layout: Layout, variant: (typeof variants)[number]): ContractionSpec {
  return {
    segments: [layouts[layout](variant.a, variant.b)],
    compute: variant.compute,
    epilogue: storeEpilogue("f32"),
  };
}

const used = (Object.keys(layouts) as Layout[]).flatMap((layout) => variants.map((variant) => specOf(layout, variant)));
const flags = ["-march=native", ...(process.env["FLAGS"] ?? "").split(" ").filter((flag) => flag !== "")];
const kernels = new Kernels([...used.map((spec) => renderContraction(spec).source), peakSource], flags);

function measurePeak(): { f32: number; bf16: number } {
  const memory = new Memory(64 * 65);
  kernels.run("lanes", [memory.address]);
  const [f32Flops, bf16Flops] = new BigInt64Array(memory.data.buffer, memory.data.byteOffset, 2);
  const loops = 2_000_000;
  const rate = (name: string, flops: bigint | undefined): number =>
    (threads * loops * 24 * Number(flops)) / kernels.run(name, [loops, memory.address], threads, 5) / 1e9;
  return { f32: rate("peak_f32", f32Flops), bf16: rate("peak_bf16", bf16Flops) };
}

const bytesOf = (dtype: ContractionDType): number => (dtype === "f32" ? 4 : 2);

function measure(layout: Layout, variant: (typeof variants)[number], m: number, n: number, k: number): number {
  const spec = specOf(layout, variant);
  const a = new Memory(m * k * bytesOf(variant.a));
  const b = new Memory(k * n * bytesOf(variant.b));
  const c = new Memory(m * n * 4);
  for (const { data } of [a, b]) data.fill(0x3c);
  const workspace = new Memory(contractionWorkspace(spec, { rows: m, columns: n, depths: [k] }, threads));
  const segment = {
    a: { address: a.address, rowStride: BigInt(layout === "G^T X" ? m : k), batchStride: 0n },
    b: { address: b.address, rowStride: BigInt(layout === "X W^T" ? k : n), batchStride: 0n },
    depth: BigInt(k),
  };
  const words = contractionArguments<bigint>({
    rows: BigInt(m),
    columns: BigInt(n),
    batch: 1n,
    workspace: workspace.address,
    segments: [segment],
    epilogue: [c.address, BigInt(n), 0n],
  });
  const seconds = kernels.run(renderContraction(spec).name, words, threads, repeats);
  [a, b, c, workspace].forEach((memory) => {
    memory.free();
  });
  return (2 * m * n * k) / seconds / 1e9;
}

const peak = measurePeak();
console.log(`peak of ${threads} threads: f32 ${peak.f32.toFixed(0)}, bf16 ${peak.bf16.toFixed(0)} GFLOP/s`);
for (const variant of variants) {
  for (const [layout, m, n, k] of shapes) {
    const label = `${variant.label.padEnd(12)} ${layout.padEnd(6)} ${String(m).padStart(5)} x ${String(n).padStart(5)} x ${String(k).padStart(5)}`;
    if (!label.includes(filter)) continue;
    const rate = measure(layout, variant, m, n, k);
    const share = rate / peak[variant.compute];
    console.log(`${label}  ${rate.toFixed(1).padStart(7)} GFLOP/s  ${(share * 100).toFixed(0).padStart(3)} %`);
  }
}
