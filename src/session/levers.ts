import { dropoutStreams } from "../step/forward.js";
import { streamPrefix } from "../step/inputs.js";
import type { SessionPlan } from "./finish.js";
import type { Lever } from "./lever.js";
import { diskLevers } from "./place.js";
import type { SessionOptions } from "./types.js";

/**
 * The ways to pull levers, that without any first; those that change numbers beyond rounding only where that is
 * allowed. More levers are added here: each way is searched for the best choice of saved values.
 */
export function leversOf(options: SessionOptions, plan: SessionPlan, allowLossy: boolean): (readonly Lever[])[] {
  const disk = diskLevers(options).map((lever) => [lever]);
  const alone: (readonly Lever[])[] = [[], ...disk, ...splitsOf(options, plan).map((split) => [split])];
  const most = disk.at(-1) ?? [];
  const splits = most.length === 0 ? alone : [...alone, ...splitsOf(options, plan).map((split) => [split, ...most])];
  const lossy = allowLossy ? (options.lossy ?? []) : [];
  return [...splits, ...lossy.flatMap((lever) => splits.map((levers) => [...levers, lever]))];
}

/** Fewer rows at a time, whose gradients are added up; the weights of a step's losses stay what they are. */
function splitsOf({ batch, split = 1, methods }: SessionOptions, plan: SessionPlan): Lever[] {
  // Random bits go by the place in the batch: other rows would draw them. Estimators see a batch as a whole.
  if (split > 1 || methods === undefined || methods.estimate !== undefined || usesDropout(plan)) return [];
  const parts = Array.from({ length: batch }, (_, index) => index + 1).filter((k) => k > 1 && batch % k === 0);
  return fewOf(parts).map((count) => ({
    name: "split",
    what: `split each micro-batch of ${batch} rows into ${count} of ${batch / count}`,
    exact: false,
    apply: (changed) => ({ ...changed, split: count }),
  }));
}

/** The halvings and the last: searching all divisors of a large batch would take long. */
function fewOf(parts: readonly number[]): number[] {
  const halvings = parts.filter((part) => Number.isInteger(Math.log2(part))).slice(0, 3);
  const last = parts.at(-1);
  return [...new Set([...halvings, ...(last === undefined ? [] : [last])])];
}

function usesDropout({ leaves }: SessionPlan): boolean {
  return [...leaves.keys()].some(
    (name) => name.startsWith(streamPrefix) && Number(name.slice(streamPrefix.length)) >= dropoutStreams,
  );
}
