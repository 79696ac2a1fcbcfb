import { invariant, must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { boundary, placeOf } from "./fuse.js";
import type { Kernel } from "./kernels.js";
import { storageOf } from "./kernels.js";
import type { ForwardBackward } from "./saved.js";

/** One execution of a kernel. A value made more than once has an instance each time. */
export interface Step {
  readonly kernel: Kernel;
  readonly reads: readonly Instance[];
  readonly writes: readonly Instance[];
  /** Made again for backward. */
  readonly again: boolean;
  readonly forward: boolean;
}

/** A value at one of the times that it exists. Leaves have one instance, their place in memory. */
export interface Instance {
  readonly node: Node;
  readonly turn: number;
}

/** The order in which a program's kernels run. */
export interface Schedule {
  readonly steps: readonly Step[];
  /** Assigned leaves by the value that they get. */
  readonly assigned: ReadonlyMap<Node, Node>;
}

/**
 * Orders the kernels: forward in the order of the graph, backward likewise, each update as soon as its gradient and
 * the last read of the old value allow; values that are not kept are made again just before they are read.
 */
export function schedule(program: Program, kernels: readonly Kernel[], split: ForwardBackward): Schedule {
  const assigned = assignments(program);
  const producers = new Map<Node, Kernel>();
  for (const kernel of kernels) for (const output of kernel.outputs) producers.set(output, kernel);
  const order = orderKernels(kernels, producers, assigned, split);
  return { steps: unroll(order, producers, split), assigned };
}

function assignments(program: Program): Map<Node, Node> {
  const assigned = new Map<Node, Node>();
  for (const phase of program.phases) {
    for (const { target, value } of phase.assignments) {
      invariant(!assigned.has(storageOf(value)), "a value is assigned to two leaves");
      assigned.set(storageOf(value), target);
    }
  }
  return assigned;
}

/** The leaves that a kernel reads, including through values that are made again for it. */
function leavesRead(kernel: Kernel, producers: ReadonlyMap<Node, Kernel>, recomputed: ReadonlySet<Node>): Set<Node> {
  const leaves = new Set<Node>();
  const visit = (node: Node): void => {
    if (node.op === leafOp) leaves.add(node);
    else if (recomputed.has(node)) must(producers.get(node), "producer").inputs.forEach(visit);
  };
  kernel.inputs.forEach(visit);
  return leaves;
}

function orderKernels(
  kernels: readonly Kernel[],
  producers: ReadonlyMap<Node, Kernel>,
  assigned: ReadonlyMap<Node, Node>,
  split: ForwardBackward,
): Kernel[] {
  const before = new Map<Kernel, Set<Kernel>>(kernels.map((kernel) => [kernel, new Set<Kernel>()]));
  const readers = new Map<Node, Kernel[]>();
  for (const kernel of kernels) {
    const edges = must(before.get(kernel), "edges");
    for (const input of kernel.inputs) {
      const producer = producers.get(input);
      if (producer !== undefined && producer !== kernel) edges.add(producer);
    }
    const recomputed = split.forward.has(kernel) ? new Set<Node>() : split.recomputed;
    for (const leaf of leavesRead(kernel, producers, recomputed))
      readers.set(leaf, [...(readers.get(leaf) ?? []), kernel]);
  }
  // A leaf is overwritten only after everything that reads its old value.
  for (const kernel of kernels) {
    for (const output of kernel.outputs) {
      const target = assigned.get(output);
      if (target === undefined) continue;
      for (const reader of readers.get(target) ?? [])
        if (reader !== kernel) must(before.get(kernel), "edges").add(reader);
    }
  }
  return topological(kernels, before, (kernel) => priority(kernel, assigned, split));
}

/** Smaller runs first among what is ready: updates at once, then the order of the graph. */
function priority(kernel: Kernel, assigned: ReadonlyMap<Node, Node>, split: ForwardBackward): number {
  if (split.forward.has(kernel)) return placeOf(kernel);
  const updates = kernel.outputs.every((output) => assigned.has(output));
  return updates ? -1 : placeOf(kernel);
}

function topological(
  kernels: readonly Kernel[],
  before: ReadonlyMap<Kernel, ReadonlySet<Kernel>>,
  key: (kernel: Kernel) => number,
): Kernel[] {
  const waiting = new Map<Kernel, number>();
  const after = new Map<Kernel, Kernel[]>();
  for (const kernel of kernels) {
    const edges = before.get(kernel) ?? new Set<Kernel>();
    waiting.set(kernel, edges.size);
    for (const earlier of edges) after.set(earlier, [...(after.get(earlier) ?? []), kernel]);
  }
  const ready = kernels.filter((kernel) => waiting.get(kernel) === 0).sort((a, b) => key(a) - key(b));
  const order: Kernel[] = [];
  for (let next = ready.shift(); next !== undefined; next = ready.shift()) {
    order.push(next);
    for (const later of after.get(next) ?? []) {
      const left = must(waiting.get(later), "count") - 1;
      waiting.set(later, left);
      if (left > 0) continue;
      const place = ready.findIndex((other) => key(other) > key(later));
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

/** Turns the order into executions, inserting those that make values again. */
function unroll(order: readonly Kernel[], producers: ReadonlyMap<Node, Kernel>, split: ForwardBackward): Step[] {
  const steps: Step[] = [];
  const current = new Map<Node, Instance>();
  const again = new Map<Node, Instance>();
  const instanceFor = (node: Node, backward: boolean): Instance => {
    if (node.op === leafOp) return leafInstance(node, current);
    if (!backward || !split.recomputed.has(node))
      return must(current.get(node), `value of ${node.op.name} ${node.scope}`);
    const known = again.get(node);
    if (known !== undefined) return known;
    remake(node);
    return must(again.get(node), "recomputed value");
  };
  const remake = (node: Node): void => {
    const kernel = must(producers.get(node), "producer");
    const wanted = kernel.outputs.filter((output) => split.recomputed.has(output) && !again.has(output));
    const part = kernel.kind === "loops" ? withOutputs(kernel, wanted) : kernel;
    const reads = part.inputs.map((input) => instanceFor(input, true));
    const writes = part.outputs.map((output): Instance => ({ node: output, turn: 1 }));
    for (const write of writes) if (split.recomputed.has(write.node)) again.set(write.node, write);
    steps.push({ kernel: part, reads, writes, again: true, forward: false });
  };
  for (const kernel of order) {
    const backward = !split.forward.has(kernel);
    const reads = kernel.inputs.map((input) => instanceFor(input, backward));
    const writes = kernel.outputs.map((output): Instance => ({ node: output, turn: 0 }));
    for (const write of writes) current.set(write.node, write);
    steps.push({ kernel, reads, writes, again: false, forward: !backward });
  }
  return steps;
}

function leafInstance(node: Node, current: Map<Node, Instance>): Instance {
  const known = current.get(node) ?? { node, turn: 0 };
  current.set(node, known);
  return known;
}

/** The same kernel for some of its outputs; the others, if it needs them, are read. */
function withOutputs(kernel: Extract<Kernel, { kind: "loops" }>, outputs: readonly Node[]): Kernel {
  if (outputs.length === kernel.outputs.length) return kernel;
  const dropped = kernel.outputs.filter((output) => !outputs.includes(output));
  const known = new Set([...kernel.inputs, ...dropped]);
  return { kind: "loops", outputs, inputs: boundary(outputs, (node) => known.has(node)) };
}
