import { must } from "../errors.js";
import type { DType } from "../ir/dtype.js";
import type { Attributes, Graph, Node } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import type { Shape } from "../ir/shape.js";
import { elements } from "../ir/shape.js";
import { allocate } from "../ir/tensor.js";

/**
 * What a leaf is to a program, which decides where it counts in the memory report:
 * `weight` and `state` and `accumulator` live as long as the run, `input` is written by the host before each step.
 */
export type LeafRole = "weight" | "state" | "accumulator" | "input";

export interface LeafType {
  readonly name: string;
  readonly role: LeafRole;
  readonly shape: Shape;
  readonly dtype: DType;
  /** How it lies in memory: a storage format id; the element type's own name if not given. */
  readonly format?: string;
  /** Which value of the leaf in a step of several phases: 0 before the first assignment. */
  readonly version?: number;
}

function typeOf(attributes: Attributes): { shape: Shape; dtype: DType } {
  return { shape: attributes["shape"] as Shape, dtype: attributes["dtype"] as DType };
}

export const leafOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "leaf",
  cost: "free",
  infer: (_inputs, attributes) => [typeOf(attributes)],
  lowering: { kind: "leaf" },
});

/** A tensor that exists outside the program: a weight, an optimizer state, an input. */
export function leaf(graph: Graph, type: LeafType): Node {
  const { name, role, shape, dtype } = type;
  return graph.add(leafOp, [], { name, role, shape, dtype, format: type.format ?? dtype, version: type.version ?? 0 });
}

export type LeafAttributes = Required<LeafType>;

export function leafAttributes(node: Node): LeafAttributes {
  return node.attributes as unknown as LeafAttributes;
}

export const constantOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "constant",
  cost: "free",
  infer: (_inputs, attributes) => [typeOf(attributes)],
  lowering: { kind: "index" },
  evaluate: (_inputs, attributes) => {
    const { shape, dtype } = typeOf(attributes);
    return [{ shape, dtype, data: allocate(dtype, elements(shape)).fill(attributes["value"] as number) }];
  },
});

/** A tensor of one repeated value. */
export function constant(graph: Graph, value: number, shape: Shape = [], dtype: DType = "f32"): Node {
  // JSON has no NaN or infinities, and attributes are compared as JSON.
  return graph.add(constantOp, [], { value: Number.isFinite(value) ? value : Math.sign(value) * 3.4e38, shape, dtype });
}

/** The value of a node that holds one known number everywhere. */
export function constantValue(node: Node): number | undefined {
  return node.op === constantOp ? (node.attributes["value"] as number) : undefined;
}

export const iotaOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "iota",
  cost: "free",
  infer: (_inputs, attributes) => [typeOf(attributes)],
  lowering: { kind: "index" },
  evaluate: (_inputs, attributes) => {
    const { shape, dtype } = typeOf(attributes);
    const axis = attributes["axis"] as number;
    const inner = elements(shape.slice(axis + 1));
    const data = allocate(dtype, elements(shape));
    for (let index = 0; index < data.length; index++) {
      data[index] = Math.floor(index / inner) % must(shape[axis], "axis size");
    }
    return [{ shape, dtype, data }];
  },
});

/** Each element's own index along `axis`. */
export function iota(graph: Graph, shape: Shape, axis: number, dtype: "i32" | "u32" = "i32"): Node {
  return graph.add(iotaOp, [], { shape, axis, dtype });
}

export const resultOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "result",
  cost: "free",
  // The graph builder passes only first types, so the type is stated by `result()`.
  infer: (_inputs, attributes) => [typeOf(attributes)],
  lowering: { kind: "result" },
});

/** Output `index` of a tuple op; output 0 is also the tuple node itself when it is the only one. */
export function result(node: Node, index: number): Node {
  const { shape, dtype } = must(node.types[index], `output ${index} of ${node.op.name}`);
  if (node.types.length === 1) return node;
  return node.graph.add(resultOp, [node], { index, shape, dtype });
}
