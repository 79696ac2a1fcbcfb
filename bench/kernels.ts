/**
 * Speed of the generated C kernels against the machine's measured peak: `npx tsx bench/kernels.ts [threads] [filter]`.
 * Prints GFLOP/s of the fastest of several calls, packing included, and the share of peak weighted by operations over
 * the products of a step; without a filter it writes bench/results/kernels.json. With one thread the time is that of
 * the CPU, so that other programs disturb it less. TOKENS (default 1024,2048,4096) and REPEATS may be set.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
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
import { operations, shapes, type Layout, type Shape } from "./contraction-shapes.js";
import { describeMachine } from "./machine.js";
import { measurePeak } from "./peak.js";

const threads = Number(process.argv[2] ?? 2);
const filter = process.argv[3] ?? "";
const repeats = Number(process.env["REPEATS"] ?? 7);
const tokenCounts = (process.env["TOKENS"] ?? "1024,2048,4096").split(",").map(Number);

const plain = (dtype: ContractionDType): Operand => ({ dtype, transposed: false });
const turned = (dtype: ContractionDType): Operand => ({ dtype, transposed: true });

const layouts: Readonly<Record<Layout, (a: ContractionDType, b: ContractionDType) => { a: Operand; b: Operand }>> = {
  "X W^T": (a: ContractionDType, b: ContractionDType) => ({ a: plain(a), b: turned(b) }),
  "G W": (a: ContractionDType, b: ContractionDType) => ({ a: plain(a), b: plain(b) }),
  "G^T X": (a: ContractionDType, b: ContractionDType) => ({ a: turned(a), b: plain(b) }),
};

const variants = [
  { label: "f32", compute: "f32", a: "f32", b: "f32" },
  { label: "bf16", compute: "bf16", a: "bf16", b: "bf16" },
  { label: "bf16 of f32", compute: "bf16", a: "f32", b: "f32" },
] as const;

function specOf({ layout, depths }: Shape, variant: (typeof variants)[number]): ContractionSpec {
  return {
    segments: depths.map(() => layouts[layout](variant.a, variant.b)),
    compute: variant.compute,
    epilogue: storeEpilogue(variant.a),
  };
}

const measured = tokenCounts.flatMap((tokens) => shapes(tokens).map((shape) => ({ tokens, ...shape })));
const used = variants.flatMap((variant) => shapes(1024).map((shape) => specOf(shape, variant)));
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
const kernels = new Kernels(
  rendered.map(({ source }) => source),
  flags,
);

const bytesOf = (dtype: ContractionDType): number => (dtype === "f32" ? 4 : 2);

/** Memory of a step's size, through which operands wander: a call then finds little of them in the inner caches. */
const pool = new Memory(320 * 2 ** 20);
pool.data.fill(0x3c);
let place = 0;
function takeMemory(bytes: number): bigint {
  const size = Math.ceil(bytes / 64) * 64;
  if (place + size > pool.bytes) place = 0;
  place += size;
  return pool.address + BigInt(place - size);
}

/** Seconds of the fastest of several calls, each on operands that lie elsewhere. */
function measure(shape: Shape, variant: (typeof variants)[number]): number {
  const { layout, rows, columns, depths } = shape;
  const spec = specOf(shape, variant);
  const bytes = contractionWorkspace(spec, { rows, columns, depths }, threads);
  const workspace = new Memory(bytes);
  const { name } = renderContraction(spec);
  const seconds = Array.from({ length: repeats }, () => {
    const words = contractionArguments<bigint>({
      rows: BigInt(rows),
      columns: BigInt(columns),
      batch: 1n,
      workspace: workspace.address,
      segments: depths.map((depth) => ({
        a: {
          address: takeMemory(rows * depth * bytesOf(variant.a)),
          rowStride: BigInt(layout === "G^T X" ? rows : depth),
          batchStride: 0n,
        },
        b: {
          address: takeMemory(columns * depth * bytesOf(variant.b)),
          rowStride: BigInt(layout === "X W^T" ? depth : columns),
          batchStride: 0n,
        },
        depth: BigInt(depth),
      })),
      epilogue: [takeMemory(rows * columns * bytesOf(variant.a)), BigInt(columns), 0n],
    });
    return kernels.run(name, words, threads, 1);
  });
  workspace.free();
  return Math.min(...seconds);
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

const peak = await measurePeak(threads);
console.log(`peak of ${threads} threads: f32 ${peak.f32.toFixed(0)}, bf16 ${peak.bf16.toFixed(0)} GFLOP/s`);
interface Result extends Shape {
  readonly variant: string;
  readonly tokens: number;
  readonly gigaflops: number;
  readonly share: number;
}
const results: Result[] = [];
for (const variant of variants) {
  for (const shape of measured) {
    const size = `${String(shape.rows).padStart(5)} x ${String(shape.columns).padStart(5)} x ${shape.depths.join("+")}`;
    const label = `${variant.label.padEnd(12)} ${shape.layout.padEnd(6)} ${size.padEnd(36)}`;
    if (!label.includes(filter)) continue;
    const gigaflops = operations(shape) / measure(shape, variant) / 1e9;
    const share = gigaflops / peak[variant.compute];
    results.push({ ...shape, variant: variant.label, gigaflops, share });
    console.log(`${label}  ${gigaflops.toFixed(1).padStart(7)} GFLOP/s  ${(share * 100).toFixed(0).padStart(3)} %`);
  }
}

/** Share of peak of many products: all their operations over all their time. */
function weighted(list: readonly Result[], compute: "f32" | "bf16"): number {
  const work = list.reduce((sum, one) => sum + one.count * operations(one), 0);
  const time = list.reduce((sum, one) => sum + (one.count * operations(one)) / (one.gigaflops * 1e9), 0);
  return work / time / 1e9 / peak[compute];
}

const directions = ["forward", "input gradient", "weight gradient", "adapter"] as const;
const summary = variants.flatMap(({ label, compute }) =>
  tokenCounts.flatMap((tokens) => {
    const list = results.filter((one) => one.variant === label && one.tokens === tokens);
    const parts = directions.map(
      (direction) => [direction, list.filter((one) => one.direction === direction)] as const,
    );
    return [["all", list] as const, ...parts]
      .filter(([, some]) => some.length > 0)
      .map(([direction, some]) => ({ variant: label, tokens, direction, share: weighted(some, compute) }));
  }),
);
for (const { variant, tokens, direction, share } of summary) {
  console.log(`${variant.padEnd(12)} ${tokens} tokens, ${direction.padEnd(15)} ${(share * 100).toFixed(1)} % of peak`);
}
if (filter === "") {
  const file = join(import.meta.dirname, "results", "kernels.json");
  const text = JSON.stringify(
    { machine: describeMachine(), threads, peakGigaflops: peak, summary, products: results },
    null,
    1,
  );
  writeFileSync(file, `${text}\n`);
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
