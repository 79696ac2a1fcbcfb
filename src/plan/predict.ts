import type { ContractionKernel, Kernel } from "../passes/kernels.js";
import type { Schedule } from "../passes/schedule.js";
import { attentionBackwardOp, attentionOp } from "../ops/attention.js";
import { bytesMoved, depthOf, isLossOp, operations } from "./cost.js";
import { streamedSeconds } from "./stall.js";

/** Kernels whose arithmetic runs at one rate. */
export const kernelClasses = ["f32", "bf16", "thin", "attention", "attentionBackward", "loss", "loops"] as const;
export type KernelClass = (typeof kernelClasses)[number];

/** How fast a machine runs kernels, with all the threads of a run together. */
export interface Rates {
  /** Operations a second of each class, where memory does not hold it back. */
  readonly operations: Readonly<Record<KernelClass, number>>;
  /** Bytes a second that kernels read and write. */
  readonly bandwidth: number;
  /** Seconds that each kernel takes beside its work: waking and joining the threads. */
  readonly perKernel: number;
}

/** Of a core with AVX-512, where nothing was measured: enough to compare plans, not to time a run. */
const ofOneThread: Readonly<Record<KernelClass, number>> = {
  f32: 140e9,
  bf16: 140e9,
  thin: 60e9,
  attention: 60e9,
  attentionBackward: 70e9,
  loss: 130e9,
  loops: 8e9,
};

export function defaultRates(threads: number): Rates {
  const scaled = Object.entries(ofOneThread).map(([name, rate]) => [name, rate * threads]);
  return {
    operations: Object.fromEntries(scaled) as Rates["operations"],
    // One thread takes about half of what the memory gives.
    bandwidth: threads === 1 ? 12e9 : 25e9,
    perKernel: 5e-6,
  };
}

/** Products with so few rows, columns or terms are held back by moving their operands into registers. */
const thin = 32;

export function classOf(kernel: Kernel): KernelClass {
  switch (kernel.kind) {
    case "loops":
      return "loops";
    case "contraction":
      return isThin(kernel) ? "thin" : kernel.compute;
    case "fixed": {
      const { op } = kernel.node;
      if (op === attentionOp) return "attention";
      if (op === attentionBackwardOp) return "attentionBackward";
      return isLossOp(op) ? "loss" : "loops";
    }
  }
}

function isThin({ rows, columns, segments }: ContractionKernel): boolean {
  const deepest = segments.reduce((most, { a }) => Math.max(most, depthOf(a)), 0);
  return Math.min(rows, columns, deepest) <= thin;
}

/** What a kernel must do, found once for each. */
const work = new WeakMap<Kernel, { readonly operations: number; readonly bytes: number; readonly kind: KernelClass }>();

/**
 * Seconds that one run of a kernel takes. Generated loops are held back by their arithmetic or by their traffic, the
 * larger of the two (the roofline); products first pack what they read, then multiply it, so both count.
 */
export function kernelSeconds(kernel: Kernel, rates: Rates): number {
  let known = work.get(kernel);
  if (known === undefined) {
    known = { operations: operations(kernel), bytes: bytesMoved(kernel), kind: classOf(kernel) };
    work.set(kernel, known);
  }
  const arithmetic = known.operations / rates.operations[known.kind];
  const traffic = known.bytes / rates.bandwidth;
  return (known.kind === "loops" ? Math.max(arithmetic, traffic) : arithmetic + traffic) + rates.perKernel;
}

/** Seconds that one run of a program takes, waiting for what is read from disk included. */
export function programSeconds(schedule: Schedule, rates: Rates): number {
  return streamedSeconds(schedule, ({ kernel }) => kernelSeconds(kernel, rates));
}
