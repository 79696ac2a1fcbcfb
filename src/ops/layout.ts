import { must, ThimbleError } from "../errors.js";
import type { Attributes, Node, TensorType } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import type { Shape } from "../ir/shape.js";
import { elements, sameShape, stridesOf } from "../ir/shape.js";
import type { Tensor } from "../ir/tensor.js";
import { allocate } from "../ir/tensor.js";
import { constant, constantOp } from "./leaves.js";

/**
 * Movement ops read their input at another index and compute nothing: in generated code they vanish into address
 * arithmetic. `source` gives, for an output index, the input index it reads, or undefined where it reads padding.
 */
interface MovementRule {
  readonly name: string;
  readonly shape: (input: Shape, attributes: Attributes) => Shape;
  readonly source: (
    index: readonly number[],
    input: Shape,
    attributes: Attributes,
    output: Shape,
  ) => number[] | undefined;
  readonly gradient: (node: Node, dy: Node) => Node;
}

function defineMovement(rule: MovementRule): OpDefinition {
  return Object.freeze<OpDefinition>({
    name: rule.name,
    cost: "free",
    infer: (inputs, attributes) => {
      const input = must(inputs[0], "operand");
      return [{ shape: rule.shape(input.shape, attributes), dtype: input.dtype }];
    },
    lowering: { kind: "movement" },
    evaluate: (inputs, attributes, types) => [
      move(rule, must(inputs[0], "operand"), attributes, must(types[0], "type")),
    ],
    gradient: ({ node, outputs }) => [rule.gradient(node, must(outputs[0], "output gradient"))],
  });
}

function move(rule: MovementRule, input: Tensor, attributes: Attributes, type: TensorType): Tensor {
  const data = allocate(type.dtype, elements(type.shape));
  const strides = stridesOf(input.shape);
  const index = new Array<number>(type.shape.length).fill(0);
  for (let position = 0; position < data.length; position++) {
    const source = rule.source(index, input.shape, attributes, type.shape);
    if (source !== undefined) {
      const offset = source.reduce((sum, value, axis) => sum + value * (strides[axis] ?? 0), 0);
      data[position] = input.data[offset] ?? 0;
    }
    for (let axis = index.length - 1; axis >= 0; axis--) {
      const next = (index[axis] ?? 0) + 1;
      index[axis] = next === type.shape[axis] ? 0 : next;
      if (next !== type.shape[axis]) break;
    }
  }
  return { ...type, data };
}

const numbers = (attributes: Attributes, name: string): readonly number[] => attributes[name] as readonly number[];
const at = (list: readonly number[], axis: number): number => list[axis] ?? 0;

export const reshapeOp: OpDefinition = defineMovement({
  name: "reshape",
  shape: (input, attributes) => {
    const shape = numbers(attributes, "shape");
    if (elements(shape) === elements(input)) return shape;
    throw new ThimbleError("shape", "reshape keeps the number of elements", {
      given: `[${input.join(", ")}] to [${shape.join(", ")}]`,
    });
  },
  source: (index, input, _attributes, output) => {
    const strides = stridesOf(output);
    let offset = index.reduce((sum, value, axis) => sum + value * at(strides, axis), 0);
    return stridesOf(input).map((stride) => {
      const coordinate = Math.floor(offset / stride);
      offset -= coordinate * stride;
      return coordinate;
    });
  },
  gradient: (node, dy) => reshape(dy, must(node.inputs[0], "input").shape),
});

export const permuteOp: OpDefinition = defineMovement({
  name: "permute",
  shape: (input, attributes) => {
    const order = numbers(attributes, "order");
    if ([...order].sort((a, b) => a - b).every((axis, place) => axis === place) && order.length === input.length) {
      return order.map((axis) => at(input, axis));
    }
    throw new ThimbleError("shape", "permute needs each axis once", { given: `[${order.join(", ")}]` });
  },
  source: (index, input, attributes) => {
    const source = new Array<number>(input.length).fill(0);
    numbers(attributes, "order").forEach((axis, place) => (source[axis] = at(index, place)));
    return source;
  },
  gradient: (node, dy) => {
    const order = numbers(node.attributes, "order");
    return permute(
      dy,
      order.map((_, axis) => order.indexOf(axis)),
    );
  },
});

export const expandOp: OpDefinition = defineMovement({
  name: "expand",
  shape: (input, attributes) => {
    const shape = numbers(attributes, "shape");
    if (shape.length === input.length && input.every((size, axis) => size === 1 || size === shape[axis])) return shape;
    throw new ThimbleError("shape", "expand repeats axes of size 1 only", {
      given: `[${input.join(", ")}] to [${shape.join(", ")}]`,
    });
  },
  source: (index, input) => index.map((value, axis) => (input[axis] === 1 ? 0 : value)),
  gradient: (node, dy) => {
    const { shape } = must(node.inputs[0], "input");
    const repeated = shape.flatMap((size, axis) => (size === 1 && node.shape[axis] !== 1 ? [axis] : []));
    return reduceSum(dy, repeated);
  },
});

