import type { Node } from "../ir/node.js";
import { elements } from "../ir/shape.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { placeOf } from "./fuse.js";
import type { Kernel } from "./kernels.js";
import { blockOf } from "./saved.js";

/** Ids of nodes are less than half of this. */
const spread = 2 ** 32;

/**
 * For programs whose passes go through the model side by side: the place of each kernel in an order in which all of
 * them compute a block before any goes on to the next. What hangs on no pass, such as the update of a weight, belongs to
 * the first visit that reads what it makes, or the tensor that it changes, and comes first in it: then one pass after the
 * other goes through the block, so that values inside a block are there for one pass only.
 */
export function visitOrder(
  kernels: readonly Kernel[],
  producers: ReadonlyMap<Node, Kernel>,
  assigned: ReadonlyMap<Node, Node>,
): (kernel: Kernel) => number {
  const visits = new Visits(kernels, producers, assigned);
  const places = new Map(kernels.map((kernel) => [kernel, visits.of(kernel) * spread + placeOf(kernel)]));
  return (kernel) => places.get(kernel) ?? placeOf(kernel);
}

/** The number of each kernel's visit: 2 k + 1 in block k, 2 k + 2 behind it, outside of blocks. */
class Visits {
  /** 0 of what hangs on no pass. */
  readonly #inPass = new Map<Kernel, number>();
  readonly #readers = new Map<Node, Kernel[]>();
  /** The first visit that reads each tensor, by name. */
  readonly #tensors = new Map<string, number>();
  readonly #loose = new Map<Kernel, number>();

  constructor(
    kernels: readonly Kernel[],
    private readonly producers: ReadonlyMap<Node, Kernel>,
    private readonly assigned: ReadonlyMap<Node, Node>,
  ) {
    for (const kernel of kernels) {
      for (const input of kernel.inputs) {
        const readers = this.#readers.get(input);
        if (readers === undefined) this.#readers.set(input, [kernel]);
        else readers.push(kernel);
      }
    }
    for (const kernel of kernels) this.#noteTensors(kernel, this.#visitInPass(kernel));
    const loose = kernels.filter((kernel) => this.#visitInPass(kernel) === 0);
    for (const kernel of loose) this.#noteTensors(kernel, this.#visitOfLoose(kernel));
    // What changes a tensor that no pass reads (a moment) goes with what reads it for an update.
    for (const kernel of loose) {
      if (this.#visitOfLoose(kernel) < Infinity) continue;
      const found = tensorsOf(kernel).map((name) => this.#tensors.get(name) ?? Infinity);
      this.#loose.set(kernel, Math.min(spread, ...found));
    }
  }

  of(kernel: Kernel): number {
    const own = this.#visitInPass(kernel);
    return own > 0 ? own : this.#visitOfLoose(kernel) - 0.5;
  }

  #noteTensors(kernel: Kernel, visit: number): void {
    if (visit === 0 || visit === Infinity) return;
    for (const name of tensorsOf(kernel)) {
      this.#tensors.set(name, Math.min(this.#tensors.get(name) ?? Infinity, visit));
    }
  }

  #visitInPass(kernel: Kernel): number {
    const known = this.#inPass.get(kernel);
    if (known !== undefined) return known;
    const makers = kernel.inputs.flatMap((input) => this.producers.get(input) ?? []);
    const before = makers.reduce((most, maker) => Math.max(most, this.#visitInPass(maker)), 0);
    const block = kernel.outputs.map(blockOf).find((name) => name !== undefined);
    const behind = before % 2 === 1 ? before + 1 : before;
    const visit = block === undefined ? behind : Math.max(before, 2 * Number(block.slice("blocks.".length)) + 1);
    this.#inPass.set(kernel, visit);
    return visit;
  }

  #visitOfLoose(kernel: Kernel): number {
    const known = this.#loose.get(kernel);
    if (known !== undefined) return known;
    // Readers come after it in any order, so that this ends.
    const visits = kernel.outputs.flatMap((output) => [
      ...(this.#readers.get(output) ?? []).map((reader) => Math.ceil(this.of(reader))),
      this.#visitOfTarget(output),
    ]);
    const visit = Math.min(...visits);
    this.#loose.set(kernel, visit);
    return visit;
  }

  #visitOfTarget(output: Node): number {
    const target = this.assigned.get(output);
    return target === undefined ? Infinity : (this.#tensors.get(leafAttributes(target).name) ?? Infinity);
  }
}

/** Names of the tensors, numbers left out, that a kernel reads. */
function tensorsOf({ inputs }: Kernel): string[] {
  const leaves = inputs.filter((input) => input.op === leafOp && elements(input.shape) > 1);
  return leaves.map((input) => leafAttributes(input).name);
}
