/**
 * The C of a fixed set of graphs, kept as files, so that a change shows what it did to the code: one that is meant to
 * change nothing leaves these files alone. `npx vitest run src/targets/c/golden.test.ts -u` writes them anew. The
 * text that kernels share stands in `golden/shared.c` alone.
 */
import { describe, expect, test } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import { must } from "../../errors.js";
import type { DType } from "../../ir/dtype.js";
import type { Node } from "../../ir/node.js";
import { Graph } from "../../ir/node.js";
import type { Program } from "../../ir/program.js";
import { nodesOf } from "../../ir/program.js";
import type { Shape } from "../../ir/shape.js";
import { activate, rmsNorm } from "../../models/layers.js";
import { add, cast, multiply } from "../../ops/arithmetic.js";
import { attention } from "../../ops/attention.js";
import { linearCrossEntropy } from "../../ops/cross-entropy.js";
import { dot } from "../../ops/dot.js";
import { reduceSum } from "../../ops/layout.js";
import { leaf, leafOp } from "../../ops/leaves.js";
import { makeOptimizer } from "../../optim/registry.js";
import { compileProgram } from "../../passes/pipeline.js";
import { layOutLeaves, planProgram } from "../../plan/plan.js";
import { withoutRepeats } from "../../runtime/units.js";
import { stepScalars, streamLeaf } from "../../step/inputs.js";
import { driver, driverTypes } from "./contraction-driver.js";
import { microKernels } from "./contraction-micro.js";
import { once } from "./contraction-name.js";
import { packing } from "./contraction-shared.js";
import { cFacts } from "./facts.js";
import { loopsSupport } from "./loops-support.js";
import { lowerProgram } from "./lower.js";
import { prelude } from "./prelude.js";

type Outputs = Readonly<Record<string, Node>>;

function weight(graph: Graph, name: string, shape: Shape, dtype: DType = "f32"): Node {
  return leaf(graph, { name, role: "weight", shape, dtype });
}

/** A value and its gradients by what it was made of, given the gradient that comes from above. */
function withGradients(value: Node, by: Readonly<Record<string, Node>>): Outputs {
  const above = leaf(value.graph, { name: "above", role: "input", shape: value.shape, dtype: value.dtype });
  const weighted = multiply(cast(value, "f32"), cast(above, "f32"));
  const loss = reduceSum(
    weighted,
    value.shape.map((_, axis) => axis),
  );
  const names = Object.keys(by);
  const made = gradients(loss, Object.values(by));
  return { value, ...Object.fromEntries(names.map((name, index) => [`d.${name}`, must(made[index], name)])) };
}

function rmsNormStep(graph: Graph): Outputs {
  const x = weight(graph, "x", [64, 96]);
  const gain = weight(graph, "gain", [96]);
  return withGradients(rmsNorm(x, gain, 1e-5), { x, gain });
}

function swiGlu(graph: Graph): Outputs {
  const gate = weight(graph, "gate", [64, 96], "bf16");
  const up = weight(graph, "up", [64, 96], "bf16");
  const hidden = multiply(activate("silu", gate), cast(up, "f32"));
  return withGradients(cast(hidden, "bf16"), { gate, up });
}

/** x W^T + 2 (x A^T) B^T, as LoRA computes a linear layer. */
function loraLinear(graph: Graph, dtype: "f32" | "bf16"): Outputs {
  const x = weight(graph, "x", [64, 96], dtype);
  const base = weight(graph, "base", [80, 96], dtype);
  const [a, b] = [weight(graph, "a", [16, 96]), weight(graph, "b", [80, 16])];
  const product = (left: Node, right: Node): Node => dot(left, cast(right, dtype), { transposeB: true });
  const inner = cast(multiply(product(x, a), 2), dtype);
  return { y: cast(add(product(x, base), product(inner, b)), dtype) };
}

function attentionForward(graph: Graph): Outputs {
  const [q, k, v] = [
    weight(graph, "q", [2, 24, 4, 16]),
    weight(graph, "k", [2, 24, 2, 16]),
    weight(graph, "v", [2, 24, 2, 16]),
  ];
  return { y: attention(q, k, v, { scale: 0.25 }) };
}

