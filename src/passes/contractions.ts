import { must, ThimbleError } from "../errors.js";
import { sizeOf } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import { sameShape } from "../ir/shape.js";
import { rebuilt } from "../ir/program.js";
import { add, addOp, castOp } from "../ops/arithmetic.js";
import { dotAttributes, dotOp, dotSizes } from "../ops/dot.js";
import { expandOp } from "../ops/layout.js";
import { leafOp } from "../ops/leaves.js";
import type { Fits } from "./bindings.js";
import type { ContractionKernel, Operand } from "./kernels.js";
import { storageOf } from "./kernels.js";
import { operandExpression } from "./operand-expression.js";
import type { Phases } from "./phases.js";
import type { Uses } from "./uses.js";

const mostSegments = 8;
const deepestEpilogue = 12;

/** What forming kernels goes by. */
interface Forming {
  readonly uses: Uses;
  readonly phases: Phases;
  readonly fits: Fits;
  /** Values that some kernel computes already. */
  readonly taken: Set<Node>;
}

/** Products of a program joined into kernels: sums of products become one, and sole readers become epilogues. */
export function formContractions(uses: Uses, phases: Phases, fits: Fits): ContractionKernel[] {
  const forming: Forming = { uses, phases, fits, taken: new Set() };
  const kernels: ContractionKernel[] = [];
  for (const node of uses.nodes) {
    if (node.op === dotOp && !forming.taken.has(node)) kernels.push(formContraction(node, forming));
  }
  return kernels;
}

/** How much goes into one kernel. */
interface Extent {
  /** The whole sum that the product is part of, or the product alone. */
  readonly sum: boolean;
  readonly segments: number;
  readonly epilogue: number;
  /** Whether operands may be computed where they are packed: that reads more values. */
  readonly computes: boolean;
}

/** The largest kernel around a product that a target can bind. */
function formContraction(first: Node, forming: Forming): ContractionKernel {
  for (const extent of extents()) {
    const { kernel, claimed } = buildContraction(first, forming, extent);
    if (!forming.fits(kernel)) continue;
    for (const node of claimed) forming.taken.add(node);
    return kernel;
  }
  throw bindingError(first);
}

/** From all to least: shorter epilogues first, then fewer products in one sum, then the product alone. */
function* extents(): Generator<Extent> {
  for (const computes of [true, false]) {
    for (let segments = mostSegments; segments > 0; segments--) {
      for (let epilogue = deepestEpilogue; epilogue >= 0; epilogue--) yield { sum: true, segments, epilogue, computes };
    }
    for (let epilogue = deepestEpilogue; epilogue >= 0; epilogue--) {
      yield { sum: false, segments: 1, epilogue, computes };
    }
  }
}

export function bindingError(node: Node): ThimbleError {
  return new ThimbleError("plan-binding-count", "The target lets a kernel reach too few buffers for one operation", {
    where: node.scope,
    given: node.op.name,
    fix: "Use a target that binds more buffers to a kernel.",
  });
}

function buildContraction(
  first: Node,
  forming: Forming,
  extent: Extent,
): { readonly kernel: ContractionKernel; readonly claimed: ReadonlySet<Node> } {
  const { uses, taken } = forming;
  const compute = computeType(first);
  const top = climbSum(first, forming);
  const leaves = sumLeaves(top, forming);
  const joined = leaves.filter((node) => node.op === dotOp && !taken.has(node) && computeType(node) === compute);
  const whole = extent.sum && joined.includes(first) && isWanted(joined, uses);
  const root = whole ? top : first;
  const products = whole ? someOf(joined, first, extent.segments) : [first];
  const others = whole ? leaves.filter((node) => !products.includes(node)) : [];
  const claimed = new Set(products);
  const output = extendEpilogue(root, forming, extent.epilogue);
  const accumulator = products.reduce((sum, product) => add(sum, product));
  const epilogue = restated(
    output,
    root,
    others.reduce((sum, other) => add(sum, other), accumulator),
  );
  const epilogueInputs = epilogueOperands(epilogue, accumulator, output, forming, claimed);
  if (whole) for (const node of sumNodes(top, leaves)) claimed.add(node);
  const { batch, m, n } = sizesOf(first);
  const operands = products.map((product) => segmentOf(product, extent.computes));
  const kernel: ContractionKernel = {
    kind: "contraction",
    segments: operands,
    compute,
    batch,
    rows: m,
    columns: n,
    accumulator,
    epilogue,
    epilogueInputs,
    inputs: [
      ...new Set([...operands.flatMap(({ a, b }) => [...readsOf(a), ...readsOf(b)]), ...epilogueInputs.map(storageOf)]),
    ],
    outputs: [output],
  };
  return { kernel, claimed };
}

/** At most so many of the products, `first` among them, in their order. */
function someOf(products: readonly Node[], first: Node, most: number): Node[] {
  const others = products.filter((product) => product !== first).slice(0, most - 1);
  return products.filter((product) => product === first || others.includes(product));
}

/** A product joins a sum only if nothing else reads it. */
function isWanted(products: readonly Node[], uses: Uses): boolean {
  return (
    products.length > 0 &&
    products.every((product) => uses.soleConsumer(product) !== undefined || products.length === 1)
  );
}

/** The expression of `output` with the node `root` in it replaced by an equal one. */
function restated(output: Node, root: Node, replacement: Node): Node {
  if (output === root) return replacement;
  const made = new Map<Node, Node>([[root, replacement]]);
  const visit = (node: Node): Node => {
    const known = made.get(node);
    if (known !== undefined || node.id < root.id) return known ?? node;
    const result = rebuilt(node, node.inputs.map(visit));
    made.set(node, result);
    return result;
  };
  return visit(output);
}

