import type { Node } from "../ir/node.js";
import { add, cast } from "../ops/arithmetic.js";
import { dot } from "../ops/dot.js";
import type { AdaptContext, AdapterTensor } from "./types.js";

/** A linear layer that a method adds, with a bias: both train in f32. */
export interface SmallLinear {
  readonly weight: AdapterTensor;
  readonly bias: AdapterTensor;
}

export interface SmallLinearOptions {
  readonly inputs: number;
  readonly outputs: number;
  /** Standard deviation of the weight at the start; the bias is 0. */
  readonly deviation: number;
  readonly block?: number | undefined;
}

/** The tensors of a linear layer: weight [outputs, inputs], bias [outputs]. */
export function smallLinear(name: string, { inputs, outputs, deviation, block }: SmallLinearOptions): SmallLinear {
  const common = { dtype: "f32", rateFactor: 1, ...(block === undefined ? {} : { block }) } as const;
  const initial = { kind: "normal", deviation } as const;
  return {
    weight: { ...common, name: `${name}.weight`, shape: [outputs, inputs], initial, decay: true },
    bias: { ...common, name: `${name}.bias`, shape: [outputs], initial: { kind: "zeros" }, decay: false },
  };
}

/** y = x Wᵀ + b, f32 [tokens, outputs], from x [tokens, inputs] as stored. */
export function applySmallLinear(context: AdaptContext, { weight, bias }: SmallLinear, x: Node): Node {
  const product = dot(x, cast(context.trainable(weight), x.dtype), { transposeB: true });
  return add(product, context.trainable(bias));
}
