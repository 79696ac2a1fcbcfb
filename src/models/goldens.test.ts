import { describe, expect, it } from "vitest";
import type { Node } from "../ir/node.js";
import type { Tensor } from "../ir/tensor.js";
import { tensor } from "../ir/tensor.js";
import { leaf } from "../ops/leaves.js";
import { adamw, adamwConfig } from "../optim/adamw.js";
import type { Precision } from "../targets/interpret/evaluate.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import type { Golden, GoldenGraph } from "../testing/goldens.js";
import {
  goldenFamilies,
  goldenGraph,
  goldenTraining,
  gradientError,
  loadGolden,
  relativeError,
  trainedError,
} from "../testing/goldens.js";

/** f32 to 1e-5; in f64 only the fixtures' own rounding to f32 remains. */
const tolerances: readonly (readonly [Precision, number])[] = [
  ["exact", 1e-5],
  ["f64", 1e-6],
];

interface Training {
  readonly losses: number[];
  readonly values: ReadonlyMap<string, Tensor>;
}

/** Five AdamW steps in the interpreter: forward, backward and update as one graph. */
function train(step: GoldenGraph, precision: Precision): Training {
  const { graph, loss, parameters, bindings } = step;
  const { beta1, beta2, epsilon } = goldenTraining;
  const optimizer = adamw(adamwConfig.parse({ id: "adamw", beta1, beta2, epsilon, weight_decay: 0 }));
  const scalar = (name: string): Node => leaf(graph, { name, role: "input", shape: [], dtype: "f32" });
  const rate = scalar("rate");
  const scalars = Object.fromEntries(Object.keys(optimizer.scalars(1)).map((name) => [name, scalar(name)]));
  const targets: Node[] = [];
  const results: Node[] = [];
  for (const [name, parameter] of parameters) {
    const states = Object.fromEntries(
      optimizer.states(parameter).map((state) => {
        const node = leaf(graph, { ...state, name: `${name}.${state.name}`, role: "state" });
        bindings.set(node, tensor(state.shape, []));
        return [state.name, node];
      }),
    );
    const gradient = step.gradients.get(name)!;
    const update = optimizer.update({ parameter, gradient, states, rate, scalars, decay: false });
    targets.push(parameter, ...Object.values(states));
    results.push(update.value, ...Object.keys(states).map((state) => update.states[state]!));
  }
  const losses: number[] = [];
  for (let count = 1; count <= goldenTraining.steps; count++) {
    bindings.set(rate, tensor([], [goldenTraining.rate], precision === "f64" ? "f64" : "f32"));
    for (const [name, value] of Object.entries(optimizer.scalars(count))) {
      bindings.set(scalars[name]!, tensor([], [value], precision === "f64" ? "f64" : "f32"));
    }
    const [lossValue, ...made] = evaluate([loss, ...results], bindings, precision);
    losses.push(lossValue!.data[0]!);
    targets.forEach((target, index) => bindings.set(target, made[index]!));
  }
  losses.push(evaluate([loss], bindings, precision)[0]!.data[0]!);
  return { losses, values: new Map([...parameters].map(([name, node]) => [name, bindings.get(node)!])) };
}

/** Errors above the tolerance, by name. */
function excess(golden: Golden, tolerance: number, error: (name: string) => number): Record<string, number> {
  const names = golden.definition.parameters.map(({ name }) => name);
  return Object.fromEntries(
    names.map((name) => [name, error(name)] as const).filter(([, size]) => !(size <= tolerance)),
  );
}

describe.each(goldenFamilies)("%s agrees with transformers", (family) => {
  it.each(tolerances)("in logits, loss and every gradient (%s)", async (precision, tolerance) => {
    const golden = await loadGolden(family);
    const step = goldenGraph(golden);
    const names = [...step.gradients.keys()];
    const outputs = [step.logits, step.loss, ...step.gradients.values()];
    const [logits, loss, ...made] = evaluate(outputs, step.bindings, precision);
    expect(relativeError(logits!.data, golden.logits.data)).toBeLessThan(tolerance);
    expect(relativeError(loss!.data, golden.losses.slice(0, 1))).toBeLessThan(tolerance);
    const values = new Map(names.map((name, index) => [name, made[index]!.data]));
    expect(excess(golden, tolerance, (name) => gradientError(golden, name, values.get(name)!))).toEqual({});
  });

  it.each(tolerances)("over five AdamW steps (%s)", async (precision, tolerance) => {
    const golden = await loadGolden(family);
    const { losses, values } = train(goldenGraph(golden), precision);
    expect(relativeError(losses, golden.losses)).toBeLessThan(tolerance);
    const error = (name: string): number => {
      const actual = values.get(name)!.data;
      return precision === "f64"
        ? relativeError(actual, golden.trained.get(name)!.data)
        : trainedError(golden, name, actual);
    };
    expect(excess(golden, tolerance, error)).toEqual({});
  });
});

describe("bf16 activations", () => {
  it.each(goldenFamilies)("keep %s near its f32 loss", async (family) => {
    const golden = await loadGolden(family);
    const step = goldenGraph(golden, "bf16");
    const [loss, ...made] = evaluate([step.loss, ...step.gradients.values()], step.bindings);
    expect(Math.abs(loss!.data[0]! / golden.losses[0]! - 1)).toBeLessThan(0.02);
    const names = [...step.gradients.keys()];
    const values = new Map(names.map((name, index) => [name, made[index]!.data]));
    expect(excess(golden, 0.15, (name) => gradientError(golden, name, values.get(name)!))).toEqual({});
  });
});
