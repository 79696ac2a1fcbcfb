/** What a kernel must do, whatever its schedule: bytes over the memory bus, and arithmetic. */
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import { elements } from "../ir/shape.js";
import { attentionAttributes, attentionBackwardOp, attentionOp, attentionSizes } from "../ops/attention.js";
import {
  linearCrossEntropyGradientOp,
  linearCrossEntropyOp,
  linearCrossEntropyWeightGradientOp,
} from "../ops/cross-entropy.js";
import { gatherOp, scatterAddOp, scatterMaximumOp, scatterWriteOp } from "../ops/gather.js";
import { sampledDotOp, sparseDotOp } from "../ops/sparse.js";
import type { Kernel, Operand } from "../passes/kernels.js";
import { storageOf } from "../passes/kernels.js";
import { bytesOfValue } from "./layout.js";

/** The length of the sum of a product: a is stored [M, K], or [K, M] where transposed. */
export function depthOf({ shape, transposed }: Operand): number {
  return must(shape.at(transposed ? -2 : -1), "depth");
}

/** Nodes whose values exist only inside the kernel, outputs included. */
function insideOf(outputs: readonly Node[], inputs: readonly Node[]): Node[] {
  const known = new Set(inputs);
  const inside = new Set<Node>();
  const visit = (node: Node): void => {
    if (inside.has(node) || (known.has(storageOf(node)) && !outputs.includes(node))) return;
    inside.add(node);
    node.inputs.forEach(visit);
  };
  outputs.forEach(visit);
  return [...inside];
}

function operationsOf(node: Node): number {
  const { kind } = node.op.lowering;
  if (kind === "elementwise") return elements(node.shape);
  return kind === "reduce" ? elements(must(node.inputs[0], "input").shape) : 0;
}

/** Additions and multiplications of one run; a function such as exp counts as one. */
export function operations(kernel: Kernel): number {
  switch (kernel.kind) {
    case "loops":
      return insideOf(kernel.outputs, kernel.inputs).reduce((sum, node) => sum + operationsOf(node), 0);
    case "contraction": {
      const depth = kernel.segments.reduce((sum, { a }) => sum + depthOf(a), 0);
      return 2 * kernel.batch * kernel.rows * kernel.columns * depth;
    }
    case "fixed":
      return fixedOperations(kernel.node);
  }
}

/** Ops that work through the logits block by block: for the loss alone, with dx, and a second time for dW. */
export function isLossOp(op: OpDefinition): boolean {
  return (
    op === linearCrossEntropyOp || op === linearCrossEntropyGradientOp || op === linearCrossEntropyWeightGradientOp
  );
}

function fixedOperations(node: Node): number {
  const { op } = node;
  if (op === attentionOp || op === attentionBackwardOp) return attentionOperations(node);
  if (isLossOp(op)) {
    const [x, weight] = [must(node.inputs[0], "x"), must(node.inputs[1], "weight")];
    const [rows = 0, depth = 0] = x.shape;
    const product = 2 * rows * depth * must(weight.shape[0], "vocabulary");
    return op === linearCrossEntropyOp ? product : 2 * product;
  }
  if (op === sparseDotOp || op === sampledDotOp) {
    const entries = elements(must(node.inputs[op === sparseDotOp ? 1 : 2], "places").shape);
    return 2 * must(must(node.inputs[0], "operand").shape[0], "tokens") * entries;
  }
  return op === scatterAddOp ? elements(must(node.inputs[2], "updates").shape) : 0;
}

/** Two products forward, and five backward (the scores are made again); half of each where a query sees only the past. */
function attentionOperations(node: Node): number {
  const [q, k] = [must(node.inputs[0], "q"), must(node.inputs[1], "k")];
  const { batch, heads, queries, keys, width } = attentionSizes(q, k);
  const { causal, window } = attentionAttributes(node.attributes);
  const past = causal && queries === keys ? (queries + 1) / 2 : keys;
  const seen = window > 0 ? Math.min(past, window) : past;
  return (node.op === attentionBackwardOp ? 5 : 2) * 2 * batch * heads * queries * seen * width;
}

/** Bytes that one run must read and write at least: every input and output once, of gathered tables the rows in use. */
export function bytesMoved(kernel: Kernel): number {
  const read = kernel.inputs.reduce((sum, input) => sum + bytesRead(kernel, input), 0);
  const written = kernel.outputs.reduce((sum, output) => sum + bytesWritten(kernel, output), 0);
  return read + written;
}

function bytesRead(kernel: Kernel, input: Node): number {
  const whole = bytesOfValue(input);
  if (kernel.kind === "fixed") return isScattered(kernel.node, input) ? updatesOf(kernel.node) : whole;
  if (kernel.kind !== "loops") return whole;
  const readers = insideOf(kernel.outputs, kernel.inputs).filter((node) =>
    node.inputs.some((one) => storageOf(one) === input),
  );
  const [rows = 1] = input.shape;
  const gathered = readers.every((node) => node.op === gatherOp && storageOf(must(node.inputs[0], "table")) === input);
  if (!gathered || readers.length === 0) return whole;
  return Math.min(
    whole,
    readers.reduce((sum, node) => sum + (whole / rows) * (node.shape[0] ?? 0), 0),
  );
}

function bytesWritten(kernel: Kernel, output: Node): number {
  const scatters = kernel.kind === "fixed" && isScatter(kernel.node.op);
  return scatters ? updatesOf(kernel.node) : bytesOfValue(output);
}

/** The base of a scatter: only the rows that updates go to are touched, where it works in place. */
function isScattered({ op, inputs }: Node, input: Node): boolean {
  return isScatter(op) && storageOf(must(inputs[0], "base")) === input;
}

/** Ops that change rows of a base in place. */
export function isScatter(op: OpDefinition): boolean {
  return op === scatterAddOp || op === scatterWriteOp || op === scatterMaximumOp;
}

function updatesOf(node: Node): number {
  return bytesOfValue(must(node.inputs[2], "updates"));
}
