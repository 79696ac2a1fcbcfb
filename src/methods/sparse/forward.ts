import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { cast } from "../../ops/arithmetic.js";
import { defineGradient } from "../../ops/custom-gradient.js";
import { dot } from "../../ops/dot.js";
import { gather } from "../../ops/gather.js";
import { rowsOf } from "../../ops/saved.js";
import { sampledDot, sparseDot } from "../../ops/sparse.js";
import type { AdaptContext } from "../types.js";
import type { SparseLayer } from "./layer.js";

/** What the entries add to a layer's output, f32 [tokens, out], for its input x [tokens, in]. */
export function sparseTerm(context: AdaptContext, { spec, delta, places }: SparseLayer, x: Node): Node {
  const size = { rows: spec.outputs, columns: spec.inputs };
  const values = cast(context.trainable(delta), "f32");
  return sparseDot(x, context.moving(places), values, size);
}

/** The gradient of an output, in the type in which its layer is computed, and the operand x: of what is kept, the rows. */
function sides(gradient: Node, x: Node): readonly [Node, Node] {
  const dy = cast(gradient, x.dtype);
  const kept = rowsOf(x);
  return kept === undefined ? [dy, x] : [gather(dy, kept.ids), kept.rows];
}

/** The layer's output y = x Wᵀ; by `probe` [out, in] it has the whole gradient of its weight, f32. */
export function watchWeight(y: Node, x: Node, probe: Node): Node {
  return wholeWeight(y, [y, x, probe]);
}

const wholeWeight = defineGradient("watchWeight", ({ inputs, gradient }) => {
  const [dy, rows] = sides(gradient, must(inputs[1], "x"));
  return [gradient, undefined, dot(dy, rows, { transposeA: true })];
});

/** The same for single elements of the weight's gradient, f32 [K], at i32 `places` [K]: by `probe` [K]. */
export function watchEntries(y: Node, x: Node, places: Node, probe: Node): Node {
  return someEntries(y, [y, x, places, probe]);
}

const someEntries = defineGradient("watchEntries", ({ inputs, gradient }) => {
  const [dy, rows] = sides(gradient, must(inputs[1], "x"));
  return [gradient, undefined, undefined, sampledDot(dy, rows, must(inputs[2], "places"))];
});
