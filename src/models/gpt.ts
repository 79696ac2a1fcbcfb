import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { add, cast } from "../ops/arithmetic.js";
import { gather } from "../ops/gather.js";
import { reshape, slice } from "../ops/layout.js";
import { headSpec } from "./decoder-specs.js";
import { activate, layerNorm, stored } from "./layers.js";
import { linearsOf, tensorsOf } from "./parameters.js";
import type {
  Activation,
  Block,
  BlockPart,
  ForwardContext,
  ForwardInputs,
  ForwardResult,
  LinearRole,
  LinearSpec,
  ModelDefinition,
  ParameterSpec,
} from "./types.js";

/** A model of GPT-2's architecture. */
export interface GptConfig {
  readonly vocabularySize: number;
  readonly width: number;
  readonly hidden: number;
  readonly heads: number;
  readonly contextLength: number;
  readonly tied: boolean;
  readonly epsilon: number;
  readonly activation: Activation;
  /** One a block. */
  readonly attentionScales: readonly number[];
  /** Linear weights are stored [in, out]. */
  readonly transposed: boolean;
}

interface NormSpecs {
  readonly weight: ParameterSpec;
  readonly bias: ParameterSpec;
}

interface BlockSpecs {
  readonly attentionNorm: NormSpecs;
  readonly queryKeyValue: LinearSpec;
  readonly output: LinearSpec;
  readonly mlpNorm: NormSpecs;
  readonly up: LinearSpec;
  readonly down: LinearSpec;
}

interface GptSpecs {
  readonly tokens: ParameterSpec;
  readonly positions: ParameterSpec;
  readonly blocks: readonly BlockSpecs[];
  readonly norm: NormSpecs;
  readonly head: ParameterSpec | undefined;
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

function blockSpecs({ width, hidden, transposed }: GptConfig, block: number): BlockSpecs {
  const path = `transformer.h.${block}`;
  const linear = (name: string, role: LinearRole, inputs: number, outputs: number): LinearSpec => ({
    path: `${path}.${name}`,
    role,
    block,
    inputs,
    outputs,
    bias: true,
    transposed,
  });
  return {
    attentionNorm: normSpecs(`${path}.ln_1`, width, block),
    queryKeyValue: linear("attn.c_attn", "query-key-value", width, 3 * width),
    output: linear("attn.c_proj", "output", width, width),
    mlpNorm: normSpecs(`${path}.ln_2`, width, block),
    up: linear("mlp.c_fc", "up", width, hidden),
    down: linear("mlp.c_proj", "down", hidden, width),
  };
}

function gptSpecs(config: GptConfig): GptSpecs {
  const { vocabularySize, width, contextLength, attentionScales, tied } = config;
  return {
    tokens: { name: "transformer.wte.weight", shape: [vocabularySize, width], kind: "embedding" },
    positions: { name: "transformer.wpe.weight", shape: [contextLength, width], kind: "position" },
    blocks: attentionScales.map((_, block) => blockSpecs(config, block)),
    norm: normSpecs("transformer.ln_f", width),
    head: tied ? undefined : headSpec(vocabularySize, width, attentionScales.length),
  };
}

function parametersOf(specs: GptSpecs): ParameterSpec[] {
  const blocks = specs.blocks.flatMap((block) => [
    ...[block.attentionNorm.weight, block.attentionNorm.bias],
    ...[block.queryKeyValue, block.output].flatMap(tensorsOf),
    ...[block.mlpNorm.weight, block.mlpNorm.bias],
    ...[block.up, block.down].flatMap(tensorsOf),
  ]);
  const last = [specs.norm.weight, specs.norm.bias, specs.head];
  return [specs.tokens, specs.positions, ...blocks, ...last].filter((spec) => spec !== undefined);
}

/** A model with learned positions, layer norms and one matrix for queries, keys and values. */
export function gptModel(config: GptConfig): ModelDefinition {
  const specs = gptSpecs(config);
  const parameters = parametersOf(specs);
  return {
    family: "gpt2",
    vocabularySize: config.vocabularySize,
    width: config.width,
    blocks: config.attentionScales.length,
    keyHeads: config.heads,
    headWidth: config.width / config.heads,
    contextLength: config.contextLength,
    tiedEmbeddings: config.tied,
    parameters,
    linears: linearsOf(parameters),
    forward: (context, inputs) => forward(config, specs, context, inputs),
  };
}

function forward(config: GptConfig, specs: GptSpecs, context: ForwardContext, inputs: ForwardInputs): ForwardResult {
  const { graph } = context;
  const tokens = context.parameter(specs.tokens);
  const start = graph.inScope("embedding", () => {
    const places = gather(context.parameter(specs.positions), inputs.positions);
    return context.embedded(stored(context, add(cast(gather(tokens, inputs.ids), "f32"), cast(places, "f32"))));
  });
  const blocks = specs.blocks.map((block, index) => gptBlock(config, context, block, index));
  const last = context.stack(blocks, start);
  const hidden = graph.inScope("norm", () => norm(config, context, specs.norm, last));
  const head = specs.head === undefined ? tokens : context.parameter(specs.head);
  return { hidden, head: graph.inScope("head", () => stored(context, head)) };
}

function norm({ epsilon }: GptConfig, context: ForwardContext, specs: NormSpecs, x: Node): Node {
  return stored(context, layerNorm(x, context.parameter(specs.weight), context.parameter(specs.bias), epsilon));
}

function gptBlock(config: GptConfig, context: ForwardContext, specs: BlockSpecs, index: number): Block {
  const { graph } = context;
  const residual = (from: Node, part: Node): Node => stored(context, add(cast(from, "f32"), part));
  const inPart = (part: BlockPart, build: () => Node): Node =>
    graph.inScope(`blocks.${index}`, () => graph.inScope(part, build));
  const mlp = (x: Node): Node => {
    const up = stored(context, context.linear(specs.up, x));
    return context.linear(specs.down, stored(context, activate(config.activation, up)));
  };
  return {
    index,
    attention: (x) =>
      inPart("attention", () => {
        const normal = norm(config, context, specs.attentionNorm, x);
        return residual(
          x,
          context.part("attention", index, normal, (own) => selfAttention(config, context, specs, own)),
        );
      }),
    mlp: (x) =>
      inPart("mlp", () => residual(x, context.part("mlp", index, norm(config, context, specs.mlpNorm, x), mlp))),
  };
}

/** Attention from one product that holds queries, keys and values side by side: x [tokens, d] -> f32 [tokens, d]. */
function selfAttention(config: GptConfig, context: ForwardContext, specs: BlockSpecs, x: Node): Node {
  const { batch, length } = context;
  const { width, heads } = config;
  const { block } = specs.output;
  const joined = stored(context, context.linear(specs.queryKeyValue, x));
  const part = (index: number): Node =>
    reshape(slice(joined, [0, index * width], [batch * length, width]), [batch, length, heads, width / heads]);
  const scale = must(config.attentionScales[block], "attention scale");
  const mixed = context.attention(block, part(0), part(1), part(2), { window: 0, scale });
  return context.linear(specs.output, reshape(mixed, [batch * length, width]));
}
