import type { Node } from "../ir/node.js";
import { isScalarInput } from "../passes/bindings.js";
import { round } from "./layout.js";
import type { Buffer, PlannedStep, TargetFacts, TargetLimits, Tier } from "./types.js";

/** A range of memory that a kernel binds; it reaches one or more buffers. */
export interface Range {
  readonly tier: Tier;
  readonly shard: number;
  readonly offset: number;
  readonly bytes: number;
}

/**
 * The ranges that a step binds: each buffer once, whatever reads and writes it; the host's numbers as one; and, where
 * these are too many, buffers that lie side by side as one.
 */
export function rangesOf({ step, inputs, outputs, workspace }: PlannedStep, facts: TargetFacts): Range[] {
  const packed = facts.limits.bindings < Infinity;
  const scalar = (node: Node | undefined): boolean => packed && node !== undefined && isScalarInput(node);
  const scalars = inputs.filter((_, place) => scalar(step.kernel.inputs[place]));
  const others = inputs.filter((_, place) => !scalar(step.kernel.inputs[place]));
  const ranges = distinct([...others, ...outputs, ...(workspace === undefined ? [] : [workspace])]);
  const all = scalars.length === 0 ? ranges : [...ranges, covering(scalars, facts.alignment)];
  return all.length <= facts.limits.bindings ? all : joinNeighbours(all, facts.limits);
}

function distinct(buffers: readonly Buffer[]): Range[] {
  const ranges = new Map<string, Range>();
  for (const { tier, shard, offset, bytes } of buffers) {
    ranges.set(`${tier} ${shard} ${offset} ${bytes}`, { tier, shard, offset, bytes });
  }
  return [...ranges.values()];
}

/** The aligned range around packed numbers; nothing but numbers is in it. */
function covering(buffers: readonly Buffer[], alignment: number): Range {
  const [first] = buffers;
  const start = Math.min(...buffers.map((buffer) => buffer.offset));
  const offset = Math.floor(start / alignment) * alignment;
  const end = round(Math.max(...buffers.map((buffer) => buffer.offset + buffer.bytes)), alignment);
  return { tier: first?.tier ?? "device", shard: first?.shard ?? 0, offset, bytes: end - offset };
}

function joinNeighbours(ranges: readonly Range[], limits: TargetLimits): Range[] {
  const sorted = ranges.toSorted(
    (a, b) => a.tier.localeCompare(b.tier) || a.shard - b.shard || a.offset - b.offset || a.bytes - b.bytes,
  );
  const joined: Range[] = [];
  for (const range of sorted) {
    const last = joined.at(-1);
    const touches =
      last?.tier === range.tier && last.shard === range.shard && last.offset + last.bytes === range.offset;
    if (last !== undefined && touches && last.bytes + range.bytes <= limits.largestBinding) {
      joined[joined.length - 1] = { ...last, bytes: last.bytes + range.bytes };
    } else joined.push(range);
  }
  return joined;
}
