import { must } from "../errors.js";
import { sizeOf } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import { reachable } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { elements } from "../ir/shape.js";
import { linearCrossEntropyGradientOp } from "../ops/cross-entropy.js";
import { leafOp } from "../ops/leaves.js";
import type { Kernel } from "./kernels.js";

/**
 * What a training step keeps for its backward pass.
 * `all`: every value that backward reads. `cheap`: values that stream their inputs once are made again when those are
 * there anyway. `block`: only what passes from block to block is kept; the rest is made again, products included.
 */
export type SavedPolicy = "all" | "cheap" | "block";

export interface ForwardBackward {
  readonly forward: ReadonlySet<Kernel>;
  /** Values of the forward pass that backward makes again when it needs them. */
  readonly recomputed: ReadonlySet<Node>;
}

/** Splits the kernels at the loss and decides, value by value, what backward recomputes. */
export function planSaved(program: Program, kernels: readonly Kernel[], policy: SavedPolicy): ForwardBackward {
  if (program.loss === undefined) return { forward: new Set(kernels), recomputed: new Set() };
  const ancestors = new Set(reachable([program.loss]));
  const isForward = (kernel: Kernel): boolean =>
    kernel.outputs.some((output) => ancestors.has(output)) && !isLossGradient(kernel);
  const forward = new Set(kernels.filter(isForward));
  const producers = new Map<Node, Kernel>();
  for (const kernel of forward) for (const output of kernel.outputs) producers.set(output, kernel);
  const read = new Set<Node>();
  for (const kernel of kernels) {
    if (!forward.has(kernel)) for (const input of kernel.inputs) if (producers.has(input)) read.add(input);
  }
  if (policy === "all") return { forward, recomputed: new Set() };
  const recomputed = policy === "cheap" ? cheapToMake(read, producers) : insideBlocks(producers, forward);
  // The loss and its gradient are one kernel, right where the forward pass ends: what it reads is still there.
  for (const kernel of kernels) if (isLossGradient(kernel)) for (const input of kernel.inputs) recomputed.delete(input);
  return { forward, recomputed };
}

function isLossGradient(kernel: Kernel): boolean {
  return kernel.kind === "fixed" && kernel.node.op === linearCrossEntropyGradientOp;
}

const bytesOf = (node: Node): number => elements(node.shape) * sizeOf(node.dtype);

/** Generated values whose inputs are kept or made again anyway; row statistics are too small to be worth it. */
function cheapToMake(read: ReadonlySet<Node>, producers: ReadonlyMap<Node, Kernel>): Set<Node> {
  const largest = Math.max(0, ...[...read].map(bytesOf));
  const recomputed = new Set<Node>();
  const available = (node: Node): boolean => node.op === leafOp || read.has(node);
  for (const node of [...read].sort((a, b) => b.id - a.id)) {
    const kernel = must(producers.get(node), "producer");
    if (kernel.kind !== "loops" || bytesOf(node) * 32 < largest) continue;
    if (kernel.inputs.every(available)) recomputed.add(node);
  }
  return recomputed;
}

/** The part of a scope that names its block, as in `blocks.3`. */
export function blockOf(node: Node): string | undefined {
  return /(?:^|\.)(blocks\.\d+)(?:\.|$)/.exec(node.scope)?.[1];
}

function insideBlocks(producers: ReadonlyMap<Node, Kernel>, forward: ReadonlySet<Kernel>): Set<Node> {
  const crossing = new Set<Node>();
  for (const kernel of forward) {
    for (const input of kernel.inputs) {
      const reader = kernel.outputs.map(blockOf).find((name) => name !== undefined);
      if (producers.has(input) && blockOf(input) !== reader) crossing.add(input);
    }
  }
  return new Set([...producers.keys()].filter((node) => blockOf(node) !== undefined && !crossing.has(node)));
}
