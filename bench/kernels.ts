/**
 * Speed of the generated C kernels against the machine's measured peak: `npx tsx bench/kernels.ts [threads] [filter]`.
 * Prints GFLOP/s of the fastest of several calls, packing included. With one thread the time is that of the CPU, so
 * that other programs disturb it less.
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
import {
  crossEntropyArguments,
  crossEntropyWorkspace,
  renderCrossEntropy,
  renderWeightGradient,
  weightGradientArguments,
  weightGradientWorkspace,
  type CrossEntropySpec,
} from "../src/targets/c/cross-entropy.js";
import { Kernels, Memory } from "../src/testing/c/harness.js";

const threads = Number(process.argv[2] ?? 2);
const filter = process.argv[3] ?? "";
const repeats = Number(process.env["REPEATS"] ?? 7);

/** 24 independent chains of `operation`, which fill the multipliers of any CPU. */
function peakKernel(name: string, operation: string): string {
  const chains = Array.from({ length: 24 }, (_, index) => `s${index}`);
  return `
EXPORT void ${name}(const int64_t* w, Context* context) {
  vn x = thimble_splat_n(0.5f), y = thimble_splat_n(0.25f), ${chains.map((chain, index) => `${chain} = thimble_splat_n(${index})`).join(", ")};
  for (int64_t k = 0; k < w[0]; k++) {
    __asm__ volatile("" ::: "memory");
    ${chains.map((chain) => `${chain} = ${operation}(x, y, ${chain});`).join(" ")}
  }
  *(volatile float*)(w[1] + 64 * context->thread) = (${chains.join(" + ")})[0];
}`;
}

const peakSource = `${peakKernel("peak_f32", "thimble_fma_n")}
#ifdef HAS_BF16_DOT
${peakKernel("peak_bf16", "thimble_dot_n")}
#else
EXPORT void peak_bf16(const int64_t* w, Context* context) { peak_f32(w, context); }
#endif
EXPORT void flops(const int64_t* w, Context* context) {
  (void)context;
  ((int64_t*)w[0])[0] = NATIVE * 2;
  ((int64_t*)w[0])[1] = NATIVE * 2 * UNIT_bf16;
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
const losses: readonly (readonly [string, CrossEntropySpec])[] = (["f32", "bf16"] as const).flatMap((type) => {
  const loss: CrossEntropySpec = { x: type, weight: { dtype: type }, compute: type };
  return [
    [`${type} loss`, loss],
    [`${type} loss, dx`, { ...loss, inputGradient: type }],
    [`${type} dW`, { ...loss, normalizers: true }],
  ] as const;
});
const rendered = [
  ...used.map((spec) => renderContraction(spec)),
  ...losses.map(([, spec]) => (spec.normalizers === true ? renderWeightGradient(spec) : renderCrossEntropy(spec))),
];
const kernels = new Kernels([...rendered.map(({ source }) => source), peakSource], flags);

function measurePeak(): { f32: number; bf16: number } {
  const memory = new Memory(64 * 65);
  kernels.run("flops", [memory.address]);
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

/** GFLOP/s of the products that are made: one for the loss, two for the loss with dx and for dW. */
function measureLoss(spec: CrossEntropySpec, rows: number, depth: number, vocabulary: number): number {
  const bytes = bytesOf(spec.x);
  const memories = [
    rows * depth * bytes,
    vocabulary * depth * bytes,
    rows * 4,
    rows * 4,
    rows * 4,
    rows * depth * bytes,
  ];
  const [x, w, labels, weights, nll, dx] = memories.map((size) => new Memory(size));
  const late = spec.normalizers === true;
  const dw = new Memory(late ? vocabulary * depth * 4 : 4);
  const sizes = { rows, depth, vocabulary };
  const workspace = new Memory((late ? weightGradientWorkspace : crossEntropyWorkspace)(spec, sizes, threads));
  const all = [x, w, labels, weights, nll, dx, dw, workspace].filter((memory) => memory !== undefined);
  for (const { data } of all) data.fill(0x3c);
  new Int32Array(labels?.data.buffer ?? new ArrayBuffer(0), labels?.data.byteOffset, rows).fill(7);
  const at = (memory: Memory | undefined): { address: bigint; rowStride: number } => ({
    address: memory?.address ?? 0n,
    rowStride: depth,
  });
  const operands = {
    ...{ ...sizes, workspace: workspace.address, x: at(x), weight: at(w) },
    ...{ labels: at(labels).address, rowWeights: at(weights).address },
  };
  const perRow = at(nll).address;
  const words = late
    ? weightGradientArguments<bigint | number>({
        ...operands,
        ...{ normalizer: perRow, miss: perRow, weightGradient: at(dw) },
      })
    : crossEntropyArguments<bigint | number>({
        ...operands,
        ...{ nll: perRow, inputGradient: at(dx), normalizer: 0, miss: 0 },
      });
  const { name } = late ? renderWeightGradient(spec) : renderCrossEntropy(spec);
  const seconds = kernels.run(name, words, threads, Math.min(repeats, 3));
  all.forEach((memory) => {
    memory.free();
  });
  const products = late || spec.inputGradient !== undefined ? 2 : 1;
  return (2 * rows * depth * vocabulary * products) / seconds / 1e9;
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
for (const [label, spec] of losses) {
  for (const rows of [64, 1024]) {
    const line = `cross-entropy ${label.padEnd(18)} ${String(rows).padStart(5)} x 49152 x 576`;
    if (!line.includes(filter)) continue;
    const rate = measureLoss(spec, rows, 576, 49152);
    const share = rate / peak[spec.compute];
    console.log(`${line}  ${rate.toFixed(1).padStart(7)} GFLOP/s  ${(share * 100).toFixed(0).padStart(3)} %`);
  }
}