function computeType(dot: Node): "f32" | "bf16" {
  return dot.inputs.every((input) => input.dtype === "bf16") ? "bf16" : "f32";
}

function sizesOf(dot: Node): ReturnType<typeof dotSizes> {
  return dotSizes(must(dot.inputs[0], "a"), must(dot.inputs[1], "b"), dotAttributes(dot.attributes));
}

function segmentOf(dot: Node, computes: boolean): { a: Operand; b: Operand } {
  const { transposeA, transposeB } = dotAttributes(dot.attributes);
  const operand = (index: number, transposed: boolean): Operand => {
    const input = must(dot.inputs[index], "operand");
    const computed = computes ? operandExpression(input) : undefined;
    if (computed !== undefined) return { node: computed.base, shape: input.shape, transposed, computed };
    return { node: operandStorage(input), shape: input.shape, transposed };
  };
  return { a: operand(0, transposeA), b: operand(1, transposeB) };
}

function readsOf({ node, computed }: Operand): Node[] {
  return [node, ...(computed?.scalars ?? [])];
}

/** A weight that is only rounded to the compute type is read as it is stored and rounded while packing. */
export function operandStorage(node: Node): Node {
  const base = storageOf(node);
  if (base.op !== castOp) return base;
  const source = storageOf(must(base.inputs[0], "input"));
  return source.op === leafOp ? source : base;
}

/** The topmost sum above a product through additions that nothing else reads and no other kernel makes. */
function climbSum(dot: Node, { uses, phases, taken }: Forming): Node {
  let top = dot;
  for (;;) {
    const next = uses.soleConsumer(top);
    if (next?.op !== addOp || taken.has(next) || phases.of(next) !== phases.of(dot)) return top;
    top = next;
  }
}

/** What a tree of additions adds up. */
function sumLeaves(top: Node, { uses, phases }: Forming): Node[] {
  const leaves: Node[] = [];
  const visit = (node: Node): void => {
    const own = node === top || (uses.soleConsumer(node) !== undefined && phases.of(node) === phases.of(top));
    if (node.op === addOp && own) node.inputs.forEach(visit);
    else leaves.push(node);
  };
  visit(top);
  return leaves;
}

/** The additions between the top of a sum and what it adds up. */
function sumNodes(top: Node, leaves: readonly Node[]): Node[] {
  return leaves.includes(top) ? [] : [top, ...top.inputs.flatMap((input) => sumNodes(input, leaves))];
}

/** The last node of the chain of sole element-wise readers above a finished sum. */
function extendEpilogue(root: Node, { uses, phases, taken }: Forming, deepest: number): Node {
  let output = root;
  for (let depth = 0; depth < deepest; depth++) {
    const next = uses.soleConsumer(output);
    if (next === undefined || taken.has(next) || !isAligned(next) || !sameShape(next.shape, root.shape)) break;
    if (phases.of(next) !== phases.of(root)) break;
    output = next;
  }
  return withoutWidening(output, root);
}

/** A value is stored in the narrowest type on its way: readers widen it again for themselves. */
function withoutWidening(output: Node, root: Node): Node {
  let narrow = output;
  for (let node = output; node !== root && node.op === castOp;) {
    const input = must(node.inputs[0], "operand");
    if (sizeOf(input.dtype) >= sizeOf(node.dtype)) break;
    narrow = input;
    node = input;
  }
  return narrow;
}

function isAligned(node: Node): boolean {
  const { kind } = node.op.lowering;
  return kind === "elementwise" || kind === "cast";
}

/**
 * What an epilogue must read from memory: its expression is cut where others read too, or where it is no map. What it
 * computes itself is claimed, so that no other kernel does.
 */
function epilogueOperands(
  epilogue: Node,
  accumulator: Node,
  output: Node,
  { uses, phases, taken }: Forming,
  claimed: Set<Node>,
): Node[] {
  const operands: Node[] = [];
  const seen = new Set<Node>([accumulator]);
  const read = (node: Node): void => {
    if (!operands.includes(node)) operands.push(node);
  };
  const visit = (node: Node): void => {
    if (seen.has(node) || node.op.lowering.kind === "index") return;
    seen.add(node);
    // Nodes made by restating have no readers of their own in the program: they are inside.
    const own = uses.soleConsumer(node) !== undefined && phases.of(node) === phases.of(output);
    const inside = node === epilogue || !uses.has(node) || own;
    if (inside && isAligned(node) && sameShape(node.shape, epilogue.shape) && !taken.has(node) && !claimed.has(node)) {
      claimed.add(node);
      node.inputs.forEach(visit);
    } else if (node.op === expandOp && isBroadcastRow(node)) read(must(node.inputs[0], "input"));
    else if (node.op.lowering.kind === "random") node.inputs.forEach(visit);
    else if (isWidening(node)) node.inputs.forEach(visit);
    else read(node);
  };
  visit(epilogue);
  claimed.add(output);
  return operands;
}

/** A cast to a wider type is made again by each reader, never stored for several. */
function isWidening(node: Node): boolean {
  return node.op === castOp && sizeOf(must(node.inputs[0], "operand").dtype) < sizeOf(node.dtype);
}

function isBroadcastRow(node: Node): boolean {
  const { shape } = must(node.inputs[0], "input");
  return shape.length === 2 && (shape[0] === 1 || shape[1] === 1);
}
