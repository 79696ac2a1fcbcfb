import { ThimbleError } from "../errors.js";
import { sizeOf } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import { elements } from "../ir/shape.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { isScalarInput } from "../passes/bindings.js";
import { bytesOf as storedBytes } from "../storage/format.js";
import { storageFormat } from "../storage/registry.js";
import type { Buffer, PersistentLayout, TargetLimits } from "./types.js";
import { unlimited } from "./types.js";

const kindOfRole = { weight: "weights", state: "states", accumulator: "gradients", input: "workspace" } as const;

export const round = (bytes: number, alignment: number): number => Math.ceil(bytes / alignment) * alignment;

/** Bytes of a value as it lies in memory. */
export function bytesOfValue(node: Node): number {
  if (node.op !== leafOp) return elements(node.shape) * sizeOf(node.dtype);
  const { format, shape, dtype } = leafAttributes(node);
  return format === dtype ? elements(shape) * sizeOf(dtype) : storedBytes(storageFormat(format), shape);
}

/** Bytes of a shard that can be used at this alignment. */
export function shardRoom(limits: TargetLimits, alignment: number): number {
  return limits.largestShard === Infinity ? Infinity : Math.floor(limits.largestShard / alignment) * alignment;
}

/**
 * Places every leaf of the programs, one after another, each in the first shard that has room. Where kernels are short
 * of bindings, numbers that the host sets come first, side by side, so that one binding reaches them all.
 */
export function layOutLeaves(
  leaves: Iterable<Node>,
  alignment: number,
  limits: TargetLimits = unlimited,
): PersistentLayout {
  const buffers = new Map<string, Buffer>();
  const shards: number[] = [];
  const room = shardRoom(limits, alignment);
  for (const leaf of limits.bindings === Infinity ? leaves : scalarsFirst(leaves)) {
    const { name, role } = leafAttributes(leaf);
    if (buffers.has(name)) continue;
    const bytes = round(bytesOfValue(leaf), alignment);
    checkSize(name, bytes, limits);
    let shard = shards.findIndex((used) => used + bytes <= room);
    if (shard < 0) shard = shards.push(0) - 1;
    const offset = shards[shard] ?? 0;
    buffers.set(name, { name, kind: kindOfRole[role], bytes, tier: "device", shard, offset, start: 0, end: Infinity });
    shards[shard] = offset + bytes;
  }
  return { buffers, bytes: shards.reduce((total, used) => total + used, 0), shards };
}

function scalarsFirst(leaves: Iterable<Node>): Node[] {
  const all = [...leaves];
  return [...all.filter(isScalarInput), ...all.filter((leaf) => !isScalarInput(leaf))];
}

/** Refuses what no kernel of the target could reach as one range, or what fits into no allocation. */
export function checkSize(name: string, bytes: number, { largestBinding, largestShard }: TargetLimits): void {
  const most = Math.min(largestBinding, largestShard);
  if (bytes <= most) return;
  throw new ThimbleError("plan-binding-limit", "A tensor is larger than the target can give to a kernel", {
    where: name,
    given: `${bytes} bytes`,
    expected: `at most ${most} bytes in one piece`,
    fix: "Store it in a smaller format, use a smaller batch or length, or choose another target.",
  });
}
