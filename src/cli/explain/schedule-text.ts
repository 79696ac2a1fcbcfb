/** How a kernel runs, in words: the loops that are generated, or the schedule that a fused op has. */
import { elements } from "../../ir/shape.js";
import { attentionBackwardOp, attentionOp, attentionSizes } from "../../ops/attention.js";
import { must } from "../../errors.js";
import { linearCrossEntropyOp, linearCrossEntropyWeightGradientOp } from "../../ops/cross-entropy.js";
import type { ContractionKernel, FixedKernel, Kernel, Operand } from "../../passes/kernels.js";
import { storageOf } from "../../passes/kernels.js";
import { leafAttributes, leafOp } from "../../ops/leaves.js";
import { blockSize, fewQueries } from "../../targets/c/attention.js";
import { fewRows, thinRows } from "../../targets/c/contraction-plan.js";
import { tileRows } from "../../targets/c/contraction-micro.js";
import { vocabularyBlock } from "../../targets/c/cross-entropy-plan.js";
import { lowerLoops } from "../../targets/loops/lower.js";
import { printLoopNest } from "../../targets/loops/print.js";
import type { Node } from "../../ir/node.js";
import { depthOf, isLossOp, isScatter } from "../../plan/cost.js";
import { sampledDotOp, sparseDotOp } from "../../ops/sparse.js";

/** The sizes of a kernel's work on one line. */
export function sizeText(kernel: Kernel): string {
  switch (kernel.kind) {
    case "loops":
      return kernel.outputs
        .map(({ shape }) => shape.join(" x ") || "1")
        .filter(isFirst)
        .join(", ");
    case "contraction": {
      const depths = kernel.segments.map(({ a }) => depthOf(a)).join(" + ");
      const times = kernel.batch === 1 ? "" : `${kernel.batch} of `;
      return `${times}${kernel.rows} x ${kernel.columns}, sum over ${depths}`;
    }
    case "fixed":
      return fixedSize(kernel);
  }
}

function isFirst(text: string, at: number, all: readonly string[]): boolean {
  return all.indexOf(text) === at;
}

function fixedSize({ node }: FixedKernel): string {
  if (node.op === attentionOp || node.op === attentionBackwardOp) {
    const { batch, heads, keyHeads, queries, keys, width } = attentionSizes(
      must(node.inputs[0], "q"),
      must(node.inputs[1], "k"),
    );
    return `${batch} x ${heads} heads (${keyHeads} of keys), ${queries} queries, ${keys} keys, width ${width}`;
  }
  if (isLossOp(node.op)) {
    const [x, weight] = [must(node.inputs[0], "x"), must(node.inputs[1], "weight")];
    return `${x.shape.join(" x ")}, vocabulary ${must(weight.shape[0], "vocabulary")}`;
  }
  const sizes = (one: Node): string => (one.shape.length === 0 ? "1" : one.shape.join(" x "));
  if (!isScatter(node.op)) return `${node.inputs.map(sizes).join(", ")} to ${sizes(node)}`;
  return `${elements(must(node.inputs[2], "updates").shape)} values into ${node.shape.join(" x ")}`;
}

/** The order of a kernel's loops. */
export function scheduleText(kernel: Kernel): string {
  switch (kernel.kind) {
    case "loops":
      return printLoopNest(lowerLoops(kernel));
    case "contraction":
      return contractionText(kernel);
    case "fixed":
      return fixedText(kernel);
  }
}

function contractionText(kernel: ContractionKernel): string {
  const { segments, compute, rows, columns, batch, epilogue, accumulator, epilogueInputs } = kernel;
  const lines = segments.map(({ a, b }, index) => {
    const depth = depthOf(a);
    return `${index === 0 ? "sum  =" : "     +"} a [${rows}, ${depth}] ${operandText(a)} * b [${depth}, ${columns}] ${operandText(b)}`;
  });
  const ends =
    epilogue === accumulator
      ? "stored as they are"
      : `go through an epilogue${epilogueInputs.length === 0 ? "" : ` with ${epilogueInputs.length} more values`} that ends in ${epilogue.op.name}, then are stored`;
  return [
    ...lines,
    `${batch === 1 ? "" : `${batch} such products; `}${compute === "bf16" ? "operands rounded to bf16, sums in f32" : "all in f32"}`,
    ...pathText(kernel),
    `finished sums ${ends}`,
  ].join("\n");
}

function pathText({ rows, segments }: ContractionKernel): string[] {
  const along = segments.every(({ a, b }) => !a.transposed && b.transposed);
  if (rows <= fewRows && along)
    return [`few rows: each thread takes columns and forms dot products of rows of a and b`];
  if (rows <= thinRows && segments.every(({ b }) => !b.transposed)) return ["few rows: a is held, rows of b stream by"];
  return [
    "all threads, by blocks of columns:",
    "  pack the block of b into panels (decoding it where it is packed)",
    `  for strips of ${tileRows} rows of a:`,
    `    for panels: ${tileRows} x 64 sums in registers, one fused multiply-add for each k`,
  ];
}

function operandText({ node, transposed }: Operand): string {
  const base = storageOf(node);
  const name =
    base.op === leafOp ? leafAttributes(base).name : base.scope === "" ? base.op.name : `${base.scope}:${base.op.name}`;
  const format = base.op === leafOp ? leafAttributes(base).format : base.dtype;
  return `(${name}, ${format}${transposed ? ", transposed" : ""})`;
}

function fixedText({ node }: FixedKernel): string {
  const { op } = node;
  const block = `blocks of ${blockSize} queries and ${blockSize} keys`;
  if (op === attentionOp) {
    const queries = must(node.inputs[0], "q").shape[1] ?? 0;
    if (queries <= fewQueries)
      return "all threads, by heads and runs of keys:\n  softmax with running maximum and sum, combined at the end";
    return `all threads, by batch, head of keys and block of queries:\n  for ${block}, those of heads with the same keys together:\n    scores in registers, softmax with running maximum and sum; no tensor of all scores exists`;
  }
  if (op === attentionBackwardOp) {
    return `all threads, by batch and key head, those left over by block of keys:\n  for ${block}:\n    scores are made again from the saved log-sum-exp, then the gradients of q, k and v`;
  }
  if (op === linearCrossEntropyWeightGradientOp) {
    return `all threads, by blocks of ${vocabularyBlock} vocabulary rows:\n  for groups of tokens:\n    logits of the block again, normalised, times the rows of x; no tensor of all logits exists`;
  }
  if (isLossOp(op)) {
    const more = op === linearCrossEntropyOp ? "" : "; their exponentials times the block, for dx";
    return `all threads, by groups of tokens:\n  for blocks of ${vocabularyBlock} vocabulary rows:\n    logits of the block, running maximum and sum${more}; no tensor of all logits exists`;
  }
  if (op === sparseDotOp) {
    return "all threads, by tiles of tokens:\n  for entries in order:\n    a column of the tile times the entry, added to another; no dense matrix exists";
  }
  if (op === sampledDotOp) {
    return "all threads, tile by tile of tokens, by entries:\n    a column of one tile times a column of the other, summed; no dense product exists";
  }
  if (!isScatter(op)) return "a kernel of its own";
  return "all threads, by columns:\n  for updates in order: their row of the base";
}
