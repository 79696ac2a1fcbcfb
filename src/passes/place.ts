import { invariant } from "../errors.js";
import type { Node } from "../ir/node.js";
import { elements } from "../ir/shape.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { bytesOf } from "../storage/format.js";
import { storageFormat } from "../storage/registry.js";
import type { Schedule, Step } from "./schedule.js";

/** A stay in memory of a tensor that lies on disk: it is fetched, used one or more times, and makes room again. */
export interface Stay {
  readonly leaf: Node;
  /** Its bytes are asked for just before this step, */
  readonly fetch: number;
  /** and are there before this one, which is the first that uses them. */
  readonly first: number;
  /** The last step that uses them. */
  readonly last: number;
  /** Present if they change: asked to be written back after `last`, and written before this step. */
  readonly written?: number;
  /** The visit that it is part of, where tensors come and go by blocks. */
  readonly visit?: number;
}

/** How much memory tensors on disk may take while they are used, against how often and how early they are read. */
export interface Streaming {
  /**
   * Bytes that are taken to be read while one element of a weight is used: a tensor is asked for so early that the
   * products in between, at this rate, last as long as reading it.
   */
  readonly ahead?: number;
  /** A tensor is kept from one use to the next while no more than so many bytes of others are used in between. */
  readonly keep?: number;
  /**
   * Tensors come and go by blocks. "beside": while a block is computed, the next one comes and the one before leaves, so
   * that three have places in memory; "alone": a block comes when it is needed, and has left when the next one comes.
   */
  readonly visits?: "beside" | "alone";
}

/** 300 MB/s of disk for 600 GFLOP/s of products with 512 rows; a faster disk only waits longer in memory. */
const defaultAhead = 0.5;

interface Use {
  readonly leaf: Node;
  readonly step: number;
  readonly changes: boolean;
}

/** Decides when each tensor on disk is fetched and for how long it stays. The order of the kernels is not changed. */
export function streamFromDisk(schedule: Schedule, onDisk: (leaf: Node) => boolean, options: Streaming = {}): Schedule {
  const uses = usesOf(schedule, onDisk);
  if (uses.length === 0) return schedule;
  const { ahead = defaultAhead, keep = largestGroup(uses.map(({ leaf }) => leaf)), visits } = options;
  if (visits !== undefined) {
    return { ...schedule, stays: stayByVisit(gatherStays(uses, keep), schedule.steps.length, visits) };
  }
  const stays: Stay[] = [];
  for (const { leaf, uses: own } of gatherStays(uses, keep)) {
    const first = own[0]?.step ?? 0;
    const last = own.at(-1)?.step ?? first;
    const fetch = fetchStep(uses, first, bytesOfLeaf(leaf) / ahead);
    const before = stays.findIndex((stay) => nameOf(stay.leaf) === nameOf(leaf) && fetch <= stay.last);
    const earlier = stays[before];
    const changes = own.some((use) => use.changes) || earlier?.written !== undefined;
    const written = changes ? { written: schedule.steps.length } : {};
    // It would be fetched while it is still there.
    if (earlier !== undefined) stays[before] = { ...earlier, last, ...written };
    else stays.push({ leaf, fetch, first, last, ...written });
  }
  return { ...schedule, stays: endWrites(stays) };
}

/** Every step that reads or changes a tensor on disk, in order. */
function usesOf({ steps, assigned }: Schedule, onDisk: (leaf: Node) => boolean): Use[] {
  return steps.flatMap((step, index) => {
    const changed = new Set(changedBy(step, assigned).map(nameOf));
    const leaves = new Map<string, Node>();
    for (const leaf of [...readBy(step, assigned), ...changedBy(step, assigned)]) leaves.set(nameOf(leaf), leaf);
    return [...leaves.values()]
      .filter(onDisk)
      .map((leaf): Use => ({ leaf, step: index, changes: changed.has(nameOf(leaf)) }));
  });
}

/** Leaves, and what was assigned to them, since it lies in their place. */
function readBy(step: Step, assigned: ReadonlyMap<Node, Node>): Node[] {
  return step.reads.flatMap(({ node }) => (node.op === leafOp ? node : (assigned.get(node) ?? [])));
}

function changedBy(step: Step, assigned: ReadonlyMap<Node, Node>): Node[] {
  if (step.again) return [];
  return step.writes.flatMap(({ node }) => assigned.get(node) ?? []);
}

const nameOf = (leaf: Node): string => leafAttributes(leaf).name;

/** Bytes of a leaf as it lies on disk and in memory. */
export function bytesOfLeaf(leaf: Node): number {
  const { format, shape } = leafAttributes(leaf);
  return bytesOf(storageFormat(format), shape);
}

