import { undoneScope } from "../autodiff/reversible.js";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { reachable } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { forwardEnds } from "../ir/program.js";
import type { Shape } from "../ir/shape.js";
import { elements, sameShape } from "../ir/shape.js";
import type { Fits } from "./bindings.js";
import type { Kernel, LoopsKernel } from "./kernels.js";
import { storageOf } from "./kernels.js";
import type { Phases } from "./phases.js";

/** What merging goes by besides the kernels themselves. */
export interface MergeRules {
  readonly program: Program;
  readonly phases: Phases;
  readonly fits: Fits;
  /** Values that the kernel which makes them does not read. */
  readonly alone: ReadonlySet<Node>;
}

/**
 * Joins generated kernels that run over the same rows and share what they read, so that a row is loaded once: the
 * three results of an AdamW step, a norm and its row statistics, both gradients of a gated activation.
 */
export function mergeLoops(
  loops: readonly LoopsKernel[],
  others: readonly Kernel[],
  { program, phases, fits, alone }: MergeRules,
): LoopsKernel[] {
  const forward = new Set(reachable(forwardEnds(program)));
  const early = program.phases.slice(0, -1).flatMap(({ assignments }) => assignments);
  const assigned = new Set(early.map(({ value }) => storageOf(value)));
  const saved = new Set((program.saved ?? []).map(storageOf));
  const saves = ({ outputs }: LoopsKernel): boolean => outputs.some((output) => saved.has(output));
  const groups: Group[] = loops.map((kernel) => ({ kernel, merged: false }));
  const producers = new Producers([...loops, ...others]);
  const readers = new Map<Node, Set<number>>();
  const apart = (a: LoopsKernel, b: LoopsKernel): boolean => {
    const [first, second] = [must(a.outputs[0], "output"), must(b.outputs[0], "output")];
    if (forward.has(first) !== forward.has(second) || phases.of(first) !== phases.of(second)) return true;
    if (a.outputs.some((value) => alone.has(value) && b.inputs.includes(value))) return true;
    // Reversible layers are undone one after the other: none of them waits for the gradients of the one above it.
    if (undoneOf(first) !== undoneOf(second) && !a.outputs.some((value) => b.inputs.includes(value))) return true;
    // Of two values that are made for backward, one from the other, it may keep the one and make the other again.
    if (saves(a) && saves(b) && (isMadeFrom(a, b) || isMadeFrom(b, a))) return true;
    // A phase that replaces what it reads must not wait for its own replacement.
    return assigned.has(first) !== assigned.has(second);
  };
  groups.forEach((group, place) => {
    const partner = candidates(group.kernel, readers, producers).find((index) => {
      const other = must(groups[index], "group").kernel;
      if (apart(other, group.kernel) || !mayMerge(other, group.kernel)) return false;
      return fits(join(other, group.kernel)) && !producers.dependsIndirectly(group.kernel, other);
    });
    if (partner !== undefined) {
      const target = must(groups[partner], "group");
      target.kernel = join(target.kernel, group.kernel);
      group.merged = true;
      producers.add(target.kernel);
    }
    const at = partner ?? place;
    for (const value of [...group.kernel.inputs, ...group.kernel.outputs]) {
      const known = readers.get(value);
      if (known === undefined) readers.set(value, new Set([at]));
      else known.add(at);
    }
  });
  return groups.filter((group) => !group.merged).map((group) => group.kernel);
}

function isMadeFrom({ inputs }: LoopsKernel, { outputs }: LoopsKernel): boolean {
  return inputs.some((input) => outputs.includes(input));
}

const undoneLayer = new RegExp(`${undoneScope}\\.\\d+\\.\\d+`);

/** The reversible layer that a value is made of again, or for; undefined for all others. */
function undoneOf({ scope }: Node): string | undefined {
  return undoneLayer.exec(scope)?.[0];
}

interface Group {
  kernel: LoopsKernel;
  merged: boolean;
}

/** Earlier groups that share a full-size value with the kernel, or a value that a group makes; nearest first. */
function candidates(
  kernel: LoopsKernel,
  readers: ReadonlyMap<Node, ReadonlySet<number>>,
  producers: Producers,
): number[] {
  const space = elements(spaceOf(kernel));
  const found = new Set<number>();
  for (const input of kernel.inputs) {
    // A scalar that everything reads (a loss, a clipping factor) is no reason to join the updates of a whole model.
    const made = elements(input.shape) > 1 && producers.of(input)?.kind === "loops";
    const related = elements(input.shape) * 2 > space || made;
    if (related) for (const index of readers.get(input) ?? []) found.add(index);
  }
  return [...found].sort((a, b) => b - a);
}

