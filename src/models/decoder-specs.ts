import { divided, dividedRotary } from "./narrow.js";
import { tensorsOf } from "./parameters.js";
import type { Activation, LinearRole, LinearSpec, ParameterSpec, Rotary } from "./types.js";

/** How one block of a {@link DecoderConfig} attends. */
export interface BlockAttention {
  /** Absent where positions do not turn queries and keys. */
  readonly rotary: Rotary | undefined;
  /** Keys further back are invisible; 0 = no limit. */
  readonly window: number;
}

/** What the families with rotary positions, RMS norms and gated MLPs differ in. */
export interface DecoderConfig {
  readonly family: string;
  readonly vocabularySize: number;
  readonly width: number;
  /** Width of the MLP's hidden layer. */
  readonly hidden: number;
  readonly heads: number;
  readonly keyHeads: number;
  readonly headWidth: number;
  readonly contextLength: number;
  readonly tied: boolean;
  readonly epsilon: number;
  /** Norms multiply by 1 + weight. */
  readonly plusOneNorms: boolean;
  readonly activation: Activation;
  readonly attentionScale: number;
  /** Embeddings are multiplied by this, rounded to the activation type. */
  readonly embeddingScale: number;
  readonly bias: { readonly inputs: boolean; readonly output: boolean; readonly mlp: boolean };
  /** Queries and keys are normalised head by head. */
  readonly queryKeyNorms: boolean;
  /** Attention and MLP outputs are normalised before they are added. */
  readonly outputNorms: boolean;
  readonly attention: readonly BlockAttention[];
}

/** The tensors of one block. */
export interface BlockSpecs {
  readonly inputNorm: ParameterSpec;
  readonly query: LinearSpec;
  readonly key: LinearSpec;
  readonly value: LinearSpec;
  readonly queryNorm: ParameterSpec | undefined;
  readonly keyNorm: ParameterSpec | undefined;
  readonly output: LinearSpec;
  readonly attentionNorm: ParameterSpec | undefined;
  readonly mlpNorm: ParameterSpec;
  readonly gate: LinearSpec;
  readonly up: LinearSpec;
  readonly down: LinearSpec;
  readonly outputNorm: ParameterSpec | undefined;
}

export interface DecoderSpecs {
  readonly embedding: ParameterSpec;
  readonly blocks: readonly BlockSpecs[];
  readonly norm: ParameterSpec;
  /** Absent where it is the embedding. */
  readonly head: ParameterSpec | undefined;
}

function norm(path: string, width: number, block?: number): ParameterSpec {
  return { name: `${path}.weight`, shape: [width], kind: "norm", ...(block === undefined ? {} : { block }) };
}

function blockSpecs(config: DecoderConfig, root: string, block: number): BlockSpecs {
  const { width, hidden, headWidth, bias, outputNorms, queryKeyNorms } = config;
  const path = `${root}.layers.${block}`;
  const [queries, keys] = [config.heads * headWidth, config.keyHeads * headWidth];
  const linear = (name: string, role: LinearRole, inputs: number, outputs: number, biased: boolean): LinearSpec => ({
    path: `${path}.${name}`,
    role,
    block,
    inputs,
    outputs,
    bias: biased,
    transposed: false,
  });
  const own = (name: string, size = width): ParameterSpec => norm(`${path}.${name}`, size, block);
  return {
    inputNorm: own("input_layernorm"),
    query: linear("self_attn.q_proj", "query", width, queries, bias.inputs),
    key: linear("self_attn.k_proj", "key", width, keys, bias.inputs),
    value: linear("self_attn.v_proj", "value", width, keys, bias.inputs),
    queryNorm: queryKeyNorms ? own("self_attn.q_norm", headWidth) : undefined,
    keyNorm: queryKeyNorms ? own("self_attn.k_norm", headWidth) : undefined,
    output: linear("self_attn.o_proj", "output", queries, width, bias.output),
    attentionNorm: outputNorms ? own("post_attention_layernorm") : undefined,
    mlpNorm: own(outputNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm"),
    gate: linear("mlp.gate_proj", "gate", width, hidden, bias.mlp),
    up: linear("mlp.up_proj", "up", width, hidden, bias.mlp),
    down: linear("mlp.down_proj", "down", hidden, width, bias.mlp),
    outputNorm: outputNorms ? own("post_feedforward_layernorm") : undefined,
  };
}

/** The output layer's weight as a tensor of its own. */
export function headSpec(vocabularySize: number, width: number, blocks: number): ParameterSpec {
  const linear: LinearSpec = {
    path: "lm_head",
    role: "head",
    block: blocks,
    inputs: width,
    outputs: vocabularySize,
    bias: false,
    transposed: false,
  };
  return { name: "lm_head.weight", shape: [vocabularySize, width], linear, kind: "weight" };
}

/** The configuration of the same blocks at a fraction of their widths, with as many heads. */
export function dividedConfig(config: DecoderConfig, reduction: number): DecoderConfig {
  const turns = new Map(config.attention.map(({ rotary }) => [rotary, rotary && dividedRotary(rotary, reduction)]));
  return {
    ...config,
    width: divided("the model's width", config.width, reduction),
    hidden: divided("the width of the MLP", config.hidden, reduction),
    headWidth: divided("the width of a head", config.headWidth, reduction),
    attentionScale: config.attentionScale * Math.sqrt(reduction),
    attention: config.attention.map((one) => ({ ...one, rotary: turns.get(one.rotary) })),
  };
}

/** Every tensor of the model, each stated once; those of the body are named by `root`. */
export function decoderSpecs(config: DecoderConfig, root = "model"): DecoderSpecs {
  const { vocabularySize, width, attention, tied } = config;
  return {
    embedding: { name: `${root}.embed_tokens.weight`, shape: [vocabularySize, width], kind: "embedding" },
    blocks: attention.map((_, block) => blockSpecs(config, root, block)),
    norm: norm(`${root}.norm`, width),
    head: tied ? undefined : headSpec(vocabularySize, width, attention.length),
  };
}

/** The tensors of the blocks and of the norm behind them, in the order of use. */
export function towerParameters(specs: DecoderSpecs): ParameterSpec[] {
  const blocks = specs.blocks.flatMap((block) => [
    block.inputNorm,
    ...[block.query, block.key, block.value].flatMap(tensorsOf),
    block.queryNorm,
    block.keyNorm,
    ...tensorsOf(block.output),
    block.attentionNorm,
    block.mlpNorm,
    ...[block.gate, block.up, block.down].flatMap(tensorsOf),
    block.outputNorm,
  ]);
  return [...blocks, specs.norm].filter((spec) => spec !== undefined);
}

/** All tensors in the order of use. */
export function decoderParameters(specs: DecoderSpecs): ParameterSpec[] {
  return [specs.embedding, ...towerParameters(specs), ...(specs.head === undefined ? [] : [specs.head])];
}
