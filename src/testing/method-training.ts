import { describe, expect, test } from "vitest";
import { invariant, must } from "../errors.js";
import type { WeightSource } from "../io/weight-source.js";
import { elements } from "../ir/shape.js";
import type { MethodSelection } from "../methods/compose.js";
import { composeMethods } from "../methods/compose.js";
import type { ModelDefinition, ModelTask } from "../models/types.js";
import { makeOptimizer } from "../optim/registry.js";
import { allocatedBytes } from "../runtime/memory.js";
import { drawnBatches } from "../session/draw.js";
import { openSession } from "../session/open.js";
import type { RunningSession } from "../session/session.js";
import type { SessionBatch, SessionOptions } from "../session/types.js";
import { storageFormat } from "../storage/registry.js";
import { storedFormats } from "../train/options.js";
import { relativeDifference, sequence, tinyLlama } from "./tiny.js";

/** A model of two blocks whose sizes are no multiples of anything, for training runs of a few steps. */
export const trainedModel: ModelDefinition = tinyLlama({
  hidden_size: 48,
  intermediate_size: 80,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  vocab_size: 67,
});

/** Random weights for any model, in any storage format that can be written. */
export function randomWeights(model: ModelDefinition): WeightSource {
  const specs = new Map(model.parameters.map((spec) => [spec.name, spec]));
  return {
    tensor: (name) => ({ shape: must(specs.get(name), name).shape, storageFormat: "f32", bytes: 0 }),
    readInto: (name, target, format) => {
      const spec = must(specs.get(name), name);
      const next = sequence(name.length * 31 + name.charCodeAt(name.length >> 1));
      const centre = spec.kind === "norm" ? 1 : 0;
      const values = Float32Array.from({ length: elements(spec.shape) }, () => centre + next() * 0.4);
      const encoded = must(storageFormat(format).encode, `encoder of ${format}`)(values);
      invariant(encoded.byteLength === target.byteLength, `${name} has a place of its own size`);
      target.set(encoded);
      return Promise.resolve();
    },
    close: () => Promise.resolve(),
  };
}

/** A micro-batch of two rows of 19 tokens in two records each, some without a loss. */
export function trainingBatch(step: number, vocabulary = 67, [rows, length] = [2, 19]): SessionBatch {
  const tokens = rows * length;
  const id = (index: number): number => (index * 13 + step * 29) % vocabulary;
  const of = (value: (index: number) => number): Int32Array => Int32Array.from({ length: tokens }, (_, i) => value(i));
  return {
    ids: of(id),
    labels: of((index) => id(index + 1)),
    weights: Float32Array.from(of((index) => (index % length === length - 1 || index % 5 === 0 ? 0 : 1))),
    positions: of((index) => (index % length) % 11),
    segments: of((index) => Math.floor((index % length) / 11)),
  };
}

/** A micro-batch as the model takes it: of running text, or of records with labels where it has a task. */
export function batchFor({ task, vocabularySize }: ModelDefinition, step: number): SessionBatch {
  return task === undefined ? trainingBatch(step, vocabularySize) : labelledBatch(step, task, vocabularySize);
}

/** Two records of 19 and 13 tokens in two parts each, padded to 19; what they are to tell shows in their tokens. */
function labelledBatch(step: number, { kind, labels }: ModelTask, vocabulary: number): SessionBatch {
  const [rows, length] = [2, 19];
  const classes = Array.from(
    { length: rows },
    (_, row) => (step * rows + row) % (kind === "regression" ? 3 : labels.length),
  );
  const of = (value: (place: number, row: number) => number): Int32Array =>
    Int32Array.from({ length: rows * length }, (_, at) => value(at % length, Math.floor(at / length)));
  const held = (place: number, row: number): boolean => place < length - 6 * row;
  return {
    ids: of((place, row) => (held(place, row) ? (place * 13 + (classes[row] ?? 0) * 29) % vocabulary : 0)),
    positions: of((place, row) => (held(place, row) ? place : 0)),
    segments: of((place, row) => (held(place, row) ? 0 : -1)),
    types: of((place, row) => Number(held(place, row) && place > 7)),
    labels: Int32Array.from(classes, (label) => (kind === "regression" ? 0 : label)),
    targets: Float32Array.from(classes, (label) => label - 1),
    weights: new Float32Array(rows).fill(1),
  };
}

export interface TrainingCase {
  readonly selection: readonly MethodSelection[];
  readonly model?: ModelDefinition;
  readonly optimizer?: Readonly<Record<string, unknown>>;
  readonly session?: Partial<SessionOptions>;
}

export function trainingOptions({
  selection,
  model = trainedModel,
  optimizer = {},
  session = {},
}: TrainingCase): SessionOptions {
  const methods = composeMethods(selection, model);
  const dtype = session.dtype ?? "f32";
  return {
    definition: model,
    storedFormat: storedFormats(
      model,
      dtype,
      undefined,
      (parameter) => methods.trains(parameter),
      (parameter) => methods.baseFormat(parameter),
      (parameter) => methods.place?.stored?.(parameter),
    ),
    methods,
    batch: 2,
    length: 19,
    accumulate: 1,
    dtype,
    optimizer: makeOptimizer(optimizer),
    clip: undefined,
    saved: "cheap",
    segments: true,
    train: true,
    evaluate: true,
    decode: undefined,
    target: "c",
    threads: 2,
    seed: 7,
    ...session,
  };
}

