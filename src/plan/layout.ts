import { ThimbleError } from "../errors.js";
import { sizeOf } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import { elements } from "../ir/shape.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { isScalarInput } from "../passes/bindings.js";
import { bytesOf as storedBytes } from "../storage/format.js";
import { storageFormat } from "../storage/registry.js";
import type { Buffer, PersistentLayout, TargetLimits, Tier } from "./types.js";
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

/** Addresses on disk: whole pages of any file system, so that a device can be read without a copy. */
export const diskAlignment = 4096;

/** A number that the host sets takes this many bytes where kernels are short of bindings, else no more than its own. */
const boundScalarBytes = 8;

/**
 * Places every leaf of the programs, one after another, each in the first shard that has room. Numbers that the host
 * sets come first, packed: there are some for each tensor that trains, and one binding reaches them all where kernels
 * are short of bindings. Leaves of tier `disk` get an address in one file.
 */
export function layOutLeaves(
  leaves: Iterable<Node>,
  alignment: number,
  limits: TargetLimits = unlimited,
  tierOf: (leaf: Node) => Tier = () => "device",
): PersistentLayout {
  const buffers = new Map<string, Buffer>();
  let diskBytes = 0;
  const putOnDisk = (leaf: Node): void => {
    const { name, role } = leafAttributes(leaf);
    const place = { tier: "disk", shard: 0, offset: diskBytes, start: 0, end: Infinity } as const;
    const bytes = bytesOfValue(leaf);
    buffers.set(name, { name, kind: kindOfRole[role], bytes, ...place });
    diskBytes = round(diskBytes + bytes, diskAlignment);
  };
  const shards: number[] = [];
  const room = shardRoom(limits, alignment);
  const put = (leaf: Node, bytes: number, shard: number): void => {
    const { name, role } = leafAttributes(leaf);
    const offset = shards[shard] ?? 0;
    buffers.set(name, { name, kind: kindOfRole[role], bytes, tier: "device", shard, offset, start: 0, end: Infinity });
    shards[shard] = offset + bytes;
  };
  const isKnown = (leaf: Node): boolean => buffers.has(leafAttributes(leaf).name);
  const scalarBytes = (leaf: Node): number =>
    limits.bindings < Infinity ? boundScalarBytes : Math.max(4, bytesOfValue(leaf));
  const all = [...leaves];
  for (const leaf of all) if (isScalarInput(leaf) && !isKnown(leaf)) put(leaf, scalarBytes(leaf), 0);
  if (shards[0] !== undefined) {
    shards[0] = round(shards[0], alignment);
    checkSize("the numbers that the host sets", shards[0], limits);
  }
  for (const leaf of all) {
    if (isKnown(leaf)) continue;
    if (tierOf(leaf) === "disk") {
      putOnDisk(leaf);
      continue;
    }
    const bytes = round(bytesOfValue(leaf), alignment);
    checkSize(leafAttributes(leaf).name, bytes, limits);
    const first = shards.findIndex((used) => used + bytes <= room);
    put(leaf, bytes, first < 0 ? shards.length : first);
  }
  return { buffers, bytes: shards.reduce((total, used) => total + used, 0), diskBytes, shards };
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
