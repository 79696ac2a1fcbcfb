import type { Node } from "../ir/node.js";
import { sizeOf } from "../ir/dtype.js";
import { elements } from "../ir/shape.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import type { Kernel } from "./kernels.js";

/** What fusion must know of a target: how much memory, in how many pieces, one kernel can reach. */
export interface KernelTarget {
  /** Every address is a multiple of this many bytes. */
  readonly alignment: number;
  readonly limits: {
    /** Ranges of memory that one kernel can bind. */
    readonly bindings: number;
    /** Bytes of one such range. */
    readonly largestBinding: number;
  };
  /** Scratch memory of one kernel, all threads together. */
  workspaceBytes(kernel: Kernel): number;
}

export type Fits = (kernel: Kernel) => boolean;

export function isLimited(target: KernelTarget | undefined): target is KernelTarget {
  return target !== undefined && target.limits.bindings < Infinity;
}

/** Whether kernels can be bound on a target; without one, or with one that has no limit, all can. */
export function fitsOn(target: KernelTarget | undefined): Fits {
  if (!isLimited(target)) return () => true;
  return (kernel) => {
    const others = countInputs(kernel.inputs) + (target.workspaceBytes(kernel) > 0 ? 1 : 0);
    return others + (groupsOutputs(kernel, target) ? 1 : kernel.outputs.length) <= target.limits.bindings;
  };
}

/** Numbers that the host sets before a run lie side by side (see `layOutLeaves`), so one range reaches them all. */
export function isScalarInput(node: Node): boolean {
  return node.op === leafOp && elements(node.shape) === 1 && leafAttributes(node).role === "input";
}

function countInputs(inputs: readonly Node[]): number {
  const scalars = inputs.filter(isScalarInput).length;
  return inputs.length - scalars + Math.min(scalars, 1);
}

/**
 * Whether the results of a fused op lie side by side, so that one range reaches them all. That keeps all of them until
 * the last is dead, so it is done only where the op could not be bound otherwise.
 */
export function groupsOutputs(kernel: Kernel, target: KernelTarget): boolean {
  const { bindings, largestBinding } = target.limits;
  if (kernel.kind !== "fixed" || kernel.outputs.length === 1 || bindings === Infinity) return false;
  const workspace = target.workspaceBytes(kernel) > 0 ? 1 : 0;
  if (countInputs(kernel.inputs) + kernel.outputs.length + workspace <= bindings) return false;
  const rounded = (node: Node): number => Math.ceil(bytesOf(node) / target.alignment) * target.alignment;
  return kernel.outputs.reduce((sum, output) => sum + rounded(output), 0) <= largestBinding;
}

function bytesOf(node: Node): number {
  return elements(node.shape) * sizeOf(node.dtype);
}
