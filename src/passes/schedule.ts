import { invariant, must, ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { linearCrossEntropyWeightGradientOp } from "../ops/cross-entropy.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { placeOf } from "./fuse.js";
import type { Kernel } from "./kernels.js";
import { storageOf } from "./kernels.js";
import type { Stay } from "./place.js";
import type { ForwardBackward } from "./saved.js";
import type { Step } from "./steps.js";
import { unroll } from "./unroll.js";
import { versionKey } from "./versions.js";
import { visitOrder } from "./visits.js";

export type { Instance, Step } from "./steps.js";

/** The order in which a program's kernels run. */
export interface Schedule {
  readonly steps: readonly Step[];
  /** Assigned leaves by the value that they get. */
  readonly assigned: ReadonlyMap<Node, Node>;
  /** When the tensors that lie on disk are in memory, in the order of their first uses; see place.ts. */
  readonly stays?: readonly Stay[];
}

/**
 * Orders the kernels: forward in the order of the graph, backward likewise, each update as soon as its gradient and
 * the last read of the old value allow; values that are not kept are made again just before they are read.
 */
export function schedule(program: Program, kernels: readonly Kernel[], split: ForwardBackward): Schedule {
  const assigned = assignments(program);
  const producers = new Map<Node, Kernel>();
  for (const kernel of kernels) for (const output of kernel.outputs) producers.set(output, kernel);
  refuseStaleOutputs(program, assigned);
  const place = program.visits === true ? visitOrder(kernels, producers, assigned) : placesOf(program, kernels, split);
  const order = orderKernels(kernels, producers, assigned, split, place);
  return { steps: unroll(order, producers, split), assigned };
}

/** Assigned leaves by the value that they get. */
export function assignments(program: Program): Map<Node, Node> {
  const assigned = new Map<Node, Node>();
  for (const phase of program.phases) {
    for (const { target, value } of phase.assignments) {
      const source = storageOf(value);
      const moves = source.op === leafOp && leafAttributes(source).name !== leafAttributes(target).name;
      invariant(!moves, "what is assigned to a leaf is computed: no kernel copies another leaf");
      invariant(!assigned.has(source), "a value is assigned to two leaves");
      assigned.set(source, target);
    }
  }
  return assigned;
}

/** The host reads outputs when the program has ended: what they lie in must not have been replaced by then. */
function refuseStaleOutputs(program: Program, assigned: ReadonlyMap<Node, Node>): void {
  const replaced = new Set(
    program.phases.flatMap(({ assignments }) => assignments.map((one) => versionKey(one.target))),
  );
  for (const node of program.phases.flatMap(({ outputs }) => Object.values(outputs)).map(storageOf)) {
    const target = assigned.get(node);
    const place = target === undefined ? (node.op === leafOp ? versionKey(node) : undefined) : versionKey(target, 1);
    if (place === undefined || !replaced.has(place)) continue;
    throw new ThimbleError("phase-stale-read", "An output is a tensor that the program itself replaces", {
      where: program.name,
      given: place,
      fix: "Give out a value computed from it.",
    });
  }
}

/** The values that a kernel reads, including those read to make other values again for it. */
function allReads(kernel: Kernel, producers: ReadonlyMap<Node, Kernel>, recomputed: ReadonlySet<Node>): Set<Node> {
  const seen = new Set<Node>();
  const visit = (node: Node): void => {
    if (seen.has(node)) return;
    seen.add(node);
    if (recomputed.has(node)) must(producers.get(node), "producer").inputs.forEach(visit);
  };
  kernel.inputs.forEach(visit);
  return seen;
}

const nothing: ReadonlySet<Node> = new Set();

function orderKernels(
  kernels: readonly Kernel[],
  producers: ReadonlyMap<Node, Kernel>,
  assigned: ReadonlyMap<Node, Node>,
  split: ForwardBackward,
  place: (kernel: Kernel) => number,
): Kernel[] {
  const before = new Map<Kernel, Set<Kernel>>(kernels.map((kernel) => [kernel, new Set<Kernel>()]));
  const versions = new Versions(kernels, assigned);
  for (const kernel of kernels) {
    const edges = must(before.get(kernel), "edges");
    for (const input of kernel.inputs) {
      const producer = input.op === leafOp ? versions.writer(input) : producers.get(input);
      if (producer !== undefined && producer !== kernel) edges.add(producer);
    }
    const recomputed = split.forward.has(kernel) ? nothing : split.recomputed;
    for (const value of allReads(kernel, producers, recomputed)) versions.read(value, kernel);
  }
  // A version of a leaf is overwritten only after it was written and after everything that reads it.
  for (const kernel of kernels) {
    const edges = must(before.get(kernel), "edges");
    for (const output of kernel.outputs) {
      const target = assigned.get(output);
      if (target === undefined) continue;
      for (const earlier of versions.usersOf(target)) if (earlier !== kernel) edges.add(earlier);
    }
  }
  return topological(kernels, before, (kernel) => priority(kernel, assigned, split, place));
}

/** Who writes and who reads each version of each assigned leaf: as the leaf, or as the value that was assigned. */
class Versions {
  readonly #writers = new Map<string, Kernel>();
  readonly #readers = new Map<string, Kernel[]>();

  constructor(
    kernels: readonly Kernel[],
    private readonly assigned: ReadonlyMap<Node, Node>,
  ) {
    for (const kernel of kernels) {
      for (const output of kernel.outputs) {
        const target = assigned.get(output);
        if (target !== undefined) this.#writers.set(versionKey(target, 1), kernel);
      }
    }
  }

  /** The kernel that makes a version; none for what the leaf holds before the program. */
  writer(leaf: Node): Kernel | undefined {
    return this.#writers.get(versionKey(leaf));
  }

  read(value: Node, kernel: Kernel): void {
    const target = value.op === leafOp ? undefined : this.assigned.get(value);
    if (value.op !== leafOp && target === undefined) return;
    const key = target === undefined ? versionKey(value) : versionKey(target, 1);
    const known = this.#readers.get(key);
    if (known === undefined) this.#readers.set(key, [kernel]);
    else known.push(kernel);
  }

  usersOf(leaf: Node): readonly Kernel[] {
    const writer = this.writer(leaf);
    return [...(writer === undefined ? [] : [writer]), ...(this.#readers.get(versionKey(leaf)) ?? [])];
  }
}

/**
 * Where kernels stand in the order of the graph. What only the backward pass makes of nodes that were built with the
 * forward pass (another form of a value) comes just before its first reader, lest it be made for all blocks at once.
 */
function placesOf({ loss }: Program, kernels: readonly Kernel[], { forward }: ForwardBackward): typeof placeOf {
  if (loss === undefined) return placeOf;
  const reads = new Map<Node, number>();
  for (const kernel of kernels) {
    if (forward.has(kernel)) continue;
    for (const input of kernel.inputs) reads.set(input, Math.min(reads.get(input) ?? Infinity, placeOf(kernel)));
  }
  return (kernel) => {
    const own = placeOf(kernel);
    if (forward.has(kernel) || !kernel.outputs.every(isOfForward)) return own;
    const first = Math.min(...kernel.outputs.map((output) => reads.get(output) ?? Infinity));
    return Number.isFinite(first) ? Math.max(own, first - 0.5) : own;
  };
}

function isOfForward(node: Node): boolean {
  return node.scope.startsWith("blocks.");
}

/**
 * Smaller runs first among what is ready: updates at once, then the order of the graph. The output layer's gradient by
 * its weight, which is larger than what it is made from, waits until all else is done: it would be there while the
 * most values are saved, and where the embedding is the same tensor, for the whole backward pass.
 */
function priority(
  kernel: Kernel,
  assigned: ReadonlyMap<Node, Node>,
  split: ForwardBackward,
  place: (kernel: Kernel) => number,
): number {
  if (split.forward.has(kernel)) return place(kernel);
  if (kernel.kind === "fixed" && kernel.node.op === linearCrossEntropyWeightGradientOp) {
    const [x] = kernel.node.inputs;
    const rows = x?.shape[0] ?? 0;
    const classes = kernel.node.shape[0] ?? 0;
    if (rows < classes) return Infinity;
  }
  const updates = kernel.outputs.some((output) => assigned.has(output));
  return updates ? -1 : place(kernel);
}

function topological(
  kernels: readonly Kernel[],
  before: ReadonlyMap<Kernel, ReadonlySet<Kernel>>,
  key: (kernel: Kernel) => number,
): Kernel[] {
  const waiting = new Map<Kernel, number>();
  const after = new Map<Kernel, Kernel[]>(kernels.map((kernel) => [kernel, []]));
  for (const kernel of kernels) {
    const edges = before.get(kernel) ?? new Set<Kernel>();
    waiting.set(kernel, edges.size);
    for (const earlier of edges) must(after.get(earlier), "edges").push(kernel);
  }
  const keys = new Map(kernels.map((kernel) => [kernel, key(kernel)]));
  const keyOf = (kernel: Kernel): number => keys.get(kernel) ?? 0;
  const ready = kernels.filter((kernel) => waiting.get(kernel) === 0).sort((a, b) => keyOf(a) - keyOf(b));
  const order: Kernel[] = [];
  for (let next = ready.shift(); next !== undefined; next = ready.shift()) {
    order.push(next);
    for (const later of after.get(next) ?? []) {
      const left = must(waiting.get(later), "count") - 1;
      waiting.set(later, left);
      if (left > 0) continue;
      const place = ready.findIndex((other) => keyOf(other) > keyOf(later));
      ready.splice(place < 0 ? ready.length : place, 0, later);
    }
  }
  if (order.length !== kernels.length) refuseCycle(kernels, new Set(order));
  return order;
}

function refuseCycle(kernels: readonly Kernel[], done: ReadonlySet<Kernel>): never {
  const stuck = kernels.find((kernel) => !done.has(kernel));
  const name = stuck?.outputs[0]?.scope ?? "";
  const leaves = stuck?.inputs.filter((input) => input.op === leafOp).map((leaf) => leafAttributes(leaf).name) ?? [];
  invariant(false, `no order of the kernels lets ${leaves.join(", ")} be updated after its last read (${name})`);
}
