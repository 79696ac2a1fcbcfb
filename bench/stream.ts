/**
 * Weights on disk: a QLoRA step of Llama-2-7B's shape with all weights in memory, and with the frozen ones on disk.
 * Each is planned by the budget planner: the fastest plan of at most 5.5 GB, and of at most 1.8 GB.
 *
 *     npx tsx bench/stream.ts [--rounds N] [--format nf4-64-dq] [--layers N] [--keep]
 *
 * Writes a file of random 4-bit weights to the cache folder (3.9 GB; removed at the end, or kept with --keep), then
 * runs each variant in a process of its own: one step to warm up, N that are timed, and compares what was trained bit
 * by bit. What is read from disk is not left in the system's cache of files, so every read is one of the disk.
 */
import { execFileSync } from "node:child_process";
import { createHash, randomFillSync } from "node:crypto";
import { existsSync, rmSync, statSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { must } from "../src/errors.js";
import { elements } from "../src/ir/shape.js";
import { writeAtomically, writeJsonAtomically } from "../src/io/atomic.js";
import { readExactly } from "../src/io/tensor-file.js";
import type { WeightSource } from "../src/io/weight-source.js";
import { composeMethods } from "../src/methods/compose.js";
import { fromHuggingFaceConfig } from "../src/models/registry.js";
import type { ParameterSpec } from "../src/models/types.js";
import { makeOptimizer } from "../src/optim/registry.js";
import { peakResidentBytes, resetPeakResident, residentBytes } from "../src/runtime/memory.js";
import { cacheDirectory } from "../src/runtime/platform.js";
import { openSession, planOnly } from "../src/session/open.js";
import type { MemoryBudget, SessionBatch, SessionOptions } from "../src/session/types.js";
import { bytesOf } from "../src/storage/format.js";
import { layOutPlanes, openPlanes } from "../src/storage/planes.js";
import { storageFormat } from "../src/storage/registry.js";
import { describeMachine } from "./machine.js";

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "1" },
    format: { type: "string", default: "nf4-64-dq" },
    layers: { type: "string", default: "32" },
    variant: { type: "string" },
    keep: { type: "boolean", default: false },
  },
});
const rounds = Number(flags.rounds);
const results = fileURLToPath(new URL("results/stream.json", import.meta.url));
const length = 512;

const definition = fromHuggingFaceConfig({
  model_type: "llama",
  architectures: ["LlamaForCausalLM"],
  vocab_size: 32000,
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: Number(flags.layers),
  num_attention_heads: 32,
  num_key_value_heads: 32,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  max_position_embeddings: 4096,
  tie_word_embeddings: false,
  hidden_act: "silu",
});

const formatOf = (name: string): string => (name.includes("_proj") ? flags.format : "bf16");
const sizeOf = ({ name, shape }: Pick<ParameterSpec, "name" | "shape">): number =>
  bytesOf(storageFormat(formatOf(name)), shape);

/** Where each tensor lies in the file. */
const offsets = new Map<string, number>();
let fileBytes = 0;
for (const parameter of definition.parameters) {
  offsets.set(parameter.name, fileBytes);
  fileBytes += Math.ceil(sizeOf(parameter) / 4096) * 4096;
}

/** Random bytes that decode to weights of about the size that trained ones have. */
function randomTensor({ name, shape, kind }: ParameterSpec): Uint8Array {
  const format = formatOf(name);
  const count = elements(shape);
  const { planes, encode } = storageFormat(format);
  const bytes = new Uint8Array(sizeOf({ name, shape }));
  if (planes !== undefined) {
    randomFillSync(bytes);
    const random = bytes.slice(must(layOutPlanes(planes, count).offsets[0], "plane"));
    const [codes, scales, scalesOfScales, mean] = openPlanes(planes, bytes, count).map(
      (plane) => new Uint8Array(plane.buffer, plane.byteOffset, plane.byteLength),
    );
    must(codes, "codes").set(random.subarray(0, codes?.length));
    must(scales, "scales").set(random.subarray(0, scales?.length));
    const floats = (plane: Uint8Array | undefined): Float32Array => {
      const { buffer, byteOffset, byteLength } = must(plane, "plane of floats");
      return new Float32Array(buffer, byteOffset, byteLength / 4);
    };
    floats(scalesOfScales).fill(0.008);
    floats(mean).fill(0.04);
    return bytes;
  }
  // A stretch of values, repeated; norms are ones.
  const stretch = Float32Array.from({ length: Math.min(count, 2 ** 16) }, () => (Math.random() - 0.5) * 0.07);
  const packed = must(encode, `encoder of ${format}`)(kind === "norm" ? stretch.fill(1) : stretch);
  for (let at = 0; at < bytes.length; at += packed.length) bytes.set(packed.subarray(0, bytes.length - at), at);
  return bytes;
}

async function writeWeights(path: string): Promise<void> {
  if (existsSync(path) && statSync(path).size === fileBytes) return;
  await writeAtomically(path, async (write) => {
    for (const parameter of definition.parameters) {
      const bytes = randomTensor(parameter);
      await write(bytes);
      await write(new Uint8Array(Math.ceil(bytes.length / 4096) * 4096 - bytes.length));
    }
  });
}

