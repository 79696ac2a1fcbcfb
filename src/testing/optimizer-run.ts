import { must } from "../errors.js";
import type { DType } from "../ir/dtype.js";
import { Graph } from "../ir/node.js";
import type { Node } from "../ir/node.js";
import type { Tensor } from "../ir/tensor.js";
import { tensor } from "../ir/tensor.js";
import { leaf } from "../ops/leaves.js";
import type { Optimizer, UpdateResult } from "../optim/types.js";
import { evaluate } from "../targets/interpret/evaluate.js";

export interface OptimizerRun {
  /** The parameter after each step. */
  readonly values: readonly (readonly number[])[];
  /** The states after the last. */
  readonly states: Readonly<Record<string, readonly number[]>>;
}

export interface RunOptions {
  readonly start: readonly number[];
  readonly gradients: readonly (readonly number[])[];
  readonly rate: number;
  readonly dtype?: DType;
  readonly decay?: boolean;
  readonly seed?: number;
  /** Of the parameter; a vector if not given. */
  readonly shape?: readonly number[];
  /** The rule of step number `index` (from 0), where it is not always the same; it has the same states. */
  readonly ruleAt?: (index: number) => Optimizer;
}

/** Steps of an optimizer on one tensor, run by the interpreter with the types of each leaf kept. */
export function runOptimizer(optimizer: Optimizer, options: RunOptions): OptimizerRun {
  const { start, gradients, rate, dtype = "f32", decay = true, seed = 1 } = options;
  const { shape = [start.length], ruleAt = () => optimizer } = options;
  const graph = new Graph();
  const scalar = (name: string, type: DType = "f32"): Node =>
    leaf(graph, { name, role: "input", shape: [], dtype: type });
  const named = {
    rate: scalar("rate"),
    low: scalar("low", "u32"),
    high: scalar("high", "u32"),
    step: scalar("step", "u32"),
  };
  const scalars = Object.fromEntries(Object.keys(optimizer.scalars(1)).map((name) => [name, scalar(name)]));
  const parameter = leaf(graph, { name: "parameter", role: "weight", shape, dtype });
  const gradient = leaf(graph, { name: "gradient", role: "input", shape, dtype: "f32" });
  const specs = optimizer.states({ shape, dtype });
  const states = Object.fromEntries(
    specs.map((spec) => [
      spec.name,
      leaf(graph, { name: spec.name, role: "state", shape: spec.shape, dtype: spec.dtype }),
    ]),
  );
  const random = { key: { low: named.low, high: named.high }, step: named.step, stream: 8 };
  const updateBy = (rule: Optimizer): UpdateResult =>
    rule.update({
      parameter,
      gradient,
      states,
      rate: named.rate,
      scalars,
      decay,
      ...(rule.rounds({ shape, dtype }) ? { random } : {}),
    });
  const held = new Map<Node, Tensor>([[parameter, tensor(shape, start, dtype)]]);
  for (const spec of specs) {
    const values = spec.initial === "parameter" ? must(held.get(parameter), "parameter").data : [];
    held.set(must(states[spec.name], spec.name), tensor(spec.shape, values, spec.dtype));
  }
  const values = gradients.map((given, index) => {
    const bound = new Map(held).set(gradient, tensor(shape, given));
    bound.set(named.rate, tensor([], [rate])).set(named.step, tensor([], [index], "u32"));
    bound.set(named.low, tensor([], [seed], "u32")).set(named.high, tensor([], [0], "u32"));
    for (const [name, value] of Object.entries(optimizer.scalars(index + 1))) {
      bound.set(must(scalars[name], name), tensor([], [value]));
    }
    const updated = updateBy(ruleAt(index));
    const targets = [parameter, ...Object.values(states)];
    const made = evaluate(
      [updated.value, ...Object.keys(states).map((name) => must(updated.states[name], name))],
      bound,
    );
    targets.forEach((target, place) => held.set(target, must(made[place], "new value")));
    return [...must(held.get(parameter), "parameter").data];
  });
  const last = Object.entries(states).map(([name, node]) => [name, [...must(held.get(node), name).data]]);
  return { values, states: Object.fromEntries(last) as OptimizerRun["states"] };
}
