import type { Node } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import type { Program } from "../ir/program.js";
import { elements } from "../ir/shape.js";
import {
  linearCrossEntropyGradientOp,
  linearCrossEntropyOp,
  linearCrossEntropyWeightGradientOp,
} from "../ops/cross-entropy.js";
import { dotOp } from "../ops/dot.js";
import { expandOp } from "../ops/layout.js";
import { result } from "../ops/leaves.js";
import { isAlone } from "../ops/reduce.js";
import type { Fits } from "./bindings.js";
import { formContractions, operandStorage } from "./contractions.js";
import { formLoops } from "./expressions.js";
import type { FixedKernel, Kernel, LoopsKernel } from "./kernels.js";
import { isFusible, storageOf } from "./kernels.js";
import { mergeLoops } from "./merge.js";
import { lossWeight } from "./operand-expression.js";
import { phasesOf } from "./phases.js";
import { splitExpression } from "./split-expression.js";
import { Uses } from "./uses.js";

/** Divides a program into kernels; the order is that of the values they make, to be refined by the schedule. */
export function fuse(program: Program, fits: Fits = () => true): Kernel[] {
  const uses = new Uses(program);
  const phases = phasesOf(program);
  const contractions = formContractions(uses, phases, fits);
  const fixed = formFixed(uses);
  const saved = (program.saved ?? []).filter((node) => uses.has(node));
  const alone = new Set(uses.nodes.filter(isAlone).map(storageOf));
  const needed = new Set<Node>([...[...uses.roots, ...phases.kept, ...saved].map(storageOf), ...alone]);
  for (const kernel of [...contractions, ...fixed]) for (const input of kernel.inputs) needed.add(input);
  for (const kernel of contractions) for (const output of kernel.outputs) needed.delete(output);
  const known = new Set(contractions.flatMap((kernel) => kernel.outputs));
  const stored = chooseStored(uses, needed, known);
  const loops = formAllLoops(stored, known, fits);
  const merged = mergeLoops(loops, [...contractions, ...fixed], { program, phases, fits, alone });
  const roots = new Set([...uses.roots, ...phases.kept].map(storageOf));
  return withoutPrivate([...merged, ...contractions, ...fixed], roots).sort(byPlace);
}

/** Values that only the kernel which makes them reads need no memory: they stay inside it. */
function withoutPrivate(kernels: readonly Kernel[], roots: ReadonlySet<Node>): Kernel[] {
  const read = new Set(kernels.flatMap((kernel) => kernel.inputs));
  return kernels.map((kernel) => {
    if (kernel.kind !== "loops") return kernel;
    const outputs = kernel.outputs.filter((output) => roots.has(output) || read.has(output));
    return outputs.length === kernel.outputs.length ? kernel : { ...kernel, outputs };
  });
}

/** Where a kernel stands in the order of the graph: after everything that it reads. */
export function placeOf(kernel: Kernel): number {
  return kernel.kind === "fixed" ? kernel.node.id : Math.max(...kernel.outputs.map((output) => output.id));
}

function byPlace(a: Kernel, b: Kernel): number {
  return placeOf(a) - placeOf(b);
}

/** Ops with kernels of their own. Outputs of a tuple that nothing reads are still written: their buffers are scratch. */
function formFixed(uses: Uses): FixedKernel[] {
  return uses.nodes.flatMap((node) => {
    if (node.op.lowering.kind !== "kernel" || node.op === dotOp) return [];
    return [fixedKernel(node)];
  });
}

/** They take a weight in any storage format, and round it to bf16 themselves. */
const lossOps: ReadonlySet<OpDefinition> = new Set([
  linearCrossEntropyOp,
  linearCrossEntropyGradientOp,
  linearCrossEntropyWeightGradientOp,
]);

/** The kernel of a fused op. */
export function fixedKernel(node: Node): FixedKernel {
  const rounding = lossOps.has(node.op);
  const computed = lossWeight(node);
  const inputs = node.inputs.flatMap((input, index) => {
    if (!rounding || index !== 1) return [storageOf(input)];
    return computed === undefined ? [operandStorage(input)] : [computed.base, ...computed.scalars];
  });
  return { kind: "fixed", node, inputs: [...new Set(inputs)], outputs: outputsOf(node) };
}

