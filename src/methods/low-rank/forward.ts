import type { LinearSpec } from "../../models/types.js";
import type { Node } from "../../ir/node.js";
import { cast, multiply } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import type { AdaptContext } from "../types.js";

/**
 * (x Aᵀ · factor) Bᵀ, f32 [tokens, out]: x [tokens, in], A [r, in], B [out, r], `factor` a number or f32 [1, r].
 * Products are in x's type, as those of the base are; A and B stay f32 and are rounded where they are used. The factor
 * is multiplied into the [tokens, r] intermediate, the smallest there is.
 */
export function lowRankProduct(x: Node, a: Node, b: Node, factor: number | Node): Node {
  const inner = multiply(dot(x, cast(a, x.dtype), { transposeB: true }), factor);
  return dot(cast(inner, x.dtype), cast(b, x.dtype), { transposeB: true });
}

/** A layer's input with dropout of its adapter, in its own type, or the very same node where there is none. */
export function dropInput(context: AdaptContext, { path }: LinearSpec, x: Node, probability: number): Node {
  const whole = cast(x, "f32");
  const dropped = context.dropout(whole, probability, `${path}.lora_dropout`);
  return dropped === whole ? x : cast(dropped, x.dtype);
}
