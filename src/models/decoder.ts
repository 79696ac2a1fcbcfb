import { must } from "../errors.js";
import { roundTo } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import { add, cast, multiply } from "../ops/arithmetic.js";
import { gather } from "../ops/gather.js";
import { reshape } from "../ops/layout.js";
import type { BlockAttention, BlockSpecs, DecoderConfig, DecoderSpecs } from "./decoder-specs.js";
import { decoderParameters, decoderSpecs, dividedConfig, towerParameters } from "./decoder-specs.js";
import { gatedMlp, rmsNorm, stored } from "./layers.js";
import { paired } from "./narrow.js";
import { linearsOf } from "./parameters.js";
import type { RotaryTables } from "./rotary.js";
import { applyRotary, rotaryTables } from "./rotary.js";
import type {
  Block,
  BlockPart,
  ForwardContext,
  ForwardInputs,
  ForwardResult,
  ModelDefinition,
  NarrowModel,
  ParameterSpec,
  Tower,
} from "./types.js";

/** A model of a family with rotary positions, RMS norms and gated MLPs. */
export function decoderModel(config: DecoderConfig): ModelDefinition {
  const specs = decoderSpecs(config);
  const parameters = decoderParameters(specs);
  return {
    family: config.family,
    vocabularySize: config.vocabularySize,
    width: config.width,
    blocks: config.attention.length,
    keyHeads: config.keyHeads,
    headWidth: config.headWidth,
    contextLength: config.contextLength,
    tiedEmbeddings: config.tied,
    activation: config.activation,
    parameters,
    linears: linearsOf(parameters),
    narrow: (reduction, prefix) => narrowDecoder(config, specs, reduction, prefix),
    forward: (context, inputs) => forward(config, specs, context, inputs),
  };
}

function narrowDecoder(config: DecoderConfig, of: DecoderSpecs, reduction: number, prefix: string): NarrowModel {
  const narrow = dividedConfig(config, reduction);
  const specs = decoderSpecs(narrow, prefix);
  return {
    width: narrow.width,
    parameters: paired(towerParameters(specs), towerParameters(of)),
    build: (context, inputs) => tower(narrow, specs, context, inputs),
  };
}

function forward(
  config: DecoderConfig,
  specs: DecoderSpecs,
  context: ForwardContext,
  inputs: ForwardInputs,
): ForwardResult {
  const { graph } = context;
  const embedding = context.parameter(specs.embedding);
  const start = graph.inScope("embedding", () => context.embedded(embed(config, context, embedding, inputs.ids)));
  const hidden = context.stack(tower(config, specs, context, inputs), start);
  const head = specs.head === undefined ? embedding : context.parameter(specs.head);
  return { hidden, head: graph.inScope("head", () => stored(context, head)) };
}

function tower(config: DecoderConfig, specs: DecoderSpecs, context: ForwardContext, inputs: ForwardInputs): Tower {
  const { graph } = context;
  const tables = graph.inScope("rotary", () => sharedTables(config, inputs.positions));
  const blocks = specs.blocks.map((block, index) => {
    const { rotary, window } = must(config.attention[index], "block's attention");
    const turn = rotary === undefined ? undefined : tables.get(rotary);
    return decoderBlock(new BlockBuilder(config, context, block, turn, window), index);
  });
  const norm = (x: Node): Node =>
    graph.inScope("norm", () =>
      stored(context, rmsNorm(x, context.parameter(specs.norm), config.epsilon, { plusOne: config.plusOneNorms })),
    );
  return { blocks, norm };
}

function embed(config: DecoderConfig, context: ForwardContext, embedding: Node, ids: Node): Node {
  const rows = gather(embedding, ids);
  if (config.embeddingScale === 1) return stored(context, rows);
  return stored(context, multiply(cast(rows, "f32"), roundTo(context.activation, config.embeddingScale)));
}

/** One pair of tables for each distinct rotary setting. */
function sharedTables(config: DecoderConfig, positions: Node): Map<object, RotaryTables> {
  const used = config.attention.flatMap(({ rotary }: BlockAttention) => (rotary === undefined ? [] : [rotary]));
  return new Map(used.map((rotary) => [rotary, rotaryTables(positions, rotary)]));
}

/** One block under construction: its tensors and what its parts share. */
class BlockBuilder {
  constructor(
    readonly config: DecoderConfig,
    readonly context: ForwardContext,
    readonly specs: BlockSpecs,
    readonly tables: RotaryTables | undefined,
    readonly window: number,
  ) {}

  norm(spec: ParameterSpec, x: Node): Node {
    const { epsilon, plusOneNorms: plusOne } = this.config;
    return stored(this.context, rmsNorm(x, this.context.parameter(spec), epsilon, { plusOne }));
  }

  /** Queries or keys from their product: normalised if the family does, then turned. [tokens, H*D] -> [B, T, H, D]. */
  turned(product: Node, spec: ParameterSpec | undefined): Node {
    const kept = stored(this.context, product);
    const heads = this.heads(kept);
    const [, , count = 0, width = 0] = heads.shape;
    const tokens = reshape(kept, [this.context.batch * this.context.length, count, width]);
    const { epsilon, plusOneNorms: plusOne } = this.config;
    const normal = spec === undefined ? tokens : rmsNorm(tokens, this.context.parameter(spec), epsilon, { plusOne });
    const turned = this.tables === undefined ? normal : applyRotary(cast(normal, "f32"), this.tables);
    return reshape(stored(this.context, turned), heads.shape);
  }

  /** [tokens, H*D] -> [B, T, H, D]. */
  heads(x: Node): Node {
    const { batch, length } = this.context;
    const { headWidth } = this.config;
    return reshape(x, [batch, length, must(x.shape[1], "width") / headWidth, headWidth]);
  }

  attention(x: Node): Node {
    const { context, specs, config, window } = this;
    const q = this.turned(context.linear(specs.query, x), specs.queryNorm);
    const k = this.turned(context.linear(specs.key, x), specs.keyNorm);
    const v = this.heads(stored(context, context.linear(specs.value, x)));
    const mixed = context.attention(specs.query.block, q, k, v, { window, scale: config.attentionScale });
    return context.linear(specs.output, reshape(mixed, [context.batch * context.length, specs.output.inputs]));
  }

  /** x + part, where the family asks for it normalised first. */
  residual(x: Node, part: Node, spec: ParameterSpec | undefined): Node {
    const normal = spec === undefined ? part : this.norm(spec, stored(this.context, part));
    return stored(this.context, add(cast(x, "f32"), cast(normal, "f32")));
  }
}

function decoderBlock(builder: BlockBuilder, index: number): Block {
  const { context, specs, config } = builder;
  const inPart = (part: BlockPart, build: () => Node): Node =>
    context.graph.inScope(`blocks.${index}`, () => context.graph.inScope(part, build));
  const layers = { gate: specs.gate, up: specs.up, down: specs.down, activation: config.activation };
  return {
    index,
    attention: (x) =>
      inPart("attention", () => {
        const normal = builder.norm(specs.inputNorm, context.represent({ role: "norm", block: index }, x));
        const part = context.part("attention", index, normal, (own) => builder.attention(own));
        return builder.residual(x, part, specs.attentionNorm);
      }),
    mlp: (x) =>
      inPart("mlp", () => {
        const normal = builder.norm(specs.mlpNorm, context.represent({ role: "norm", block: index }, x));
        const part = context.part("mlp", index, normal, (own) => gatedMlp(context, layers, own));
        return builder.residual(x, part, specs.outputNorm);
      }),
  };
}
