/** Movement ops as index arithmetic: the input index that an output index reads. */
import { invariant, must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import type { Shape } from "../../ir/shape.js";
import { stridesOf } from "../../ir/shape.js";
import type { Linear, SplitRequest } from "./linear.js";
import { addScaled, constantIndex, divideIndex, shifted } from "./linear.js";

const numbers = (node: Node, name: string): readonly number[] => node.attributes[name] as readonly number[];

/** Row-major position of an index. */
export function flatten(index: readonly Linear[], shape: Shape): Linear {
  const strides = stridesOf(shape);
  return index.reduce((sum, part, axis) => addScaled(sum, part, must(strides[axis], "stride")), constantIndex(0));
}

/** The index in `shape` of a row-major position. */
export function unflatten(position: Linear, shape: Shape, request: SplitRequest): Linear[] {
  let rest = position;
  return stridesOf(shape).map((stride, axis) => {
    if (shape[axis] === 1) return constantIndex(0);
    const { quotient, remainder } = divideIndex(rest, stride, request);
    rest = remainder;
    return quotient;
  });
}

/** The index that a movement op other than pad reads. */
export function sourceIndex(node: Node, index: readonly Linear[], request: SplitRequest): Linear[] {
  const { shape } = must(node.inputs[0], "input");
  switch (node.op.name) {
    case "detach":
      return [...index];
    case "reshape":
      return unflatten(flatten(index, node.shape), shape, request);
    case "permute": {
      const order = numbers(node, "order");
      return shape.map((_, axis) => must(index[order.indexOf(axis)], "index"));
    }
    case "expand":
      return index.map((part, axis) => (shape[axis] === 1 ? constantIndex(0) : part));
    case "slice":
      return index.map((part, axis) => shifted(part, must(numbers(node, "starts")[axis], "start")));
    case "flip":
      return index.map((part, axis) => {
        const last = constantIndex(must(shape[axis], "size") - 1);
        return axis === node.attributes["axis"] ? addScaled(last, part, -1) : part;
      });
    default:
      invariant(false, `the loop generator does not know the movement op ${node.op.name}`);
  }
}

/** The index that a pad reads; it may lie outside the input. */
export function paddedIndex(node: Node, index: readonly Linear[]): Linear[] {
  const before = numbers(node, "before");
  return index.map((part, axis) => shifted(part, -must(before[axis], "padding")));
}
