import type { Program } from "../ir/program.js";
import { nodesOf, rebuilt, rewriteProgram } from "../ir/program.js";
import { constantValue, result } from "../ops/leaves.js";
import { linearCrossEntropyGradientOp, linearCrossEntropyOp } from "../ops/cross-entropy.js";
import { addOp } from "../ops/arithmetic.js";
import { scatterAdd, scatterAddOp } from "../ops/gather.js";
import type { Node } from "../ir/node.js";

/**
 * Where the gradient of a linear + cross-entropy is computed from the same operands as its loss, the loss is read
 * from that kernel too: one pass over the logits instead of two.
 */
export function shareLoss(program: Program): Program {
  const passes = new Map<string, Node>();
  const key = (node: Node): string => node.inputs.map((input) => input.id).join();
  for (const node of nodesOf(program)) if (node.op === linearCrossEntropyGradientOp) passes.set(key(node), node);
  return rewriteProgram(program, (node, inputs) => {
    const pass = node.op === linearCrossEntropyOp ? passes.get(key(node)) : undefined;
    return pass === undefined ? rebuilt(node, inputs) : result(pass, 0);
  });
}

/** a + scatterAdd(0, ids, u) becomes scatterAdd(a, ids, u), which works in place: tied tables have one gradient. */
export function scatterIntoSums(program: Program): Program {
  const fromZero = (node: Node): boolean =>
    node.op === scatterAddOp && node.inputs[0] !== undefined && constantValue(node.inputs[0]) === 0;
  return rewriteProgram(program, (node, inputs) => {
    const [left, right] = inputs;
    if (node.op === addOp && left !== undefined && right !== undefined) {
      const [scattered, base] = fromZero(right) ? [right, left] : [left, right];
      const [, ids, updates] = scattered.inputs;
      if (fromZero(scattered) && ids !== undefined && updates !== undefined) return scatterAdd(base, ids, updates);
    }
    return rebuilt(node, inputs);
  });
}
