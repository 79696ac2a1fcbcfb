import { must } from "../errors.js";
import { sizeOf } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import { reachable } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { forwardEnds } from "../ir/program.js";
import { elements } from "../ir/shape.js";
import { linearCrossEntropyGradientOp } from "../ops/cross-entropy.js";
import { leafOp } from "../ops/leaves.js";
import type { Kernel } from "./kernels.js";
import { storageOf } from "./kernels.js";

/**
 * What a training step keeps for its backward pass.
 * `all`: every value that backward reads. `cheap`: values that stream their inputs once are made again when those are
 * there anyway. `block`: only what passes from block to block is kept; the rest is made again, products included.
 */
export type SavedPolicy = "all" | "cheap" | "block";

/** Value by value, what backward makes again. */
export interface SavedValues {
  /** Values of the forward pass that backward makes again when it needs them. */
  readonly recomputed: ReadonlySet<Node>;
  /**
   * The part of the model that each of them belongs to, counted along the model. What is made again for a later stage
   * only is not kept for its own. Without stages, all is kept until its last reader.
   */
  readonly stages?: ReadonlyMap<Node, number>;
  /**
   * Of values that pass from stage to stage and are made again: how late. A chain through several stages keeps those
   * of the lowest level that it passes, and later chains start there.
   */
  readonly levels?: ReadonlyMap<Node, number>;
}

export interface ForwardBackward extends SavedValues {
  readonly forward: ReadonlySet<Kernel>;
}

/** What the forward pass makes, and which of it the rest of the program reads. */
export interface ForwardValues {
  readonly forward: ReadonlySet<Kernel>;
  /** The kernel of the forward pass that makes each value. */
  readonly producers: ReadonlyMap<Node, Kernel>;
  /** Values of the forward pass that backward reads. */
  readonly read: ReadonlySet<Node>;
  /** What the kernel of the loss and its gradient reads: the forward pass ends there, so all of it is at hand. */
  readonly atLoss: ReadonlySet<Node>;
  /** What forward makes for backward alone. */
  readonly saved: ReadonlySet<Node>;
}

/** Splits the kernels of a training program at its loss. */
export function forwardValues(program: Program, kernels: readonly Kernel[]): ForwardValues | undefined {
  if (program.loss === undefined) return undefined;
  const ancestors = new Set(reachable(forwardEnds(program)));
  const isForward = (kernel: Kernel): boolean =>
    kernel.outputs.some((output) => ancestors.has(output)) && !isLossGradient(kernel);
  const forward = new Set(kernels.filter(isForward));
  const producers = new Map<Node, Kernel>();
  for (const kernel of forward) for (const output of kernel.outputs) producers.set(output, kernel);
  const read = new Set<Node>();
  for (const kernel of kernels) {
    if (!forward.has(kernel)) for (const input of kernel.inputs) if (producers.has(input)) read.add(input);
  }
  const atLoss = new Set(kernels.filter(isLossGradient).flatMap((kernel) => kernel.inputs));
  return { forward, producers, read, atLoss, saved: new Set((program.saved ?? []).map(storageOf)) };
}

/** Splits the kernels at the loss and decides, value by value, what backward recomputes. */
export function planSaved(
  program: Program,
  kernels: readonly Kernel[],
  policy: SavedPolicy | SavedValues,
): ForwardBackward {
  const values = forwardValues(program, kernels);
  if (values === undefined) return { forward: new Set(kernels), recomputed: new Set() };
  if (typeof policy !== "string") return { ...policy, forward: values.forward };
  return { forward: values.forward, recomputed: policyValues(values, policy) };
}

/** What a policy makes again. */
export function policyValues(values: ForwardValues, policy: SavedPolicy): Set<Node> {
  const { forward, producers, atLoss } = values;
  if (policy === "all") return new Set();
  const recomputed = policy === "cheap" ? cheapToMake(values) : insideBlocks(producers, forward);
  for (const input of atLoss) recomputed.delete(input);
  return recomputed;
}

function isLossGradient(kernel: Kernel): boolean {
  return kernel.kind === "fixed" && kernel.node.op === linearCrossEntropyGradientOp;
}

const bytesOf = (node: Node): number => elements(node.shape) * sizeOf(node.dtype);

/**
 * Generated values whose inputs are kept or made again anyway; row statistics are too small to be worth it. Of what is
 * made for backward instead of a value, that value is made again too, where it is cheap itself.
 */
function cheapToMake({ read, producers, saved }: ForwardValues): Set<Node> {
  const largest = Math.max(0, ...[...read].map(bytesOf));
  const recomputed = new Set<Node>();
  const available = (node: Node): boolean => node.op === leafOp || read.has(node);
  for (const node of [...read].sort((a, b) => b.id - a.id)) {
    const kernel = must(producers.get(node), "producer");
    if (kernel.kind !== "loops" || bytesOf(node) * 32 < largest) continue;
    // Small values, such as the scales of rows, are kept for it.
    const isSmall = (input: Node): boolean => saved.has(node) && bytesOf(input) * 32 < largest;
    const missing = kernel.inputs.filter((input) => !available(input) && !isSmall(input));
    const makeable = (input: Node): boolean => {
      const maker = producers.get(input);
      return saved.has(node) && maker?.kind === "loops" && maker.inputs.every(available);
    };
    if (missing.every(makeable)) for (const made of [node, ...missing]) recomputed.add(made);
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
