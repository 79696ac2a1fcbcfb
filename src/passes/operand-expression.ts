import { must } from "../errors.js";
import type { DType } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import { elements } from "../ir/shape.js";
import { linearCrossEntropyGradientOp, linearCrossEntropyOp } from "../ops/cross-entropy.js";
import { castOp } from "../ops/arithmetic.js";
import { expandOp } from "../ops/layout.js";
import { constantOp, leafAttributes, leafOp } from "../ops/leaves.js";
import type { OperandExpression } from "./kernels.js";
import { storageOf } from "./kernels.js";

const dense: ReadonlySet<string> = new Set<DType>(["f32", "bf16", "f16"]);

/** Codes of a value in a byte each: what they stand for is made where it is packed, and never stored. */
function isCodes({ op, dtype }: Node): boolean {
  return op === castOp && dtype === "u8";
}

/**
 * What to read for an operand that is an element-wise expression of one dense weight (or of codes), of scalars, random
 * bits and constants; undefined for a plain (or only rounded) weight, and for anything else.
 */
export function operandExpression(value: Node): OperandExpression | undefined {
  const count = elements(value.shape);
  const bases = new Set<Node>();
  const scalars = new Set<Node>();
  const seen = new Set<Node>();
  let operations = 0;
  const readScalar = (node: Node): void => {
    if (node.op !== constantOp) scalars.add(node);
  };
  const visit = (node: Node): boolean => {
    const base = storageOf(node);
    if (seen.has(base)) return true;
    seen.add(base);
    const { kind } = base.op.lowering;
    if (isCodes(base)) {
      bases.add(base);
      return true;
    }
    if (base.op === leafOp) {
      const { role, format } = leafAttributes(base);
      bases.add(base);
      return role === "weight" && dense.has(format);
    }
    if (base.op === constantOp) return true;
    if (kind === "random") {
      base.inputs.map(storageOf).forEach(readScalar);
      return true;
    }
    if (base.op === expandOp) {
      const source = storageOf(must(base.inputs[0], "input"));
      readScalar(source);
      return elements(source.shape) === 1;
    }
    if (kind !== "elementwise" && kind !== "cast") return false;
    if (kind === "elementwise") operations++;
    return base.inputs.every(visit);
  };
  if (count === 1 || !visit(value) || operations === 0 || bases.size !== 1) return undefined;
  const [base] = bases;
  return { value, base: must(base, "weight"), scalars: [...scalars] };
}

/** The same for the weight of a loss kernel that reads it only once. */
export function lossWeight({ op, inputs }: Node): OperandExpression | undefined {
  const reads = op === linearCrossEntropyOp || op === linearCrossEntropyGradientOp;
  return reads ? operandExpression(must(inputs[1], "weight")) : undefined;
}
