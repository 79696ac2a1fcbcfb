import type { WeightSource } from "../../io/weight-source.js";
import type { Optimizer } from "../../optim/types.js";
import { schedule } from "../../optim/schedules.js";
import { layOutLeaves } from "../../plan/plan.js";
import { reportPrograms } from "../../plan/report.js";
import type { PersistentTensor, Session, SessionBatch, SessionOptions, StepResult } from "../../session/types.js";
import type { ModelDefinition } from "../../models/types.js";
import { diskFiles } from "../files.js";
import type { Environment, LoopSettings, PreparedRun } from "../types.js";

const width = 48;
const batchSize = 2;
const length = 4;

/** A session without a model: momentum descent towards targets that the batches give, in f32. */
export class ToySession implements Session {
  readonly report = reportPrograms([], layOutLeaves([], 64), []);
  readonly arenaBytes = 3 * width * 4;
  readonly target = "interpret";
  readonly threads = 1;
  readonly compileSeconds = 0;
  readonly trainableParameters = width;
  readonly tensors: readonly PersistentTensor[] = ["base", "weight", "weight.momentum"].map((name) => ({
    name,
    role: name === "weight.momentum" ? ("state" as const) : ("weight" as const),
    shape: [width],
    dtype: "f32" as const,
    format: "f32",
    bytes: width * 4,
    changes: name !== "base",
  }));
  closed = false;
  /** Steps that give NaN as loss, or put NaN into the weight. */
  lossBreaksAt = -1;
  weightBreaksAt = -1;
  readonly values = new Map(this.tensors.map(({ name }) => [name, new Float32Array(width)]));

  load(): Promise<void> {
    this.array("base").fill(0.5);
    this.array("weight").forEach((_, index, all) => (all[index] = Math.fround(Math.sin(index))));
    this.array("weight.momentum").fill(0);
    return Promise.resolve();
  }

  step(batches: readonly SessionBatch[], { rate, step }: { rate: number; step: number }): Promise<StepResult> {
    const [weight, momentum] = [this.array("weight"), this.array("weight.momentum")];
    let loss = 0;
    for (let index = 0; index < width; index++) {
      let gradient = 0;
      for (const batch of batches) gradient += (weight[index] ?? 0) - (batch.ids[index % batch.ids.length] ?? 0) / 7;
      gradient /= batches.length;
      loss += gradient * gradient;
      momentum[index] = 0.9 * (momentum[index] ?? 0) + gradient;
      weight[index] = (weight[index] ?? 0) - rate * (momentum[index] ?? 0);
    }
    if (step === this.weightBreaksAt) weight[3] = NaN;
    return Promise.resolve({ loss: step === this.lossBreaksAt ? NaN : Math.fround(loss / width), seconds: 0.25 });
  }

  evaluate(batch: SessionBatch): Promise<{ lossSum: number; weightSum: number }> {
    const mean = this.array("weight").reduce((sum, value) => sum + value, 0) / width;
    return Promise.resolve({ lossSum: mean * mean * batch.ids.length, weightSum: batch.ids.length });
  }

  decode(): Promise<Float32Array> {
    return Promise.reject(new Error("the toy does not decode"));
  }

  array(name: string): Float32Array {
    const values = this.values.get(name);
    if (values === undefined) throw new Error(`the toy has no ${name}`);
    return values;
  }

  bytes(name: string): Uint8Array {
    return new Uint8Array(this.array(name).buffer);
  }

  close(): void {
    this.closed = true;
  }
}

export function toyBatch(index: number): SessionBatch {
  const size = batchSize * length;
  const ids = Int32Array.from({ length: size }, (_, place) => (index * 31 + place * 7) % 13);
  return {
    ids,
    labels: ids,
    weights: new Float32Array(size).fill(1),
    positions: new Int32Array(size),
    segments: new Int32Array(size),
  };
}

const never = (): never => {
  throw new Error("not part of the toy");
};

const definition: ModelDefinition = {
  family: "toy",
  vocabularySize: 16,
  width,
  blocks: 0,
  keyHeads: 1,
  headWidth: 1,
  contextLength: length,
  tiedEmbeddings: true,
  parameters: [],
  linears: [],
  forward: never,
};

const optimizer: Optimizer = {
  id: "toy",
  weightDecay: 0,
  states: () => [],
  scalars: () => ({}),
  rounds: () => false,
  update: never,
  withStates: never,
};

export const toyOptions: SessionOptions = {
  definition,
  storedFormat: () => "f32",
  methods: undefined,
  batch: batchSize,
  length,
  accumulate: 2,
  dtype: "f32",
  optimizer,
  clip: undefined,
  saved: "all",
  segments: false,
  train: true,
  evaluate: true,
  decode: undefined,
  target: "interpret",
  threads: 1,
  seed: 0,
};

const weights: WeightSource = { tensor: never, readInto: never, close: () => Promise.resolve() };

/** A run of the toy in the folder `out`; its result is one file with the weight. */
export function toyRun(
  loop: Partial<LoopSettings> & { readonly out: string },
  changes: Partial<PreparedRun> = {},
): PreparedRun {
  const settings = { resume: false, steps: 10, saveEvery: 3, evalEvery: 4, keep: 2, ...loop };
  return {
    loop: settings,
    options: toyOptions,
    rate: 0.05,
    suggestedRate: 0.05,
    factor: schedule({ kind: "constant", warmup: 2, min_ratio: 0, decay: 0 }, settings.steps),
    identity: { model: "toy", batch: batchSize, lr: 0.05 },
    machine: { code: "1" },
    batches: { batch: toyBatch },
    heldOut: { count: 2, batch: (index) => toyBatch(1000 + index) },
    weights,
    saveResult: async (session, folder) => {
      const handle = await diskFiles.open(`${folder}/weight.bin`, "w");
      await handle.writeFile(session.bytes("weight"));
      await handle.close();
    },
    resultName: "adapter",
    notices: [],
    close: () => Promise.resolve(),
    ...changes,
  };
}

export function toyEnvironment(session = new ToySession(), files = diskFiles): Environment {
  return { openSession: () => Promise.resolve(session), files, now: () => 1_700_000_000 };
}