/** The values of a tuple node (or the node itself), in order. */
export function outputsOf(node: Node): Node[] {
  return node.types.map((_, index) => result(node, index));
}

const heavyOps: Readonly<Record<string, number>> = {
  exp: 8,
  log: 8,
  sin: 8,
  cos: 8,
  tanh: 8,
  sigmoid: 8,
  normal: 16,
  divide: 3,
  sqrt: 3,
};

/**
 * Which generated values lie in memory: those that kernels and effects need, reductions, and what is dear to compute
 * and read in many places. All others are computed where they are read.
 */
function chooseStored(uses: Uses, needed: ReadonlySet<Node>, made: ReadonlySet<Node>): Set<Node> {
  const stored = new Set<Node>();
  const inline = new Map<Node, Inline>();
  for (const node of uses.nodes) {
    if (!isFusible(node) || made.has(node) || storageOf(node) !== node) continue;
    const own = inlineOf(node, inline);
    const keep = needed.has(node) || node.op.lowering.kind === "reduce" || isDearAndShared(node, own, uses);
    if (keep) stored.add(node);
    else inline.set(node, own);
  }
  return onlyReachable(stored, needed, uses);
}

/** What it takes to compute a value where it is read. */
interface Inline {
  readonly cost: number;
  /** Values in memory, about as large as the value itself, that its expression reads. */
  readonly reads: ReadonlySet<Node>;
  /** Whether it reads anything but scalars: a function of the element's index alone is made again everywhere. */
  readonly touches: boolean;
}

function inlineOf(node: Node, inline: ReadonlyMap<Node, Inline>): Inline {
  const reads = new Set<Node>();
  let cost = heavyOps[node.op.name] ?? (node.op.lowering.kind === "elementwise" ? 1 : 0);
  let touches = false;
  for (const input of node.inputs.map(storageOf)) {
    const inner = inline.get(input);
    cost += inner?.cost ?? 0;
    touches ||= inner?.touches ?? (input.op.lowering.kind !== "index" && elements(input.shape) > 1);
    const own = input.op.lowering.kind === "index" ? [] : [input];
    for (const read of inner?.reads ?? own) if (elements(read.shape) * 2 > elements(node.shape)) reads.add(read);
  }
  return { cost, reads, touches };
}

/** Reading three values in each of two places is more traffic than storing one; sums along a model would grow and grow. */
function isDearAndShared(node: Node, { cost, reads, touches }: Inline, uses: Uses): boolean {
  if (!touches) return false;
  const readers = readersOf(node, uses);
  if (readers.length > 1 && reads.size > 2) return true;
  if (cost < 8) return false;
  const grows = readers.some((reader) => reader.op === expandOp && elements(reader.shape) >= 4 * elements(node.shape));
  return grows || readers.length > 4;
}

/** Readers of a value, seen through reshapes. */
function readersOf(node: Node, uses: Uses): Node[] {
  return uses
    .consumers(node)
    .flatMap((reader) => (storageOf(reader) === storageOf(node) ? readersOf(reader, uses) : [reader]));
}

/** Drops stored values that no stored or needed value reads any more (they are inside an epilogue). */
function onlyReachable(stored: ReadonlySet<Node>, needed: ReadonlySet<Node>, uses: Uses): Set<Node> {
  const kept = new Set<Node>();
  const visit = (node: Node): void => {
    if (kept.has(node)) return;
    kept.add(node);
    const { inputs } = formLoops(node, (value) => stored.has(value) && value !== node);
    inputs.filter((input) => stored.has(input)).forEach(visit);
  };
  for (const node of uses.nodes) if (needed.has(node) && stored.has(node)) visit(node);
  return kept;
}

/** A kernel for every stored value; more values are stored where an expression reads more than a target binds. */
function formAllLoops(stored: Set<Node>, known: ReadonlySet<Node>, fits: Fits): LoopsKernel[] {
  const isStored = (value: Node): boolean => stored.has(value) || known.has(value);
  const form = (): LoopsKernel[] => [...stored].sort((a, b) => a.id - b.id).map((node) => formLoops(node, isStored));
  let kernels = form();
  while (!kernels.every(fits)) {
    for (const kernel of kernels) splitExpression(kernel, stored, isStored, fits);
    kernels = form();
  }
  return kernels;
}
