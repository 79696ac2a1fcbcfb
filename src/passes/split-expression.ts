import type { Node } from "../ir/node.js";
import { sizeOf } from "../ir/dtype.js";
import { elements } from "../ir/shape.js";
import type { Fits } from "./bindings.js";
import { bindingError } from "./contractions.js";
import { boundary } from "./expressions.js";
import type { LoopsKernel } from "./kernels.js";
import { isFusible, storageOf } from "./kernels.js";

/**
 * Stores values inside an expression until it reads no more than a target can bind: of those that bring it within the
 * limit the smallest, else the one that leaves the fewest values to read.
 */
export function splitExpression(
  { outputs }: LoopsKernel,
  stored: Set<Node>,
  isStored: (node: Node) => boolean,
  fits: Fits,
): void {
  const form = (output: Node, more?: Node): LoopsKernel => ({
    kind: "loops",
    outputs: [output],
    inputs: boundary([output], (node) => node === more || isStored(node)),
  });
  for (const output of outputs) {
    while (!fits(form(output))) {
      const options = insideOf(output, isStored)
        .filter((node) => fits(form(node)))
        .map((node): Option => {
          const rest = form(output, node);
          return { node, fits: fits(rest), left: rest.inputs.length, bytes: elements(node.shape) * sizeOf(node.dtype) };
        });
      const [best] = options.sort(compare);
      if (best === undefined) throw bindingError(output);
      stored.add(best.node);
    }
  }
}

interface Option {
  readonly node: Node;
  /** Whether storing this value is enough. */
  readonly fits: boolean;
  readonly left: number;
  readonly bytes: number;
}

function compare(a: Option, b: Option): number {
  if (a.fits !== b.fits) return a.fits ? -1 : 1;
  // Conditions are last: a byte an element is not a size that every target can store.
  const conditions = Number(a.node.dtype === "bool") - Number(b.node.dtype === "bool");
  const order = a.fits ? a.bytes - b.bytes || a.left - b.left : a.left - b.left || a.bytes - b.bytes;
  return conditions || order || b.node.id - a.node.id;
}

/** Values computed inside an expression from at least two others in memory, in a size that is worth storing. */
function insideOf(output: Node, isStored: (node: Node) => boolean): Node[] {
  const found = new Set<Node>();
  const visit = (node: Node): void => {
    for (const input of node.inputs.map(storageOf)) {
      if (found.has(input) || !isFusible(input) || isStored(input)) continue;
      found.add(input);
      visit(input);
    }
  };
  visit(output);
  return [...found].filter((node) => {
    const [source] = node.inputs;
    const repeats = source !== undefined && node.op.lowering.kind === "movement" && grows(source, node);
    return !repeats && boundary([node], isStored).length > 1;
  });
}

function grows(source: Node, node: Node): boolean {
  return elements(node.shape) > elements(source.shape);
}
