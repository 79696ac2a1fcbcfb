import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { openModel } from "../io/model.js";
import { composeMethods } from "../methods/compose.js";
import { makeOptimizer } from "../optim/registry.js";
import type { EncoderFixture, EncoderGolden } from "../testing/encoder-goldens.js";
import {
  encoderBatch,
  encoderFixtures,
  encoderFolder,
  encoderGraph,
  loadEncoderGolden,
} from "../testing/encoder-goldens.js";
import { goldenTraining, gradientError, relativeError, trainedError } from "../testing/goldens.js";
import { runCompiled } from "../testing/run-compiled.js";
import { openSession } from "./open.js";
import type { RunningSession } from "./session.js";
import type { SessionOptions } from "./types.js";

async function openGolden(
  fixture: EncoderFixture,
  { definition, batch, length }: EncoderGolden,
  changes: Partial<SessionOptions> = {},
): Promise<RunningSession> {
  const { beta1, beta2, epsilon } = goldenTraining;
  const session = await openSession({
    definition,
    storedFormat: () => "f32",
    methods: composeMethods([{ id: "full", settings: {} }], definition),
    batch,
    length,
    accumulate: 1,
    dtype: "f32",
    optimizer: makeOptimizer({ beta1, beta2, epsilon }),
    clip: undefined,
    saved: "cheap",
    segments: true,
    train: true,
    evaluate: true,
    decode: undefined,
    target: "c",
    threads: 2,
    seed: 0,
    ...changes,
  });
  const { weights } = await openModel(encoderFolder(fixture));
  try {
    await session.load(weights);
  } finally {
    await weights.close();
  }
  return session;
}

describe.each(encoderFixtures)("%s compiled to C agrees with transformers", (fixture) => {
  test("in logits, loss and every gradient", async () => {
    const golden = await loadEncoderGolden(fixture);
    const { graph, logits, loss, gradients, bindings } = encoderGraph(golden);
    const outputs: Record<string, Node> = { logits, loss };
    for (const [name, node] of gradients) outputs[`gradient.${name}`] = node;
    const phases = [{ assignments: [], outputs }];
    const program = { name: "golden", graph, phases, gradients: [...gradients.values()], loss };
    const values = await runCompiled(program, bindings);
    expect(relativeError(must(values.get("logits"), "logits").data, golden.logits.data)).toBeLessThan(1e-5);
    expect(relativeError(must(values.get("loss"), "loss").data, golden.losses.slice(0, 1))).toBeLessThan(1e-5);
    for (const name of gradients.keys()) {
      expect(gradientError(golden, name, must(values.get(`gradient.${name}`), name).data), name).toBeLessThan(2e-5);
    }
  });

  test("in five AdamW steps, and in what an evaluation tells", async () => {
    const golden = await loadEncoderGolden(fixture);
    const session = await openGolden(fixture, golden);
    try {
      const batch = encoderBatch(golden);
      const before = await session.evaluate(batch);
      expect(relativeError(must(before.logits, "logits"), golden.logits.data)).toBeLessThan(1e-5);
      const losses: number[] = [];
      for (let step = 0; step < goldenTraining.steps; step++) {
        losses.push((await session.step([batch], { rate: goldenTraining.rate, step })).loss);
      }
      const { lossSum, weightSum } = await session.evaluate(batch);
      losses.push(lossSum / weightSum);
      expect(relativeError(losses, golden.losses)).toBeLessThan(1e-5);
      for (const { name } of golden.definition.parameters) {
        const values = new Float32Array(session.bytes(name).slice().buffer);
        expect(trainedError(golden, name, values), name).toBeLessThan(1e-5);
      }
    } finally {
      session.close();
    }
  });
});

describe("an encoder's session", () => {
  test("gives the same in parts of its rows, and counts rows without weight for nothing", async () => {
    const golden = await loadEncoderGolden("bert");
    const batch = encoderBatch(golden);
    const whole = await openGolden("bert", golden);
    const split = await openGolden("bert", golden, { split: 2 });
    try {
      const [one, other] = [await whole.evaluate(batch), await split.evaluate(batch)];
      expect(relativeError(must(other.logits, "logits"), must(one.logits, "logits"))).toBeLessThan(1e-6);
      const rate = goldenTraining.rate;
      const losses = [whole, split].map(async (session) => (await session.step([batch], { rate, step: 0 })).loss);
      const [first, second] = await Promise.all(losses);
      expect(must(second, "loss")).toBeCloseTo(must(first, "loss"), 5);
      const partly = { ...batch, weights: Float32Array.of(1, 0, 1, 0) };
      const labels = Int32Array.from(batch.labels, (label, row) => (row % 2 === 1 ? 0 : label));
      const { lossSum, weightSum } = await whole.evaluate(partly);
      expect(weightSum).toBe(2);
      expect((await whole.evaluate({ ...partly, labels })).lossSum).toBeCloseTo(lossSum, 6);
    } finally {
      whole.close();
      split.close();
    }
  });

  test("what stands at padding changes nothing", async () => {
    const golden = await loadEncoderGolden("roberta");
    const batch = encoderBatch(golden);
    const session = await openGolden("roberta", golden);
    try {
      const ids = batch.ids.map((id, place) => (must(batch.segments[place], "segment") < 0 ? 5 : id));
      const [one, other] = [await session.evaluate(batch), await session.evaluate({ ...batch, ids })];
      expect([...must(other.logits, "logits")]).toEqual([...must(one.logits, "logits")]);
    } finally {
      session.close();
    }
  });
});