async function openWeights(path: string): Promise<WeightSource> {
  const handle = await open(path);
  const offsetOf = (name: string): number => must(offsets.get(name), name);
  return {
    tensor: (name) => {
      const parameter = must(
        definition.parameters.find((one) => one.name === name),
        name,
      );
      return { shape: parameter.shape, storageFormat: formatOf(name), bytes: sizeOf(parameter) };
    },
    readInto: (name, target) => readExactly(handle, target, offsetOf(name), path),
    place: (name) => ({ path, offset: offsetOf(name) }),
    close: () => handle.close(),
  };
}

const variants: Readonly<Record<string, Partial<SessionOptions>>> = {
  resident: { budget: budgetOf(5.5e9) },
  streamed: { budget: budgetOf(1.8e9), place: { disk: () => true, uncached: true } },
};

/** So many bytes for the plan, which is then the fastest that keeps to them. */
function budgetOf(bytes: number): MemoryBudget {
  return { bytes, overheadBytes: 0, allowLossy: false };
}

function optionsOf(variant: string): SessionOptions {
  return {
    definition,
    storedFormat: formatOf,
    methods: composeMethods([{ id: "lora", settings: { r: 16, target_modules: "all-linear" } }], definition),
    batch: 1,
    length,
    accumulate: 1,
    dtype: "bf16",
    optimizer: makeOptimizer({}),
    clip: undefined,
    saved: "cheap",
    segments: false,
    train: true,
    evaluate: false,
    decode: undefined,
    target: "c",
    threads: describeMachine().cores,
    seed: 0,
    ...must(variants[variant], variant),
  };
}

interface Measured {
  readonly planBytes: number;
  readonly arenaBytes: number;
  readonly diskBytes: number;
  readonly readBytes: number;
  /** As the planner foretells it, from rates that were not measured here. */
  readonly predictedSeconds: number;
  readonly rssBytes: number;
  readonly loadSeconds: number;
  readonly stepSeconds: readonly number[];
  readonly waitedSeconds: readonly number[];
  readonly losses: readonly number[];
  readonly trained: string;
}

const batch: SessionBatch = {
  ids: Int32Array.from({ length }, (_, index) => (index * 7919) % 32000),
  labels: Int32Array.from({ length }, (_, index) => ((index + 1) * 7919) % 32000),
  weights: new Float32Array(length).fill(1),
  positions: Int32Array.from({ length }, (_, index) => index),
  segments: new Int32Array(0),
};

/** One variant, in this process. */
async function measure(variant: string, path: string): Promise<Measured> {
  const plan = planOnly(optionsOf(variant));
  const before = residentBytes();
  resetPeakResident();
  const session = await openSession(plan, { timed: true });
  const weights = await openWeights(path);
  const started = performance.now();
  await session.load(weights);
  const loadSeconds = (performance.now() - started) / 1000;
  const measured = { steps: [] as number[], waited: [] as number[], losses: [] as number[] };
  for (let step = 0; step <= rounds; step++) {
    const { seconds, loss } = await session.step([batch], { rate: 1e-4, step });
    measured.losses.push(loss);
    process.stderr.write(`${variant}: step ${step}, ${seconds.toFixed(1)} s, loss ${loss}\n`);
    if (step === 0) continue;
    measured.steps.push(seconds);
    measured.waited.push(session.waited("train"));
  }
  const hash = createHash("sha256");
  for (const { name, changes } of session.tensors) if (changes) hash.update(session.bytes(name));
  const { disk, planBytes } = plan.report;
  const result = {
    planBytes,
    arenaBytes: session.arenaBytes,
    diskBytes: disk?.bytes ?? 0,
    readBytes: disk?.programs[0]?.read ?? 0,
    predictedSeconds: plan.report.stepSeconds,
    rssBytes: peakResidentBytes() - before,
    loadSeconds,
    stepSeconds: measured.steps,
    waitedSeconds: measured.waited,
    losses: measured.losses,
    trained: hash.digest("hex"),
  };
  session.close();
  await weights.close();
  return result;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return ((sorted[(sorted.length - 1) >> 1] ?? NaN) + (sorted[sorted.length >> 1] ?? NaN)) / 2;
}

async function compare(): Promise<void> {
  const runs: Record<string, Measured> = {};
  for (const variant of Object.keys(variants)) {
    const own = [...process.execArgv, ...process.argv.slice(1), "--variant", variant];
    const output = execFileSync(process.execPath, own, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
    runs[variant] = JSON.parse(output) as Measured;
  }
  const [resident, streamed] = [must(runs["resident"], "run"), must(runs["streamed"], "run")];
  const summary = {
    what: `QLoRA step of Llama-2-7B's shape, ${flags.layers} layers, ${flags.format}, r 16, all linears, 1 x ${length}, bf16`,
    machine: describeMachine(),
    rounds,
    slowdown: median(streamed.stepSeconds) / median(resident.stepSeconds),
    arenaShare: streamed.arenaBytes / resident.arenaBytes,
    equal: resident.trained === streamed.trained && JSON.stringify(resident.losses) === JSON.stringify(streamed.losses),
    runs,
  };
  await writeJsonAtomically(results, summary);
  process.stdout.write(`${JSON.stringify(summary, undefined, 2)}\n`);
}

const path = join(cacheDirectory(), `bench-stream-${flags.format}-${flags.layers}.bin`);
if (flags.variant !== undefined) {
  await writeWeights(path);
  process.stdout.write(JSON.stringify(await measure(flags.variant, path)));
} else {
  try {
    await writeWeights(path);
    await compare();
  } finally {
    if (!flags.keep) rmSync(path, { force: true });
  }
}
