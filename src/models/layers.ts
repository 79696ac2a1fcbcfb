import type { Node } from "../ir/node.js";
import { add, cast, divide, multiply, sigmoid, sqrt, subtract, tanh } from "../ops/arithmetic.js";
import { erf } from "../ops/erf.js";
import { reduceMean } from "../ops/reduce.js";
import type { Activation, ForwardContext, LinearSpec } from "./types.js";

/** A value as it is kept between kernels. */
export function stored(context: ForwardContext, x: Node): Node {
  return cast(x, context.activation);
}

/** x / rms(x) * weight over the last axis, in f32; `plusOne` multiplies by 1 + weight. Zhang and Sennrich 2019. */
export function rmsNorm(x: Node, weight: Node, eps: number, options: { readonly plusOne?: boolean } = {}): Node {
  const wide = cast(x, "f32");
  const meanSquare = reduceMean(multiply(wide, wide), [x.shape.length - 1]);
  const inverse = divide(1, sqrt(add(meanSquare, eps)));
  const gain = cast(weight, "f32");
  return multiply(multiply(wide, inverse), options.plusOne === true ? add(gain, 1) : gain);
}

/** (x - mean) / deviation * weight + bias over the last axis, in f32. Ba et al. 2016. */
export function layerNorm(x: Node, weight: Node, bias: Node, eps: number): Node {
  const wide = cast(x, "f32");
  const last = [x.shape.length - 1];
  const centred = subtract(wide, reduceMean(wide, last));
  const variance = reduceMean(multiply(centred, centred), last);
  const inverse = divide(1, sqrt(add(variance, eps)));
  return add(multiply(multiply(centred, inverse), cast(weight, "f32")), cast(bias, "f32"));
}

/** The activation function, in f32. */
export function activate(kind: Activation, x: Node): Node {
  const wide = cast(x, "f32");
  switch (kind) {
    case "silu":
      return multiply(wide, sigmoid(wide));
    case "gelu":
      return multiply(multiply(wide, 0.5), add(erf(multiply(wide, Math.SQRT1_2)), 1));
    case "gelu-tanh": {
      const cubic = multiply(add(multiply(multiply(wide, wide), 0.044715), 1), wide);
      return multiply(multiply(wide, 0.5), add(tanh(multiply(cubic, Math.sqrt(2 / Math.PI))), 1));
    }
  }
}

export interface GatedMlp {
  readonly gate: LinearSpec;
  readonly up: LinearSpec;
  readonly down: LinearSpec;
  readonly activation: Activation;
}

/** down(activation(gate(x)) * up(x)): x [tokens, d] as stored -> f32 [tokens, d]. Shazeer, arXiv 2002.05202. */
export function gatedMlp(context: ForwardContext, layers: GatedMlp, x: Node): Node {
  const { block } = layers.gate;
  const gate = context.represent({ role: "gate", block }, stored(context, context.linear(layers.gate, x)));
  const up = context.represent({ role: "up", block }, stored(context, context.linear(layers.up, x)));
  const activated = context.represent({ role: "activated", block }, activate(layers.activation, gate));
  const hidden = multiply(activated, cast(up, "f32"));
  return context.linear(layers.down, stored(context, hidden));
}
