import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { nodesOf } from "../ir/program.js";
import type { Tensor } from "../ir/tensor.js";
import { openModel } from "../io/model.js";
import { composeMethods } from "../methods/compose.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { makeOptimizer } from "../optim/registry.js";
import { compileProgram } from "../passes/pipeline.js";
import { layOutLeaves, planProgram } from "../plan/plan.js";
import { cFacts } from "../targets/c/facts.js";
import { tensorFromBytes, tensorToBytes } from "../targets/interpret/memory.js";
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
import { createNativeBackend } from "./native-backend.js";
import { openSession } from "./open.js";

const threads = 2;

/** Values of a program's outputs, compiled to C and run once. */
async function runCompiled(source: Program, bindings: ReadonlyMap<Node, Tensor>): Promise<Map<string, Tensor>> {
  const { program, schedule } = compileProgram(source, { saved: "cheap" });
  const outputs = must(program.phases[0], "phase").outputs;
  const facts = cFacts(threads);
  const layout = layOutLeaves(
    nodesOf(program).filter((node) => node.op === leafOp),
    facts.alignment,
  );
  const plan = planProgram(program.name, schedule, outputs, [], layout, facts);
  const backend = await createNativeBackend({ threads, poison: true, timed: false });
  try {
    backend.allocate(layout.bytes + plan.extent);
    await backend.prepare([plan]);
    for (const [leaf, value] of bindings) {
      const { offset, bytes } = must(layout.buffers.get(leafAttributes(leaf).name), "buffer");
      tensorToBytes(value, backend.bytes(offset, bytes));
    }
    await backend.run(0);
    return new Map(
      [...plan.outputs].map(([name, { buffer, node }]) => [
        name,
        tensorFromBytes(node, backend.bytes(buffer.offset, buffer.bytes)),
      ]),
    );
  } finally {
    backend.close();
  }
}

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
