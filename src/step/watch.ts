import { must } from "../errors.js";
import type { Graph, Node } from "../ir/node.js";
import type { Assignment } from "../ir/program.js";
import type { ComposedMethods } from "../methods/compose.js";
import type { Estimate } from "../methods/estimator.js";
import { movingLeaf } from "../methods/moving.js";
import type { UpdateContext } from "../methods/types.js";
import { leaf, leafAttributes } from "../ops/leaves.js";
import { methodScalar } from "./inputs.js";

/** What a micro-batch leaves of what methods watch, and how the update of the step reads it. */
export interface WatchedStep {
  /** Added up over micro-batches along with the gradients. */
  readonly sums: readonly { readonly name: string; readonly value: Node }[];
  /** Assignments at the end of each micro-batch. */
  readonly moved: readonly Assignment[];
  /** Given the sums over the step: those of this program, or the leaves that others have added up. */
  context(sums: readonly Node[]): UpdateContext;
}

/** Asks the methods what becomes of what they watch in a kind of step. */
export function watchedOf(
  graph: Graph,
  methods: ComposedMethods | undefined,
  variant: string,
  { watched = new Map<string, Node>() }: Pick<Estimate, "watched">,
): WatchedStep {
  const made = methods?.watch?.({ graph, variant, gradients: watched });
  const names = [...(made?.sums.keys() ?? [])];
  const values = [...(made?.sums.values() ?? [])];
  const moved = made?.moved ?? [];
  const byName = new Map(moved.map(({ target, value }) => [leafAttributes(target).name, value]));
  return {
    sums: values.map((value, index) => ({ name: `${must(names[index], "name")}.sum`, value })),
    moved,
    context: (sums) => {
      // With several micro-batches the tensors have moved before the update, which reads them as they are then.
      const isOwn = sums.every((sum, index) => sum === values[index]);
      return {
        sum: (name) => must(sums[names.indexOf(name)], `sum of ${name}`),
        moved: (tensor) => (isOwn ? byName.get(tensor.name) : undefined) ?? movingLeaf(graph, tensor),
        scalar: (name) => leaf(graph, { name: methodScalar(name), role: "input", shape: [], dtype: "f32" }),
      };
    },
  };
}
