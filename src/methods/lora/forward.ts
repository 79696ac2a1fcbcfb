import type { Node } from "../../ir/node.js";
import { add, cast, divide, maximum, multiply, sqrt, subtract } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import { permute, reduceSum, reshape } from "../../ops/layout.js";
import { detach } from "../../ops/reduce.js";
import type { AdaptContext } from "../types.js";
import type { LoraConfig, LoraTarget } from "./config.js";

/**
 * y = x Wᵀ + b + s (drop(x) Aᵀ) Bᵀ (Hu et al. 2021): x [tokens, in], y f32 [tokens, out]. Products are in x's type, as
 * those of the base are; A and B stay f32 and are rounded where they are used. The scale is multiplied into the
 * [tokens, r] intermediate, the smallest there is.
 */
export function loraForward(
  context: AdaptContext,
  config: LoraConfig,
  target: LoraTarget,
  x: Node,
  next: (x: Node) => Node,
): Node {
  const dropped = dropInput(context, config, target, x);
  const a = context.trainable(target.a);
  const b = context.trainable(target.b);
  const inner = multiply(dot(dropped, cast(a, x.dtype), { transposeB: true }), target.scale);
  const delta = dot(cast(inner, x.dtype), cast(b, x.dtype), { transposeB: true });
  const base = next(x);
  if (target.dora === undefined) return add(base, delta);
  const factor = doraFactor(context, target, target.dora, a, b);
  const bias = context.bias(target.spec);
  // With dropout the base's part of the change is taken on the dropped input too: a second base product, as in PEFT.
  const seen = dropped === x ? base : next(dropped);
  const direction = add(bias === undefined ? seen : subtract(seen, cast(bias, "f32")), delta);
  // base + delta + (m/n - 1) direction: at the start m = n, so y is the base's to the bit, and backward needs only
  // `direction` of the [tokens, out] values.
  return add(add(base, delta), multiply(subtract(factor, 1), direction));
}

/** The input with dropout, or the very same node where there is none. */
function dropInput(context: AdaptContext, config: LoraConfig, target: LoraTarget, x: Node): Node {
  const whole = cast(x, "f32");
  const dropped = context.dropout(whole, config.dropout, `${target.spec.path}.lora_dropout`);
  return dropped === whole ? x : cast(dropped, x.dtype);
}

/**
 * m / n as [1, out], n the norm of each row of W + s B A taken as a constant in backward (Liu et al. 2024, section
 * 4.3). |W_i + s (BA)_i|² = |W_i|² + 2 s B_i·(W Aᵀ)_i + s² B_i (A Aᵀ) B_iᵀ needs no dense [out, in] temporary.
 */
function doraFactor(
  context: AdaptContext,
  { spec, scale }: LoraTarget,
  { magnitude, rowSquares }: NonNullable<LoraTarget["dora"]>,
  a: Node,
  b: Node,
): Node {
  // A Wᵀ [r, out]: the base's own product, with the rows of A as tokens.
  const shared = dot(a, cast(context.weight(spec), "f32"), { transposeB: !spec.transposed });
  const gram = dot(a, a, { transposeB: true });
  const cross = multiply(multiply(b, permute(shared, [1, 0])), 2 * scale);
  const own = multiply(multiply(dot(b, gram), b), scale * scale);
  const added = reshape(reduceSum(add(cross, own), [1]), [spec.outputs]);
  // An all-zero row stays as it is instead of dividing by zero.
  const norm = maximum(sqrt(add(context.fixed(rowSquares), added)), 1e-30);
  return reshape(divide(context.trainable(magnitude), detach(norm)), [1, spec.outputs]);
}
