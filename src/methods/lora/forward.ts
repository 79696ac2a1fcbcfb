import type { Node } from "../../ir/node.js";
import { add, cast, multiply, subtract } from "../../ops/arithmetic.js";
import { dropInput, lowRankProduct } from "../low-rank/forward.js";
import { magnitudeFactor } from "../low-rank/magnitude.js";
import type { AdaptContext } from "../types.js";
import type { LoraConfig, LoraTarget } from "./config.js";

/** y = x Wᵀ + b + s (drop(x) Aᵀ) Bᵀ (Hu et al. 2021): x [tokens, in], y f32 [tokens, out]. */
export function loraForward(
  context: AdaptContext,
  config: LoraConfig,
  target: LoraTarget,
  x: Node,
  next: (x: Node) => Node,
): Node {
  const { spec, scale, magnitude } = target;
  const dropped = dropInput(context, spec, x, config.dropout);
  const a = context.trainable(target.a);
  const b = context.scaled(spec, context.trainable(target.b));
  const delta = lowRankProduct(context.operand(spec, dropped), a, b, scale);
  const base = next(x);
  if (magnitude === undefined) return add(base, delta);
  const factor = magnitudeFactor(context, target, magnitude, a, b);
  const bias = context.bias(spec);
  // With dropout the base's part of the change is taken on the dropped input too: a second base product, as in PEFT.
  const seen = dropped === x ? base : next(dropped);
  const direction = add(bias === undefined ? seen : subtract(seen, cast(bias, "f32")), delta);
  // base + delta + (m/n - 1) direction: at the start m = n, so y is the base's to the bit, and backward needs only
  // `direction` of the [tokens, out] values.
  return add(add(base, delta), multiply(subtract(factor, 1), direction));
}