/** Bytes of the largest block: tensors whose names agree up to the first number in them. */
function largestGroup(leaves: readonly Node[]): number {
  const groups = new Map<string, Map<string, number>>();
  for (const leaf of leaves) {
    const name = nameOf(leaf);
    const block = blockOfName(name);
    if (block === undefined) continue;
    const group = groups.get(block) ?? new Map<string, number>();
    groups.set(block, group.set(name, bytesOfLeaf(leaf)));
  }
  const sizes = [...groups.values()].map((group) => [...group.values()].reduce((total, bytes) => total + bytes, 0));
  return sizes.reduce((most, bytes) => Math.max(most, bytes), 0);
}

/** What the names of a block's tensors have in common: all up to the first number. */
function blockOfName(name: string): string | undefined {
  return /^.*?\.\d+(?=\.)/.exec(name)?.[0];
}

/** Stays of one block, one after the other. */
interface Visit {
  readonly block: string;
  readonly stays: Stay[];
  readonly first: number;
  last: number;
}

/** The stays of blocks that come and go as wholes. */
function stayByVisit(gathered: readonly Gathered[], steps: number, overlap: "beside" | "alone"): Stay[] {
  const visits = visitsOf(gathered.map(plainStay));
  return visits.flatMap(({ stays, first }, number) => {
    const [before, next] = [visits[number - 1], visits[number + 1]];
    return stays.map((stay): Stay => {
      const early = overlap === "alone" ? first : (before?.first ?? 0);
      const earlier = visits.slice(0, number).flatMap((visit) => visit.stays);
      const own = earlier.findLast(({ leaf }) => nameOf(leaf) === nameOf(stay.leaf));
      const fetch = Math.min(stay.first, Math.max(early, (own?.last ?? -1) + 1));
      if (stay.written === undefined) return { ...stay, fetch, visit: number };
      const done = overlap === "alone" ? stay.last + 1 : Math.max(stay.last + 1, next?.last ?? steps);
      return { ...stay, fetch, written: done, visit: number };
    });
  });
}

/** A stay that is fetched for its first use, and written, if it changes, some time after its last. */
function plainStay({ leaf, uses }: Gathered): Stay {
  const first = uses[0]?.step ?? 0;
  const last = uses.at(-1)?.step ?? first;
  return { leaf, fetch: first, first, last, ...(uses.some(({ changes }) => changes) ? { written: last + 1 } : {}) };
}

function visitsOf(stays: readonly Stay[]): Visit[] {
  const visits: Visit[] = [];
  for (const stay of stays.toSorted((a, b) => a.first - b.first)) {
    const block = blockOfName(nameOf(stay.leaf)) ?? nameOf(stay.leaf);
    const latest = visits.at(-1);
    if (latest?.block !== block) visits.push({ block, stays: [stay], first: stay.first, last: stay.last });
    else {
      latest.stays.push(stay);
      latest.last = Math.max(latest.last, stay.last);
    }
  }
  return visits;
}

interface Gathered {
  readonly leaf: Node;
  readonly uses: Use[];
}

/** Uses of one tensor that share a stay: those between which little else is used. */
function gatherStays(uses: readonly Use[], keep: number): Gathered[] {
  const stays: Gathered[] = [];
  const latest = new Map<string, { readonly stay: Gathered; readonly at: number }>();
  uses.forEach((use, at) => {
    const name = nameOf(use.leaf);
    const known = latest.get(name);
    const stay =
      known !== undefined && fitsBetween(uses, known.at, at, keep) ? known.stay : { leaf: use.leaf, uses: [] };
    if (stay.uses.length === 0) stays.push(stay);
    stay.uses.push(use);
    latest.set(name, { stay, at });
  });
  return stays;
}

/** Whether the other tensors used between two uses of one, each counted once, take no more than so many bytes. */
function fitsBetween(uses: readonly Use[], from: number, to: number, room: number): boolean {
  const seen = new Set<string>();
  let bytes = 0;
  for (let at = from + 1; at < to && bytes <= room; at++) {
    const leaf = uses[at]?.leaf;
    if (leaf === undefined || seen.has(nameOf(leaf))) continue;
    seen.add(nameOf(leaf));
    bytes += bytesOfLeaf(leaf);
  }
  return bytes <= room;
}

/** The latest step from which on so many elements are used before step `first`. */
function fetchStep(uses: readonly Use[], first: number, wanted: number): number {
  let used = 0;
  for (let at = uses.length - 1; at >= 0; at--) {
    const use = uses[at];
    if (use === undefined || use.step >= first) continue;
    used += elements(leafAttributes(use.leaf).shape);
    if (used >= wanted) return use.step;
  }
  return 0;
}

/** A write may take until the stay after the next begins, for it goes on beside the reads for that one. */
function endWrites(stays: readonly Stay[]): Stay[] {
  return stays.map((stay, index) => {
    if (stay.written === undefined) return stay;
    const later = stays.slice(index + 1).filter(({ first }) => first > stay.last + 1);
    const written = later[1]?.first ?? stay.written;
    invariant(written > stay.last, "a change is written back after it was made");
    return { ...stay, written };
  });
}
