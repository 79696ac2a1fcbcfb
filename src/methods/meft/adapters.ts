import type { DType } from "../../ir/dtype.js";
import type { Node } from "../../ir/node.js";
import { activate, layerNorm } from "../../models/layers.js";
import type { ModelDefinition } from "../../models/types.js";
import { add, cast } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import type { AdaptContext, AdapterTensor, Initial } from "../types.js";
import type { Meft } from "./config.js";

/** `reverse` is the function that is no part of the model; the others stand in its layers. */
export type AdapterPlace = "reverse" | "mlp" | "attention";

/** A bottleneck: W_up act(W_down z + b_down) + b_up, all f32, with a norm of z where it is asked for. */
interface Bottleneck {
  readonly down: { readonly weight: AdapterTensor; readonly bias: AdapterTensor };
  readonly up: { readonly weight: AdapterTensor; readonly bias: AdapterTensor };
  readonly norm: { readonly weight: AdapterTensor; readonly bias: AdapterTensor } | undefined;
}

/** The model's own usual deviation; neither matrix starts at zero. */
const deviation = 0.02;
const normEpsilon = 1e-5;

/** Which adapters a layer has. */
export function placesOf({ variant, inner }: Meft): AdapterPlace[] {
  if (variant === "attn") return inner ? ["attention", "mlp"] : [];
  return inner ? ["reverse", "mlp"] : ["reverse"];
}

function bottleneckOf(meft: Meft, { width }: ModelDefinition, block: number, place: AdapterPlace): Bottleneck {
  const tensor = (name: string, shape: readonly number[], initial: Initial): AdapterTensor => ({
    name: `meft.${block}.${place}.${name}`,
    shape,
    dtype: "f32",
    initial,
    rateFactor: 1,
    decay: shape.length === 2,
    block,
  });
  const linear = (name: string, inputs: number, outputs: number): Bottleneck["down"] => ({
    weight: tensor(`${name}.weight`, [outputs, inputs], { kind: "normal", deviation }),
    bias: tensor(`${name}.bias`, [outputs], { kind: "zeros" }),
  });
  return {
    down: linear("down", width, meft.width),
    up: linear("up", meft.width, width),
    norm: meft.normalise
      ? {
          weight: tensor("norm.weight", [width], { kind: "ones" }),
          bias: tensor("norm.bias", [width], { kind: "zeros" }),
        }
      : undefined,
  };
}

/** Every tensor that trains, layer by layer. */
export function adapterTensors(meft: Meft, model: ModelDefinition): AdapterTensor[] {
  return Array.from({ length: model.blocks }, (_, block) =>
    placesOf(meft).flatMap((place) => {
      const { down, up, norm } = bottleneckOf(meft, model, block, place);
      return [...(norm === undefined ? [] : [norm.weight, norm.bias]), down.weight, down.bias, up.weight, up.bias];
    }),
  ).flat();
}

/** What an adapter makes of z [tokens, d], f32; products are in `type`, as those of the model are. */
export function adapted(
  context: AdaptContext,
  meft: Meft,
  at: { readonly block: number; readonly place: AdapterPlace; readonly type: DType },
  z: Node,
): Node {
  const { down, up, norm } = bottleneckOf(meft, context.model, at.block, at.place);
  const value = (tensor: AdapterTensor): Node => context.trainable(tensor);
  const linear = ({ weight, bias }: Bottleneck["down"], x: Node): Node =>
    add(dot(cast(x, at.type), cast(value(weight), at.type), { transposeB: true }), value(bias));
  const read = norm === undefined ? z : layerNorm(z, value(norm.weight), value(norm.bias), normEpsilon);
  const inner = activate(meft.activation, cast(linear(down, read), at.type));
  return linear(up, context.dropout(inner, meft.dropout, `meft.${at.block}.${at.place}`));
}
