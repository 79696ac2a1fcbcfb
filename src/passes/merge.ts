import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { reachable } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import type { Shape } from "../ir/shape.js";
import { elements, sameShape } from "../ir/shape.js";
import type { Kernel, LoopsKernel } from "./kernels.js";

/**
 * Joins generated kernels that run over the same rows and share what they read, so that a row is loaded once: the
 * three results of an AdamW step, a norm and its row statistics, both gradients of a gated activation.
 */
export function mergeLoops(loops: readonly LoopsKernel[], others: readonly Kernel[], program: Program): LoopsKernel[] {
  const forward = new Set(program.loss === undefined ? [] : reachable([program.loss]));
  const groups = loops.map((kernel) => ({ kernel, merged: false }));
  const producers = new Map<Node, Kernel>();
  for (const kernel of [...loops, ...others]) for (const output of kernel.outputs) producers.set(output, kernel);
  const byInput = new Map<Node, number[]>();
  groups.forEach((group, place) => {
    const partner = candidates(group.kernel, groups, byInput, producers, place).find((index) => {
      const other = must(groups[index], "group").kernel;
      return mayMerge(other, group.kernel, forward) && !dependsIndirectly(group.kernel, other, producers);
    });
    if (partner !== undefined) {
      const target = must(groups[partner], "group");
      target.kernel = join(target.kernel, group.kernel);
      group.merged = true;
      for (const output of target.kernel.outputs) producers.set(output, target.kernel);
    }
    const at = partner ?? place;
    for (const value of [...group.kernel.inputs, ...group.kernel.outputs]) {
      const list = byInput.get(value) ?? [];
      if (!list.includes(at)) byInput.set(value, [...list, at]);
    }
  });
  return groups.filter((group) => !group.merged).map((group) => group.kernel);
}

interface Group {
  kernel: LoopsKernel;
  merged: boolean;
}

/** Earlier groups that share a full-size value with the kernel, nearest first. */
function candidates(
  kernel: LoopsKernel,
  groups: readonly Group[],
  byInput: ReadonlyMap<Node, readonly number[]>,
  _producers: ReadonlyMap<Node, Kernel>,
  place: number,
): number[] {
  const space = elements(spaceOf(kernel));
  const found = new Set<number>();
  for (const input of kernel.inputs) {
    const related = elements(input.shape) * 2 > space || kernelMakes(groups, byInput.get(input) ?? [], input);
    if (related) for (const index of byInput.get(input) ?? []) if (index !== place) found.add(index);
  }
  return [...found].sort((a, b) => b - a);
}

function kernelMakes(groups: readonly Group[], indices: readonly number[], value: Node): boolean {
  return indices.some((index) => must(groups[index], "group").kernel.outputs.includes(value));
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

function mayMerge(a: LoopsKernel, b: LoopsKernel, forward: ReadonlySet<Node>): boolean {
  const [first, second] = [must(a.outputs[0], "output"), must(b.outputs[0], "output")];
  if (forward.has(first) !== forward.has(second) || !isRowWise(a) || !isRowWise(b)) return false;
  const [left, right] = [spaceOf(a), spaceOf(b)];
  const space = elements(left) >= elements(right) ? left : right;
  return (
    [...a.outputs, ...b.outputs].every((output) => isRowsOf(output.shape, space)) &&
    isRowsOf(left, space) &&
    isRowsOf(right, space)
  );
}

/** Whether `kernel` reads something that another kernel makes from the outputs of `from`. */
function dependsIndirectly(kernel: LoopsKernel, from: LoopsKernel, producers: ReadonlyMap<Node, Kernel>): boolean {
  const oldest = Math.min(...from.outputs.map((output) => output.id));
  const seen = new Set<Kernel>([from]);
  const stack = kernel.inputs.filter((input) => !from.outputs.includes(input));
  for (let value = stack.pop(); value !== undefined; value = stack.pop()) {
    const producer = producers.get(value);
    if (producer === undefined || seen.has(producer) || newest(producer) < oldest) continue;
    seen.add(producer);
    for (const input of producer.inputs) {
      if (from.outputs.includes(input)) return true;
      stack.push(input);
    }
  }
  return false;
}

/** A kernel whose values all precede another's cannot depend on it. */
function newest(kernel: Kernel): number {
  return Math.max(...kernel.outputs.map((output) => output.id));
}

function join(a: LoopsKernel, b: LoopsKernel): LoopsKernel {
  const outputs = [...a.outputs, ...b.outputs];
  const inputs = [...new Set([...a.inputs, ...b.inputs])].filter((input) => !outputs.includes(input));
  return { kind: "loops", outputs, inputs };
}
