import type { DType } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import { activate, layerNorm } from "../models/layers.js";
import type { Activation } from "../models/types.js";
import { add, cast } from "../ops/arithmetic.js";
import { dot } from "../ops/dot.js";
import type { AdaptContext, AdapterTensor, Initial } from "./types.js";

/** A bottleneck adapter: W_up act(W_down z + b_down) + b_up, with a norm of z where it is asked for. */
export interface Bottleneck {
  /** What its tensors' names begin with; also the place of its dropout. */
  readonly name: string;
  readonly block: number;
  /** Width of z, and of what comes out. */
  readonly outer: number;
  readonly inner: number;
  readonly normalise: boolean;
  readonly activation: Activation;
  /** Of what W_up reads. */
  readonly dropout: number;
}

interface Pair {
  readonly weight: AdapterTensor;
  readonly bias: AdapterTensor;
}

/** The usual deviation of a pretrained model's start (Devlin et al. 2018); neither matrix starts at zero. */
const deviation = 0.02;
const normEpsilon = 1e-5;

function pairsOf({ name, block, outer, inner }: Bottleneck): Record<"down" | "up" | "norm", Pair> {
  const tensor = (own: string, shape: readonly number[], initial: Initial): AdapterTensor => ({
    name: `${name}.${own}`,
    shape,
    dtype: "f32",
    initial,
    rateFactor: 1,
    decay: shape.length === 2,
    block,
  });
  const linear = (own: string, inputs: number, outputs: number): Pair => ({
    weight: tensor(`${own}.weight`, [outputs, inputs], { kind: "normal", deviation }),
    bias: tensor(`${own}.bias`, [outputs], { kind: "zeros" }),
  });
  const norm = {
    weight: tensor("norm.weight", [outer], { kind: "ones" }),
    bias: tensor("norm.bias", [outer], { kind: "zeros" }),
  };
  return { down: linear("down", outer, inner), up: linear("up", inner, outer), norm };
}

/** Its tensors, all f32, in the order of their use. */
export function bottleneckTensors(adapter: Bottleneck): AdapterTensor[] {
  const { norm, down, up } = pairsOf(adapter);
  const used = adapter.normalise ? [norm, down, up] : [down, up];
  return used.flatMap(({ weight, bias }) => [weight, bias]);
}

/** What it makes of z [tokens, outer], f32; products are in `type`, as those of the model are. */
export function bottleneck(context: AdaptContext, adapter: Bottleneck, z: Node, type: DType): Node {
  const { norm, down, up } = pairsOf(adapter);
  const value = (tensor: AdapterTensor): Node => context.trainable(tensor);
  const linear = ({ weight, bias }: Pair, x: Node): Node =>
    add(dot(cast(x, type), cast(value(weight), type), { transposeB: true }), value(bias));
  const read = adapter.normalise ? layerNorm(z, value(norm.weight), value(norm.bias), normEpsilon) : z;
  const inner = activate(adapter.activation, cast(linear(down, read), type));
  return linear(up, context.dropout(inner, adapter.dropout, adapter.name));
}
