import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resolveConfig } from "../config/config.js";
import type { RunConfig } from "../config/schema.js";
import { must } from "../errors.js";
import { openSession } from "../session/open.js";
import { splitBatch } from "../session/split.js";
import { randomWeights, trainedModel, trainingBatch, trainingOptions } from "../testing/method-training.js";
import { relativeDifference } from "../testing/tiny.js";
import { makeOptimizer } from "../optim/registry.js";
import { calibrate, wholeModel } from "./calibrate.js";
import { evaluate } from "./evaluate.js";
import { readTensor } from "./export/tensor-source.js";
import { writeTinyModel, writeTokens } from "./testing/tiny-folder.js";
import { train } from "./train.js";
import type { Notice } from "./types.js";

const options = trainingOptions({ selection: [{ id: "lst", settings: { r: 2, init: "fisher" } }] });
const run = { options, batches: { batch: trainingBatch }, weights: randomWeights(trainedModel) };
const names = ["model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight", "model.norm.weight"];

/** The sums of some tensors over so many examples. */
async function sumsOf(examples: number): Promise<Float32Array[]> {
  const found: Float32Array[] = [];
  const reduce = async (sums: (name: string) => Promise<Float32Array>) => {
    for (const name of names) found.push(await sums(name));
    return new Map();
  };
  await calibrate(run, { examples, reduce }, { openSession });
  return found;
}

/** The gradients of single examples, from steps of plain descent at rate 1. */
async function gradientsOf(count: number): Promise<Float32Array[][]> {
  const session = await openSession({ ...wholeModel(options), optimizer: makeOptimizer({ id: "sgd" }) });
  try {
    const made: Float32Array[][] = [];
    for (let row = 0; row < count; row++) {
      await session.load(run.weights);
      const before = names.map((name) => readTensor(session, name));
      await session.step([must(splitBatch(trainingBatch(row >> 1), 2)[row % 2], "row")], { rate: 1, step: 0 });
      const after = names.map((name) => readTensor(session, name));
      made.push(before.map((values, tensor) => values.map((value, at) => value - must(after[tensor]?.[at], "value"))));
    }
    return made;
  } finally {
    session.close();
  }
}

describe("sums of squared gradients", () => {
  it("are those of single examples, whatever the batch of the run", async () => {
    const [sums, gradients] = [await sumsOf(3), await gradientsOf(3)];
    sums.forEach((sum, tensor) => {
      const expected = sum.map((_, at) => gradients.reduce((total, one) => total + one[tensor]![at]! ** 2, 0));
      expect(relativeDifference(sum, expected), names[tensor]).toBeLessThan(1e-3);
      expect(Math.max(...sum)).toBeGreaterThan(0);
    });
  });

  it("are refused over a memory budget, and without anything to predict", async () => {
    const budget = { bytes: 1000, overheadBytes: 0, allowLossy: false };
    const calibration = must(options.methods?.calibrate, "calibration");
    await expect(
      calibrate({ ...run, options: { ...options, budget } }, calibration, { openSession }),
    ).rejects.toMatchObject({ code: "calibration-budget" });
    const silent = { batch: (index: number) => ({ ...trainingBatch(index), weights: new Float32Array(38) }) };
    await expect(
      calibrate({ ...run, batches: silent }, { ...calibration, examples: 2 }, { openSession }),
    ).rejects.toMatchObject({ code: "calibration-empty" });
  });
});

describe("a run that starts from them", () => {
  let folder = "";
  const place = (name: string): string => join(folder, name);
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "thimble-calibrate-"));
    await writeTinyModel(place("model"));
    await writeTokens(place("ids.u16"), 2000, 420);
  });
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  const configOf = (changes: Readonly<Record<string, unknown>>): RunConfig => {
    const base = { model: place("model"), data: `tokens:${place("ids.u16")}`, batch: 2, seq: 16, steps: 4, lr: 1e-2 };
    const set = ["lst.r=2", "lst.init=fisher", "lst.fisher_samples=3"];
    return resolveConfig({ flags: { ...base, method: "lst", set, threads: 2, saveEvery: 2, ...changes } });
  };

  it("says so, and a resumed one does not calibrate again", async () => {
    const notices: string[] = [];
    const onNotice = ({ code }: Notice): void => {
      notices.push(code);
    };
    await train(configOf({ out: place("whole") }), { onNotice });
    expect(notices.filter((code) => code === "calibrating")).toHaveLength(1);
    const controller = new AbortController();
    await train(
      configOf({ out: place("half") }),
      {
        onStep: ({ step }) => {
          if (step === 2) controller.abort();
        },
      },
      controller.signal,
    );
    notices.length = 0;
    await train(configOf({ out: place("half"), resume: true }), { onNotice });
    expect(notices).not.toContain("calibrating");
    const adapter = (out: string): Promise<Buffer> =>
      readFile(place(join(out, "adapter", "adapter_model.safetensors")));
    expect(await adapter("half")).toEqual(await adapter("whole"));
    const measured = await evaluate(configOf({ adapter: place("whole"), steps: 2 }));
    expect(Number.isFinite(measured.loss)).toBe(true);
  });
});
