import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Shape } from "../ir/shape.js";
import { detachOp } from "../ops/reduce.js";
import { reshapeOp } from "../ops/layout.js";

/**
 * What a program is made of after fusion. `inputs` and `outputs` are values that lie in memory, each named by its
 * storage node (see {@link storageOf}); everything in between exists only inside the kernel.
 */
interface KernelBase {
  readonly inputs: readonly Node[];
  readonly outputs: readonly Node[];
}

/** Element-wise expressions, reductions and gathers: generated from the graph between inputs and outputs. */
export interface LoopsKernel extends KernelBase {
  readonly kind: "loops";
}

export interface Operand {
  /** Storage node that is read. */
  readonly node: Node;
  /** The matrix (or stack of them) that its memory is read as. */
  readonly shape: Shape;
  readonly transposed: boolean;
  /** Where the operand is an expression of `node`, made where it is packed. */
  readonly computed?: OperandExpression;
}

/** An operand that is computed where it is packed, and never stored. */
export interface OperandExpression {
  /** The value, in terms of the others. */
  readonly value: Node;
  /** The one tensor in memory that it is made of, element by element. */
  readonly base: Node;
  /** Scalars that it reads. */
  readonly scalars: readonly Node[];
}

/** A sum of matrix products, then an element-wise epilogue. */
export interface ContractionKernel extends KernelBase {
  readonly kind: "contraction";
  readonly segments: readonly { readonly a: Operand; readonly b: Operand }[];
  readonly compute: "f32" | "bf16";
  readonly batch: number;
  readonly rows: number;
  readonly columns: number;
  /** The finished sum of the products, which the epilogue starts from. */
  readonly accumulator: Node;
  /** An expression equal to the output, in terms of the accumulator and `epilogueInputs`. */
  readonly epilogue: Node;
  /** Values read by the epilogue. */
  readonly epilogueInputs: readonly Node[];
}

/** A fused op with a schedule of its own; `node` gives its attributes. */
export interface FixedKernel extends KernelBase {
  readonly kind: "fixed";
  readonly node: Node;
}

export type Kernel = LoopsKernel | ContractionKernel | FixedKernel;

/** The node whose memory holds a value: reshapes and detachments are the same bytes. */
export function storageOf(node: Node): Node {
  let base = node;
  while (base.op === reshapeOp || base.op === detachOp) base = must(base.inputs[0], "input");
  return base;
}

export function isFusible(node: Node): boolean {
  const { kind } = node.op.lowering;
  return kind !== "kernel" && kind !== "leaf" && kind !== "result";
}
