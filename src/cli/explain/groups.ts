/** Kernels by what holds them back, so that a step's time can be summed up in a few lines. */
import type { Node } from "../../ir/node.js";
import { attentionBackwardOp, attentionOp } from "../../ops/attention.js";
import type { Kernel } from "../../passes/kernels.js";
import { bytesMoved, isLossOp, operations } from "../../plan/cost.js";
import type { MachineLimits } from "./limits.js";

export type KernelGroup = "products" | "attention" | "attention backward" | "loss" | "loops" | "other";

export function groupOf(kernel: Kernel): KernelGroup {
  switch (kernel.kind) {
    case "contraction":
      return "products";
    case "loops":
      return "loops";
    case "fixed": {
      const { op } = kernel.node;
      if (op === attentionOp) return "attention";
      if (op === attentionBackwardOp) return "attention backward";
      return isLossOp(op) ? "loss" : "other";
    }
  }
}

/** The least time of a kernel on a machine, and which limit gives it. */
export interface Roof {
  readonly seconds: number;
  readonly limit: "arithmetic" | "memory";
}

/**
 * The roof over one run: its multiply-adds at the machine's peak, or its bytes at the memory's rate, whichever takes
 * longer. Loops count by their bytes alone, for a function such as exp is one operation in name only.
 */
export function roofOf(kernel: Kernel, { f32, bf16, bandwidth }: MachineLimits): Roof {
  const memory = bytesMoved(kernel) / bandwidth;
  const group = groupOf(kernel);
  const multiplies = group !== "loops" && group !== "other";
  const arithmetic = multiplies ? operations(kernel) / (isNarrow(kernel) ? bf16 : f32) : 0;
  return arithmetic > memory ? { seconds: arithmetic, limit: "arithmetic" } : { seconds: memory, limit: "memory" };
}

/** Whether the operands that are multiplied are bf16. */
function isNarrow(kernel: Kernel): boolean {
  if (kernel.kind === "contraction") return kernel.compute === "bf16";
  if (kernel.kind === "loops") return false;
  const operands: readonly Node[] = kernel.node.inputs.slice(0, 2);
  return operands.every(({ dtype }) => dtype === "bf16");
}
