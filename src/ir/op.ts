import type { Attributes, Node, TensorType } from "./node.js";
import type { Scalar } from "./scalar.js";
import type { Tensor } from "./tensor.js";

/**
 * What it costs to make a value again instead of keeping it for the backward pass: `free` (an index change),
 * `memory` (streams its inputs once), `compute` (a contraction or attention).
 */
export type CostClass = "free" | "memory" | "compute";

/** How targets make machine code of an op. `kernel` ops have a hand-made schedule; all others are generated. */
export type Lowering =
  | { readonly kind: "leaf" }
  | { readonly kind: "elementwise"; readonly expression: (args: readonly Scalar[], attributes: Attributes) => Scalar }
  | { readonly kind: "cast" }
  | { readonly kind: "index" }
  /** A function of scalar inputs and the element's index, the last argument (u32). */
  | { readonly kind: "random"; readonly expression: (args: readonly Scalar[]) => Scalar }
  | { readonly kind: "movement" }
  | { readonly kind: "reduce"; readonly combine: "add" | "maximum" }
  | { readonly kind: "gather" }
  | { readonly kind: "result" }
  | { readonly kind: "kernel" };

export interface GradientContext {
  readonly node: Node;
  /** Gradient of the loss by each output of the node (f32), where one reaches it. */
  readonly outputs: readonly (Node | undefined)[];
  /** Which inputs need a gradient; leave the others undefined. */
  readonly wants: readonly boolean[];
}

/** One definition an op: shape rule, meaning, derivative, cost and lowering stand together. */
export interface OpDefinition {
  readonly name: string;
  readonly infer: (inputs: readonly TensorType[], attributes: Attributes) => readonly TensorType[];
  readonly cost: CostClass;
  readonly lowering: Lowering;
  /** The meaning, on plain arrays in f64; the interpreter rounds the results to the output types. */
  readonly evaluate?: (inputs: readonly Tensor[], attributes: Attributes, types: readonly TensorType[]) => Tensor[];
  /** The meaning of a fused op in terms of smaller ones; also its fallback on a target without a kernel for it. */
  readonly decompose?: (inputs: readonly Node[], attributes: Attributes) => readonly Node[];
  /** Gradients by each input, in f32; absent for ops that are constant in their inputs. */
  readonly gradient?: (context: GradientContext) => readonly (Node | undefined)[];
}
