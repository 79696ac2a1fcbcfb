import type { Graph, Node } from "../ir/node.js";
import type { Phase } from "../ir/program.js";
import type { RandomKey } from "../ops/random.js";

/** A tensor that trains, as an estimator sees it. */
export interface TrainableLeaf {
  readonly name: string;
  /** What its states and sums are named by: its own name, or that of its turn's, which other tensors have after it. */
  readonly place: string;
  /** Its leaf, holding what it holds before the step changes it; what an earlier step left to do is done. */
  readonly node: Node;
  /** Its stream of random bits, u32 []; uses 1 and up of it are the estimator's. */
  readonly stream: Node;
}

/** What an estimator builds a gradient from. */
export interface EstimateContext {
  readonly graph: Graph;
  /** Type in which activations are stored, and products computed. */
  readonly activation: "f32" | "bf16";
  /**
   * The loss of the micro-batch, f32 []: the model built once, reading `read(tensor)` in the place of each tensor that
   * trains. Each call builds the model again; equal calls give the same nodes. `dropout` is live only where allowed.
   */
  readonly loss: (options?: { readonly read?: (tensor: TrainableLeaf) => Node; readonly dropout?: boolean }) => Node;
  /** In the order of the updates; complete as soon as the loss was built once. */
  readonly trainables: () => readonly TrainableLeaf[];
  /** What methods watch, by name, where the loss was built with dropout: gradients by these are wanted too. */
  readonly probes: () => ReadonlyMap<string, Node>;
  /** The run's key of random bits, and the number of the step, u32 []. */
  readonly key: RandomKey;
  readonly step: Node;
}

/** Names of outputs that are differences of losses, which runs log. */
export const differencePrefix = "estimate.difference";

/** What becomes of the sums over all micro-batches of a step. */
export interface FinishedEstimate {
  /** f32, of the trainables in their order: expressions that the updates compute where they use them, or stored values. */
  readonly gradients: readonly Node[];
  /** Multiplies the learning rate, f32 []: 0 skips a step; absent = 1. */
  readonly rateFactor?: Node;
  /** Numbers for the host. */
  readonly outputs: Readonly<Record<string, Node>>;
}

/** How one micro-batch contributes to a gradient. */
export interface Estimate {
  /** The loss to report, f32 []. */
  readonly loss: Node;
  /** What comes before the last phase, which accumulates or updates. */
  readonly phases: readonly Phase[];
  /** The smallest objects that are linear in the gradient: what is added up over micro-batches, f32. */
  readonly linear: readonly { readonly name: string; readonly value: Node }[];
  /** Where phases change the trainables: the leaf that the last phase writes, and the value that it held at first. */
  readonly restored?: (tensor: TrainableLeaf) => { readonly target: Node; readonly value: Node };
  /** Gradients of the micro-batch by the probes, f32, by name. */
  readonly watched?: ReadonlyMap<string, Node>;
  /** Where a backward pass follows the loss: the gradients that it stores, for the memory report. */
  readonly backward?: readonly Node[];
  /** `step`: the number of the step, u32 [], that the sums are of, where it is not the one at hand. */
  finish(sums: readonly Node[], step?: Node): FinishedEstimate;
}

/** How a gradient is made of a loss: backpropagation unless a method says otherwise. */
export type Estimator = (context: EstimateContext) => Estimate;
