import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { openModel } from "../io/model.js";
import { composeMethods } from "../methods/compose.js";
import { makeOptimizer } from "../optim/registry.js";
import type { Golden } from "../testing/goldens.js";
import {
  goldenFamilies,
  goldenFolder,
  goldenGraph,
  goldenTraining,
  gradientError,
  loadGolden,
  relativeError,
  trainedError,
} from "../testing/goldens.js";
import { runCompiled } from "../testing/run-compiled.js";
import { openSession } from "./open.js";

const threads = 2;

async function trainCompiled(
  golden: Golden,
  folder: string,
): Promise<{ losses: number[]; values: Map<string, Float32Array> }> {
  const { definition, batch, length } = golden;
  const { steps, rate, beta1, beta2, epsilon } = goldenTraining;
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
    segments: false,
    train: true,
    evaluate: true,
    decode: undefined,
    target: "c",
    threads,
    seed: 0,
  });
  try {
    const { weights } = await openModel(folder);
    await session.load(weights);
    const data = {
      ids: Int32Array.from(golden.ids.data),
      labels: Int32Array.from(golden.labels.data),
      weights: Float32Array.from(golden.weights.data),
      positions: Int32Array.from(golden.positions.data),
      segments: new Int32Array(0),
    };
    const losses: number[] = [];
    for (let step = 0; step < steps; step++) losses.push((await session.step([data], { rate, step })).loss);
    const { lossSum, weightSum } = await session.evaluate(data);
    losses.push(lossSum / weightSum);
    const values = new Map(
      definition.parameters.map(({ name }) => {
        const bytes = session.bytes(name).slice();
        return [name, new Float32Array(bytes.buffer)] as const;
      }),
    );
    return { losses, values };
  } finally {
    session.close();
  }
}

describe.each(goldenFamilies)("%s compiled to C agrees with transformers", (family) => {
  test("in logits, loss and every gradient", async () => {
    const golden = await loadGolden(family);
    const { graph, logits, loss, gradients, bindings } = goldenGraph(golden);
    const outputs: Record<string, Node> = { logits, loss };
    for (const [name, node] of gradients) outputs[`gradient.${name}`] = node;
    const program: Program = {
      name: "golden",
      graph,
      phases: [{ assignments: [], outputs }],
      gradients: [...gradients.values()],
      loss,
    };
    const values = await runCompiled(program, bindings);
    expect(relativeError(must(values.get("logits"), "logits").data, golden.logits.data)).toBeLessThan(1e-5);
    expect(relativeError(must(values.get("loss"), "loss").data, golden.losses.slice(0, 1))).toBeLessThan(1e-5);
    for (const name of gradients.keys()) {
      expect(gradientError(golden, name, must(values.get(`gradient.${name}`), name).data), name).toBeLessThan(1e-5);
    }
  });

  test("in five AdamW steps", async () => {
    const golden = await loadGolden(family);
    const { losses, values } = await trainCompiled(golden, goldenFolder(family));
    expect(relativeError(losses, golden.losses)).toBeLessThan(1e-5);
    for (const [name, data] of values) expect(trainedError(golden, name, data), name).toBeLessThan(1e-5);
  });
});
