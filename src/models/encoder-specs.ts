import { tensorsOf } from "./parameters.js";
import type { Activation, LinearRole, LinearSpec, ModelTask, ParameterSpec } from "./types.js";

/** What encoders with learned positions and norms behind their residuals differ in. */
export interface EncoderConfig {
  readonly family: string;
  /** First part of the names of the body's tensors, `bert` or `roberta`. */
  readonly root: string;
  readonly vocabularySize: number;
  readonly width: number;
  /** Width of the MLP's hidden layer. */
  readonly hidden: number;
  readonly heads: number;
  readonly blocks: number;
  /** Rows of the table of positions. */
  readonly positions: number;
  /** Row of a record's first position: RoBERTa's positions start behind the padding id. */
  readonly positionOffset: number;
  readonly tokenTypes: number;
  readonly epsilon: number;
  readonly activation: Activation;
  /** Standard deviation of new weights. */
  readonly deviation: number;
  /**
   * What predicts from the first token: a pooler (dense and tanh) that belongs to the body and one linear layer, or a
   * head of two layers with a tanh between them.
   */
  readonly head: "pooler" | "two-layers";
  readonly task: Pick<ModelTask, "kind" | "labels">;
}

export interface NormSpecs {
  readonly weight: ParameterSpec;
  readonly bias: ParameterSpec;
}

export interface EncoderBlockSpecs {
  readonly query: LinearSpec;
  readonly key: LinearSpec;
  readonly value: LinearSpec;
  readonly output: LinearSpec;
  readonly attentionNorm: NormSpecs;
  readonly up: LinearSpec;
  readonly down: LinearSpec;
  readonly mlpNorm: NormSpecs;
}

export interface EncoderSpecs {
  readonly words: ParameterSpec;
  readonly positions: ParameterSpec;
  readonly types: ParameterSpec;
  readonly norm: NormSpecs;
  readonly blocks: readonly EncoderBlockSpecs[];
  /** The first token's state -> what the last layer reads; tanh follows. */
  readonly dense: LinearSpec;
  /** -> a number for each label. */
  readonly last: LinearSpec;
}

function normSpecs(path: string, width: number, block?: number): NormSpecs {
  const spec = (name: string): ParameterSpec => ({
    name: `${path}.${name}`,
    shape: [width],
    kind: "norm",
    ...(block === undefined ? {} : { block }),
  });
  return { weight: spec("weight"), bias: spec("bias") };
}

function blockSpecs({ root, width, hidden }: EncoderConfig, block: number): EncoderBlockSpecs {
  const path = `${root}.encoder.layer.${block}`;
  const linear = (name: string, role: LinearRole, inputs: number, outputs: number): LinearSpec => ({
    path: `${path}.${name}`,
    role,
    block,
    inputs,
    outputs,
    bias: true,
    transposed: false,
  });
  return {
    query: linear("attention.self.query", "query", width, width),
    key: linear("attention.self.key", "key", width, width),
    value: linear("attention.self.value", "value", width, width),
    output: linear("attention.output.dense", "output", width, width),
    attentionNorm: normSpecs(`${path}.attention.output.LayerNorm`, width, block),
    up: linear("intermediate.dense", "up", width, hidden),
    down: linear("output.dense", "down", hidden, width),
    mlpNorm: normSpecs(`${path}.output.LayerNorm`, width, block),
  };
}

/** Every tensor of the model, each stated once. */
export function encoderSpecs(config: EncoderConfig): EncoderSpecs {
  const { root, vocabularySize, width, blocks, positions, tokenTypes, head, task } = config;
  const embedding = (name: string, rows: number, kind: ParameterSpec["kind"]): ParameterSpec => ({
    name: `${root}.embeddings.${name}.weight`,
    shape: [rows, width],
    kind,
  });
  const behind = (path: string, role: LinearRole, outputs: number): LinearSpec => ({
    path,
    role,
    block: blocks,
    inputs: width,
    outputs,
    bias: true,
    transposed: false,
  });
  const pooled = head === "pooler";
  return {
    words: embedding("word_embeddings", vocabularySize, "embedding"),
    positions: embedding("position_embeddings", positions, "position"),
    types: embedding("token_type_embeddings", tokenTypes, "embedding"),
    norm: normSpecs(`${root}.embeddings.LayerNorm`, width),
    blocks: Array.from({ length: blocks }, (_, block) => blockSpecs(config, block)),
    dense: pooled ? behind(`${root}.pooler.dense`, "pooler", width) : behind("classifier.dense", "head", width),
    last: behind(pooled ? "classifier" : "classifier.out_proj", "head", task.labels.length),
  };
}

/** The tensors of a layer behind the blocks, which a checkpoint may lack. */
function lateTensors(linear: LinearSpec, deviation: number): ParameterSpec[] {
  return tensorsOf(linear).map((spec) => ({
    ...spec,
    initial: spec.kind === "bias" ? { kind: "zeros" } : { kind: "normal", deviation },
  }));
}

const normTensors = ({ weight, bias }: NormSpecs): ParameterSpec[] => [weight, bias];

/** The tensors of the blocks, in the order of use. */
export function towerParameters(specs: EncoderSpecs): ParameterSpec[] {
  return specs.blocks.flatMap((block) => [
    ...[block.query, block.key, block.value, block.output].flatMap(tensorsOf),
    ...normTensors(block.attentionNorm),
    ...[block.up, block.down].flatMap(tensorsOf),
    ...normTensors(block.mlpNorm),
  ]);
}

/** All tensors in the order of use. */
export function encoderParameters({ deviation }: EncoderConfig, specs: EncoderSpecs): ParameterSpec[] {
  const embeddings = [specs.words, specs.positions, specs.types, ...normTensors(specs.norm)];
  return [
    ...embeddings,
    ...towerParameters(specs),
    ...[specs.dense, specs.last].flatMap((late) => lateTensors(late, deviation)),
  ];
}

/** Names of the head's tensors: those of the layers that are not the body's. */
export function headTensors(specs: EncoderSpecs): string[] {
  const layers = [specs.dense, specs.last].filter(({ role }) => role === "head");
  return layers.flatMap(tensorsOf).map(({ name }) => name);
}