function crossEntropy(graph: Graph): Outputs {
  const x = weight(graph, "x", [48, 96], "bf16");
  const head = weight(graph, "head", [320, 96], "bf16");
  const labels = leaf(graph, { name: "labels", role: "input", shape: [48], dtype: "i32" });
  const weights = leaf(graph, { name: "weights", role: "input", shape: [48], dtype: "f32" });
  const loss = reduceSum(linearCrossEntropy(x, head, labels, weights), [0]);
  return { loss, "d.x": must(gradients(loss, [x])[0], "gradient") };
}

/** AdamW on a bf16 matrix with bf16 states, rounded stochastically. */
function adamW(graph: Graph): Program {
  const optimizer = makeOptimizer({ states: "bf16" });
  const type = { shape: [64, 96], dtype: "bf16" } as const;
  const { rate, correction1, correction2, seedLow: low, seedHigh: high, step } = stepScalars(graph);
  const parameter = weight(graph, "parameter", type.shape, type.dtype);
  const specs = optimizer.states(type);
  const states = Object.fromEntries(
    specs.map(({ name, shape, dtype }) => [name, leaf(graph, { name, role: "state", shape, dtype })]),
  );
  const { value, states: after } = optimizer.update({
    parameter,
    gradient: leaf(graph, { name: "gradient", role: "input", shape: type.shape, dtype: "f32" }),
    states,
    rate,
    scalars: { correction1, correction2 },
    decay: true,
    random: { key: { low, high }, step, stream: streamLeaf(graph, 0) },
  });
  const kept = specs.map(({ name }) => ({ target: must(states[name], name), value: must(after[name], name) }));
  return {
    name: "adamw",
    graph,
    phases: [{ assignments: [{ target: parameter, value }, ...kept], outputs: {} }],
    gradients: [],
  };
}

const programOf = (build: (graph: Graph) => Outputs) => (): Program => {
  const graph = new Graph();
  return { name: "golden", graph, phases: [{ assignments: [], outputs: build(graph) }], gradients: [] };
};

const graphs: readonly (readonly [string, () => Program])[] = [
  ["rms-norm", programOf(rmsNormStep)],
  ["swiglu-bf16", programOf(swiGlu)],
  ["lora-linear-f32", programOf((graph) => loraLinear(graph, "f32"))],
  ["lora-linear-bf16", programOf((graph) => loraLinear(graph, "bf16"))],
  ["adamw-bf16", () => adamW(new Graph())],
  ["attention-forward", programOf(attentionForward)],
  ["cross-entropy-bf16", programOf(crossEntropy)],
];

const threads = 2;
/** What kernels state again and again: written once, in a file of its own. */
const shared = [
  prelude,
  loopsSupport,
  microKernels,
  packing,
  once("contraction_types", driverTypes),
  once("contraction_driver", driver),
].join("\n");

/** The kernels of a program, each with its arguments; a guarded block stands where it is first met. */
function listing(source: Program): string {
  const { program, schedule } = compileProgram(source, { saved: "cheap", target: cFacts(threads) });
  const leaves = nodesOf(program).filter((node) => node.op === leafOp);
  const layout = layOutLeaves(leaves, 64);
  const outputs = must(program.phases[0], "phase").outputs;
  const plan = planProgram(program.name, schedule, outputs, program.gradients, layout, cFacts(threads));
  const { kernels, steps } = lowerProgram(plan, threads);
  const met = new Set<string>();
  withoutRepeats(shared, met);
  const bodies = kernels.map(({ source }) => withoutRepeats(source, met).trim());
  const calls = steps.flatMap(({ entries }) =>
    entries.map(({ kernel, words }) => {
      const shown = words.map((word) => (typeof word === "number" ? String(word) : `@${word.buffer.offset}`));
      return `// ${kernel}(${shown.join(", ")})`;
    }),
  );
  return `${[...bodies, calls.join("\n")].join("\n\n")}\n`;
}

describe("the generated C of", () => {
  test.each(graphs)("%s is what its file holds", async (name, build) => {
    await expect(listing(build())).toMatchFileSnapshot(`golden/${name}.c`);
  });

  test("the text that kernels share is what its file holds", async () => {
    await expect(`${shared}\n`).toMatchFileSnapshot("golden/shared.c");
  });
});
