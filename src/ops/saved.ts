import { must, ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { GradientContext, OpDefinition } from "../ir/op.js";
import { sameShape } from "../ir/shape.js";

const passOn = ({ outputs }: GradientContext): readonly Node[] => [must(outputs[0], "output gradient")];

/**
 * A value of which backward reads something else: inputs are the value, what backward reads instead (of its shape), and
 * what of that the forward pass makes and keeps. Derivatives of the ops that read the value itself are taken at the other
 * (see `gradients`). Nothing of it is left after differentiation: it is the value.
 */
export const savedAsOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "savedAs",
  cost: "free",
  infer: ([value, replacement]) => {
    const type = must(value, "value");
    if (replacement?.dtype !== type.dtype || !sameShape(replacement.shape, type.shape)) {
      throw new ThimbleError("shape", "What backward reads instead of a value has its shape and type");
    }
    return [type];
  },
  lowering: { kind: "movement" },
  evaluate: (inputs) => [must(inputs[0], "value")],
  gradient: passOn,
});

/**
 * A matrix [n, d] of which backward keeps some rows: inputs are the value, the rows [k, d] (scaled, so that their
 * products with the same rows of another matrix sum up to what is wanted), and their numbers, i32 [k]. Products read
 * them for the gradient of their other operand. Nothing of it is left after differentiation: it is the value.
 */
export const savedRowsOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "savedRows",
  cost: "free",
  infer: ([value, rows, ids]) => {
    const type = must(value, "value");
    const fits = type.shape.length === 2 && rows?.shape.length === 2 && rows.shape[1] === type.shape[1];
    if (!fits || rows.dtype !== type.dtype || ids?.dtype !== "i32" || !sameShape(ids.shape, [rows.shape[0] ?? 0])) {
      throw new ThimbleError(
        "shape",
        "savedRows takes a matrix [n, d], rows [k, d] of its type, and their i32 numbers",
      );
    }
    return [type];
  },
  lowering: { kind: "movement" },
  evaluate: (inputs) => [must(inputs[0], "value")],
  gradient: passOn,
});

/** The value, which backward reads as `replacement`; `kept` are the values that this is made of in backward. */
export function savedAs(value: Node, replacement: Node, kept: readonly Node[]): Node {
  return value.graph.add(savedAsOp, [value, replacement, ...kept]);
}

/** See {@link savedRowsOp}. */
export function savedRows(value: Node, rows: Node, ids: Node): Node {
  return value.graph.add(savedRowsOp, [value, rows, ids]);
}

/** A node as its derivative reads it: computed again (where that is read at all) from what stands for its inputs. */
export function seenByBackward(node: Node): Node {
  if (node.inputs.every(({ op }) => op !== savedAsOp)) return node;
  const inputs = node.inputs.map((input) => (input.op === savedAsOp ? must(input.inputs[1], "replacement") : input));
  return node.graph.add(node.op, inputs, node.attributes);
}

/** What backward keeps of a matrix, where it is not all of it. */
export function rowsOf(value: Node): { readonly rows: Node; readonly ids: Node } | undefined {
  if (value.op !== savedRowsOp) return undefined;
  return { rows: must(value.inputs[1], "rows"), ids: must(value.inputs[2], "row numbers") };
}

/** What the forward pass makes for backward, of a node that says so. */
export function keptBy(node: Node): readonly Node[] {
  if (node.op === savedRowsOp) return node.inputs.slice(1);
  return node.op === savedAsOp ? node.inputs.slice(2) : [];
}