/** Which kernel makes each value, as kernels are joined; kernels are numbers here, for speed. */
class Producers {
  readonly #kernels: Kernel[] = [];
  readonly #numbers = new Map<Kernel, number>();
  /** Place in the graph of the newest value that each kernel makes. */
  readonly #newest: number[] = [];
  /** Number of the kernel that makes each value, by the value's place in the graph; -1 for none. */
  readonly #byValue: Int32Array;
  readonly #seen: number[] = [];
  #search = 0;

  constructor(kernels: readonly Kernel[]) {
    const last = kernels.reduce((most, { outputs }) => Math.max(most, ...outputs.map(({ id }) => id)), 0);
    this.#byValue = new Int32Array(last + 1).fill(-1);
    for (const kernel of kernels) this.add(kernel);
  }

  add(kernel: Kernel): void {
    const number = this.#kernels.push(kernel) - 1;
    this.#numbers.set(kernel, number);
    let newest = 0;
    for (const { id } of kernel.outputs) {
      this.#byValue[id] = number;
      newest = Math.max(newest, id);
    }
    this.#newest.push(newest);
    this.#seen.push(0);
  }

  of(value: Node): Kernel | undefined {
    return this.#kernels[this.#byValue[value.id] ?? -1];
  }

  /**
   * Whether `kernel` reads something that another kernel makes from the outputs of `from`. A kernel whose values all
   * precede those of `from` cannot depend on it.
   */
  dependsIndirectly(kernel: LoopsKernel, from: LoopsKernel): boolean {
    const oldest = from.outputs.reduce((least, output) => Math.min(least, output.id), Infinity);
    const source = must(this.#numbers.get(from), "number of a kernel");
    const search = ++this.#search;
    const stack: number[] = [];
    const visit = (producer: number): void => {
      if (producer < 0 || this.#seen[producer] === search || (this.#newest[producer] ?? 0) < oldest) return;
      this.#seen[producer] = search;
      stack.push(producer);
    };
    this.#seen[source] = search;
    for (const input of kernel.inputs) visit(this.#byValue[input.id] ?? -1);
    for (let number = stack.pop(); number !== undefined; number = stack.pop()) {
      for (const input of this.#kernels[number]?.inputs ?? []) {
        const producer = this.#byValue[input.id] ?? -1;
        if (producer === source) return true;
        visit(producer);
      }
    }
    return false;
  }
}

/** The shape that a kernel loops over: its outputs' own, or what it reduces row by row. */
function spaceOf(kernel: LoopsKernel): Shape {
  const shapes = kernel.outputs.map((output) =>
    output.op.lowering.kind === "reduce" ? must(output.inputs[0], "input").shape : output.shape,
  );
  return shapes.reduce((largest, shape) => (elements(shape) > elements(largest) ? shape : largest));
}

/** A reduction over trailing axes gives one value a row; any other needs a kernel of its own. */
function isRowWise(kernel: LoopsKernel): boolean {
  return kernel.outputs.every((output) => {
    if (output.op.lowering.kind !== "reduce") return true;
    const axes = output.attributes["axes"] as readonly number[];
    const rank = output.shape.length;
    const { shape } = must(output.inputs[0], "input");
    const first = Math.min(...axes);
    const trailing = shape.slice(first).every((size, axis) => size === 1 || axes.includes(first + axis));
    return trailing && first > 0 && axes.length < rank && elements(output.shape) > 1;
  });
}

/** Same shape, or the same rows with the trailing axes reduced to 1. */
function isRowsOf(shape: Shape, space: Shape): boolean {
  if (sameShape(shape, space)) return true;
  if (shape.length !== space.length) return false;
  const firstOne = shape.findIndex((size, axis) => size !== space[axis]);
  return firstOne > 0 && shape.slice(firstOne).every((size) => size === 1);
}

function mayMerge(a: LoopsKernel, b: LoopsKernel): boolean {
  if (!isRowWise(a) || !isRowWise(b)) return false;
  const [left, right] = [spaceOf(a), spaceOf(b)];
  const space = elements(left) >= elements(right) ? left : right;
  return (
    [...a.outputs, ...b.outputs].every((output) => isRowsOf(output.shape, space)) &&
    isRowsOf(left, space) &&
    isRowsOf(right, space)
  );
}

function join(a: LoopsKernel, b: LoopsKernel): LoopsKernel {
  const outputs = [...a.outputs, ...b.outputs];
  const inputs = [...new Set([...a.inputs, ...b.inputs])].filter((input) => !outputs.includes(input));
  return { kind: "loops", outputs, inputs };
}
