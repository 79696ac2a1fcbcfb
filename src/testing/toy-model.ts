import type { LinearSpec, ModelDefinition, ParameterSpec } from "../models/types.js";
import { tensorsOf } from "../models/parameters.js";
import { cast, multiply, tanh } from "../ops/arithmetic.js";
import { reshape } from "../ops/layout.js";
import { gather } from "../ops/gather.js";

export interface ToyOptions {
  /** Weights are stored [in, out]. */
  readonly transposed?: boolean;
  readonly bias?: boolean;
  readonly blocks?: number;
}

const width = 6;
const inner = 5;
const vocabularySize = 11;

/** The smallest thing with a model's definition: blocks of two linear layers with tanh, an embedding and a norm. */
export function toyModel({ transposed = false, bias = true, blocks = 2 }: ToyOptions = {}): ModelDefinition {
  const linears = Array.from({ length: blocks }, (_, block): LinearSpec[] => {
    const common = { block, bias, transposed };
    return [
      { ...common, path: `model.layers.${block}.self_attn.q_proj`, role: "query", inputs: width, outputs: inner },
      { ...common, path: `model.layers.${block}.mlp.down_proj`, role: "down", inputs: inner, outputs: width },
    ];
  }).flat();
  const embedding: ParameterSpec = {
    name: "model.embed_tokens.weight",
    shape: [vocabularySize, width],
    kind: "embedding",
  };
  const norm: ParameterSpec = { name: "model.norm.weight", shape: [width], kind: "norm" };
  return {
    family: "toy",
    vocabularySize,
    width,
    blocks,
    keyHeads: 1,
    headWidth: width,
    contextLength: 64,
    tiedEmbeddings: true,
    parameters: [embedding, ...linears.flatMap(tensorsOf), norm],
    linears,
    forward: (context, { ids }) => {
      const head = context.parameter(embedding);
      const first = cast(gather(head, ids), context.activation);
      const last = linears.reduce((x, spec) => cast(tanh(context.linear(spec, x)), context.activation), first);
      const scale = reshape(cast(context.parameter(norm), "f32"), [1, width]);
      return { hidden: cast(multiply(cast(last, "f32"), scale), context.activation), head };
    },
  };
}
