/** What methods add to the updates of a step: terms of the loss, and what follows from all gradients. */
import { gradients as differentiate } from "../autodiff/gradients.js";
import { must } from "../errors.js";
import type { Graph, Node } from "../ir/node.js";
import { reachable } from "../ir/node.js";
import type { Assignment } from "../ir/program.js";
import type { Shape } from "../ir/shape.js";
import type { ComposedMethods } from "../methods/compose.js";
import { add } from "../ops/arithmetic.js";
import { leaf } from "../ops/leaves.js";
import { methodScalar } from "./inputs.js";

export interface Regularisation {
  /** The term itself, f32 []. */
  readonly value: Node;
  /** Of each trained tensor: adds the term's gradient to another; undefined where the term does not depend on it. */
  readonly gradients: readonly (((gradient: Node) => Node) | undefined)[];
}

/**
 * The methods' terms of the loss. They depend on the weights alone, so they are taken once a step, where the sums over
 * micro-batches are complete, whatever makes the other gradients.
 */
export function regularisation(
  graph: Graph,
  methods: ComposedMethods | undefined,
  trainables: readonly { readonly name: string }[],
  values: readonly Node[],
): Regularisation | undefined {
  if (methods?.regularise === undefined) return undefined;
  const named = trainables.map(({ name }, index) => [name, must(values[index], name)] as const);
  const value = methods.regularise({ graph, values: new Map(named) });
  const below = new Set(reachable([value]));
  const made = differentiate(value, values);
  return {
    value,
    gradients: values.map((node, index) =>
      below.has(node) ? (gradient) => add(gradient, must(made[index], "gradient")) : undefined,
    ),
  };
}

/** A tensor that was updated: its own assignment first, then those of its states. */
export interface Updated {
  readonly name: string;
  readonly before: Node;
  readonly gradient: Node;
  readonly assignments: readonly Assignment[];
}

/** All assignments of the updates, with what the methods make of them and states of the methods' own. */
export function collected(
  graph: Graph,
  methods: ComposedMethods | undefined,
  variant: string,
  updated: readonly Updated[],
  idle: ReadonlyMap<string, Node>,
): Assignment[] {
  if (methods?.collect === undefined) return updated.flatMap(({ assignments }) => assignments);
  const own = (assignments: readonly Assignment[]): Assignment => must(assignments[0], "assignment");
  const declared = new Map<string, Node>();
  const { values, states } = methods.collect({
    graph,
    variant,
    tensors: new Map(
      updated.map(({ name, before, gradient, assignments }) => {
        return [name, { before, gradient, after: own(assignments).value }];
      }),
    ),
    idle,
    state: (name: string, shape: Shape) => {
      const node = leaf(graph, { name, role: "state", shape, dtype: "f32" });
      declared.set(name, node);
      return node;
    },
    scalar: (name) => leaf(graph, { name: methodScalar(name), role: "input", shape: [], dtype: "f32" }),
  });
  const kept = updated.flatMap(({ name, assignments: [first, ...others] }) => {
    const { target, value } = must(first, "assignment");
    return [{ target, value: values.get(name) ?? value }, ...others];
  });
  const changed = [...idle].flatMap(([name, target]) => {
    const value = values.get(name);
    return value === undefined ? [] : [{ target, value }];
  });
  const collectedStates = [...states].map(([name, value]) => ({ target: must(declared.get(name), name), value }));
  return [...kept, ...changed, ...collectedStates];
}
