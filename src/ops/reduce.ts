import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import { cast, divide, equal, multiply } from "./arithmetic.js";
import { expand, fold, reduced, reduceSum, reshape } from "./layout.js";

/** The largest element over `axes`, which stay with size 1. Equal largest elements share the gradient. */
export const reduceMaximumOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "reduceMaximum",
  cost: "memory",
  infer: (inputs, attributes) => [reduced(must(inputs[0], "operand"), attributes["axes"] as readonly number[])],
  lowering: { kind: "reduce", combine: "maximum" },
  evaluate: (inputs, _attributes, types) => [
    fold(must(inputs[0], "operand"), must(types[0], "type"), -Infinity, (a, b) => (a > b ? a : b)),
  ],
  gradient: ({ node, outputs }) => {
    const x = must(node.inputs[0], "input");
    const largest = cast(equal(x, expand(node, x.shape)), "f32");
    const share = divide(
      must(outputs[0], "output gradient"),
      reduceSum(largest, node.attributes["axes"] as readonly number[]),
    );
    return [multiply(largest, expand(share, x.shape))];
  },
});

export function reduceMaximum(x: Node, axes: readonly number[]): Node {
  return x.graph.add(reduceMaximumOp, [x], { axes });
}

/** The value made anew, as a reduction over nothing: what is assigned to a leaf cannot be another leaf. */
export function copied(x: Node): Node {
  return reshape(reduceMaximum(reshape(x, [...x.shape, 1]), [x.shape.length]), x.shape);
}

/** Mean over `axes`, which stay with size 1. */
export function reduceMean(x: Node, axes: readonly number[]): Node {
  const count = axes.reduce((product, axis) => product * must(x.shape[axis], "axis"), 1);
  return multiply(reduceSum(x, axes), 1 / count);
}

/** The value itself, through which no gradient flows. */
export const detachOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "detach",
  cost: "free",
  infer: (inputs) => [must(inputs[0], "operand")],
  lowering: { kind: "movement" },
  evaluate: (inputs) => [must(inputs[0], "operand")],
  gradient: () => [undefined],
});

export function detach(x: Node): Node {
  return x.graph.add(detachOp, [x]);
}

/**
 * The value itself, through which no gradient flows, in memory of its own: the kernel that makes it does nothing with it,
 * and those that read it load it. What is computed from such values is compiled alike wherever it stands, and so has the
 * same bits, where fusion with what is around it would add up in another order.
 */
export function alone(x: Node): Node {
  return x.graph.add(detachOp, [x], { alone: true });
}

/** Whether a node is an `alone`. */
export function isAlone({ op, attributes }: Node): boolean {
  return op === detachOp && attributes["alone"] === true;
}
