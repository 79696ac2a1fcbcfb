/** Trains and compares the graphs of goldens in the interpreter. */
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Tensor } from "../ir/tensor.js";
import { tensor } from "../ir/tensor.js";
import { leaf } from "../ops/leaves.js";
import { adamw, adamwConfig } from "../optim/adamw.js";
import type { Precision } from "../targets/interpret/evaluate.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import type { ModelDefinition } from "../models/types.js";
import type { GoldenGraph } from "./goldens.js";
import { goldenTraining } from "./goldens.js";

export interface Training {
  readonly losses: number[];
  readonly values: ReadonlyMap<string, Tensor>;
}

/** Five AdamW steps in the interpreter: forward, backward and update as one graph. */
export function trainGolden(step: GoldenGraph, precision: Precision): Training {
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
    const gradient = must(step.gradients.get(name), name);
    const update = optimizer.update({ parameter, gradient, states, rate, scalars, decay: false });
    targets.push(parameter, ...Object.values(states));
    results.push(update.value, ...Object.keys(states).map((state) => must(update.states[state], state)));
  }
  const losses: number[] = [];
  for (let count = 1; count <= goldenTraining.steps; count++) {
    bindings.set(rate, tensor([], [goldenTraining.rate], precision === "f64" ? "f64" : "f32"));
    for (const [name, value] of Object.entries(optimizer.scalars(count))) {
      bindings.set(must(scalars[name], name), tensor([], [value], precision === "f64" ? "f64" : "f32"));
    }
    const [lossValue, ...made] = evaluate([loss, ...results], bindings, precision);
    losses.push(first(lossValue));
    targets.forEach((target, index) => bindings.set(target, must(made[index], "value")));
  }
  losses.push(first(evaluate([loss], bindings, precision)[0]));
  return { losses, values: new Map([...parameters].map(([name, node]) => [name, must(bindings.get(node), name)])) };
}

function first(value: Tensor | undefined): number {
  return must(must(value, "value").data[0], "number");
}

/** Errors above the tolerance, by name. */
export function excess(
  { definition }: { readonly definition: ModelDefinition },
  tolerance: number,
  error: (name: string) => number,
): Record<string, number> {
  const names = definition.parameters.map(({ name }) => name);
  return Object.fromEntries(
    names.map((name) => [name, error(name)] as const).filter(([, size]) => !(size <= tolerance)),
  );
}