export const sliceOp: OpDefinition = defineMovement({
  name: "slice",
  shape: (input, attributes) => {
    const starts = numbers(attributes, "starts");
    const sizes = numbers(attributes, "sizes");
    if (
      input.every(
        (size, axis) => at(starts, axis) >= 0 && at(sizes, axis) >= 0 && at(starts, axis) + at(sizes, axis) <= size,
      )
    )
      return sizes;
    throw new ThimbleError("shape", "slice reaches outside", {
      given: `[${input.join(", ")}] from ${starts.join(", ")} for ${sizes.join(", ")}`,
    });
  },
  source: (index, _input, attributes) => index.map((value, axis) => value + at(numbers(attributes, "starts"), axis)),
  gradient: (node, dy) => {
    const { shape } = must(node.inputs[0], "input");
    const starts = numbers(node.attributes, "starts");
    return pad(
      dy,
      starts,
      shape.map((size, axis) => size - at(starts, axis) - at(node.shape, axis)),
    );
  },
});

export const padOp: OpDefinition = defineMovement({
  name: "pad",
  shape: (input, attributes) =>
    input.map((size, axis) => at(numbers(attributes, "before"), axis) + size + at(numbers(attributes, "after"), axis)),
  source: (index, input, attributes) => {
    const source = index.map((value, axis) => value - at(numbers(attributes, "before"), axis));
    return source.every((value, axis) => value >= 0 && value < at(input, axis)) ? source : undefined;
  },
  gradient: (node, dy) => slice(dy, numbers(node.attributes, "before"), must(node.inputs[0], "input").shape),
});

export const flipOp: OpDefinition = defineMovement({
  name: "flip",
  shape: (input) => input,
  source: (index, input, attributes) =>
    index.map((value, axis) => (axis === attributes["axis"] ? at(input, axis) - 1 - value : value)),
  gradient: (node, dy) => flip(dy, node.attributes["axis"] as number),
});

/** The same elements in another shape. */
export function reshape(x: Node, shape: Shape): Node {
  if (sameShape(x.shape, shape)) return x;
  if (x.op === constantOp) return constant(x.graph, x.attributes["value"] as number, shape, x.dtype);
  const source = x.op === reshapeOp ? must(x.inputs[0], "input") : x;
  return sameShape(source.shape, shape) ? source : x.graph.add(reshapeOp, [source], { shape });
}

/** Axes in another order: axis `i` of the result is axis `order[i]` of `x`. */
export function permute(x: Node, order: readonly number[]): Node {
  return order.every((axis, place) => axis === place) ? x : x.graph.add(permuteOp, [x], { order });
}

/** Repeats axes of size 1 up to `shape`; leading axes are added as needed. */
export function expand(x: Node, shape: Shape): Node {
  if (sameShape(x.shape, shape)) return x;
  if (x.op === constantOp) return constant(x.graph, x.attributes["value"] as number, shape, x.dtype);
  const aligned = reshape(x, [...new Array<number>(shape.length - x.shape.length).fill(1), ...x.shape]);
  return sameShape(aligned.shape, shape) ? aligned : x.graph.add(expandOp, [aligned], { shape });
}

/** The box of `sizes` that begins at `starts`. */
export function slice(x: Node, starts: readonly number[], sizes: Shape): Node {
  return sameShape(x.shape, sizes) ? x : x.graph.add(sliceOp, [x], { starts, sizes });
}

/** Zeros around `x`. */
export function pad(x: Node, before: readonly number[], after: readonly number[]): Node {
  return [...before, ...after].every((size) => size === 0) ? x : x.graph.add(padOp, [x], { before, after });
}

/** `axis` read backwards. */
export function flip(x: Node, axis: number): Node {
  return x.graph.add(flipOp, [x], { axis });
}

/** The sum over `axes`, which stay with size 1. Sums in the order of the elements' index (targets: a fixed tree). */
export const reduceSumOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "reduceSum",
  cost: "memory",
  infer: (inputs, attributes) => [reduced(must(inputs[0], "operand"), numbers(attributes, "axes"))],
  lowering: { kind: "reduce", combine: "add" },
  evaluate: (inputs, _attributes, types) => [
    fold(must(inputs[0], "operand"), must(types[0], "type"), 0, (a, b) => a + b),
  ],
  gradient: ({ node, outputs }) => [expand(must(outputs[0], "output gradient"), must(node.inputs[0], "input").shape)],
});

export function reduced(input: TensorType, axes: readonly number[]): TensorType {
  return { shape: input.shape.map((size, axis) => (axes.includes(axis) ? 1 : size)), dtype: input.dtype };
}

export function fold(
  input: Tensor,
  type: TensorType,
  start: number,
  combine: (a: number, b: number) => number,
): Tensor {
  const data = allocate(type.dtype, elements(type.shape)).fill(start);
  const target = stridesOf(type.shape).map((stride, axis) => (type.shape[axis] === 1 ? 0 : stride));
  const strides = stridesOf(input.shape);
  for (let position = 0; position < input.data.length; position++) {
    let rest = position;
    let offset = 0;
    for (let axis = 0; axis < strides.length; axis++) {
      const coordinate = Math.floor(rest / at(strides, axis));
      rest -= coordinate * at(strides, axis);
      offset += coordinate * at(target, axis);
    }
    data[offset] = combine(data[offset] ?? 0, input.data[position] ?? 0);
  }
  return { ...type, data };
}

export function reduceSum(x: Node, axes: readonly number[]): Node {
  return axes.length === 0 ? x : x.graph.add(reduceSumOp, [x], { axes });
}