export interface TrainingOutcome {
  readonly losses: readonly number[];
  /** Everything that a checkpoint holds. */
  readonly tensors: ReadonlyMap<string, Uint8Array>;
  /** Loss of a batch after the last step. */
  readonly evaluation: number;
  readonly planBytes: number;
  readonly arenaBytes: number;
  readonly session: SessionOptions;
}

export interface TrainingRun {
  readonly from?: number;
  readonly to?: number;
  readonly poison?: boolean;
  readonly rate?: number;
  /** State to go on from, as a checkpoint holds it. */
  readonly tensors?: ReadonlyMap<string, Uint8Array>;
}

/** Steps `from` to `to` of a run, with everything that the runtime took given back. */
export async function runTraining(options: SessionOptions, run: TrainingRun = {}): Promise<TrainingOutcome> {
  const { from = 0, to = 4, poison = false, rate = 0.01 } = run;
  const before = allocatedBytes();
  const session = await openSession(options, { poison });
  try {
    await session.load(randomWeights(options.definition));
    for (const [name, bytes] of run.tensors ?? []) session.put(name, bytes);
    const losses: number[] = [];
    for (let step = from; step < to; step++) losses.push(await oneStep(session, options, step, rate));
    const { lossSum, weightSum } = await session.evaluate(batchFor(options.definition, 0));
    const changing = session.tensors.filter(({ changes }) => changes);
    return {
      losses,
      evaluation: lossSum / weightSum,
      tensors: new Map(changing.map(({ name }) => [name, session.bytes(name).slice()])),
      planBytes: session.report.planBytes,
      arenaBytes: options.target === "c" ? allocatedBytes() - before : session.arenaBytes,
      session: options,
    };
  } finally {
    session.close();
  }
}

async function oneStep(session: RunningSession, options: SessionOptions, step: number, rate: number): Promise<number> {
  const { definition } = options;
  const drawn = drawnBatches(options);
  const micro = Array.from({ length: drawn }, (_, index) => batchFor(definition, step * drawn + index));
  return (await session.step(micro, { rate, step, data: (index) => batchFor(definition, index) })).loss;
}

export interface TrainingBattery extends TrainingCase {
  readonly title: string;
  /** Largest relative difference of a loss between compiled code and the interpreter. */
  readonly tolerance?: number;
  /** Steps of a run, to reach all that the method does. */
  readonly steps?: number;
  /** Configurations beside the plain one. */
  readonly variants?: Readonly<Record<string, Partial<SessionOptions>>>;
}

const usual: Readonly<Record<string, Partial<SessionOptions>>> = {
  "one batch a step": {},
  "two micro-batches a step": { accumulate: 2 },
  "in bf16": { dtype: "bf16" },
  "recomputing blocks": { saved: "block" },
};

/**
 * What every method must do in training, in each configuration: the runtime takes what the plan says, nothing unwritten
 * is read, compiled code agrees with the interpreter, results do not depend on the number of threads, and a run that
 * goes on from a checkpoint ends in the same bits.
 */
export function checkTrainingBattery(battery: TrainingBattery): void {
  const { title, steps = 4, tolerance = 2e-5, variants = usual } = battery;
  describe(`${title} in training`, () => {
    for (const [name, overrides] of Object.entries(variants)) {
      const options = (more: Partial<SessionOptions> = {}): SessionOptions =>
        trainingOptions({ ...battery, session: { ...battery.session, ...overrides, ...more } });
      test(`${name}: plan, poison, threads and resume`, async () => {
        const whole = await runTraining(options(), { to: steps, poison: true });
        expect(whole.arenaBytes).toBe(whole.planBytes);
        expect(whole.losses.every(Number.isFinite)).toBe(true);
        const alone = await runTraining(options({ threads: 1 }), { to: steps });
        expect(alone.losses).toEqual(whole.losses);
        expect(alone.tensors).toEqual(whole.tensors);
        const half = Math.ceil(steps / 2);
        const first = await runTraining(options(), { to: half });
        const second = await runTraining(options(), { from: half, to: steps, tensors: first.tensors, poison: true });
        expect([...first.losses, ...second.losses]).toEqual(whole.losses);
        expect(second.tensors).toEqual(whole.tensors);
        expect(second.evaluation).toBe(whole.evaluation);
      });
      test(`${name}: as the interpreter`, async () => {
        const compiled = await runTraining(options(), { to: steps });
        const meant = await runTraining(options({ target: "interpret" }), { to: steps, poison: true });
        const allowed = options().dtype === "bf16" ? 0.02 : tolerance;
        expect(relativeDifference(compiled.losses, meant.losses)).toBeLessThan(allowed);
      });
    }

    test("lowers the loss", async () => {
      const { losses, evaluation } = await runTraining(trainingOptions(battery), { to: 3 * steps });
      expect(evaluation).toBeLessThan(must(losses[0], "first loss"));
    });
  });
}
