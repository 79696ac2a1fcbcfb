import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { add, cast } from "../ops/arithmetic.js";
import { gather } from "../ops/gather.js";
import { reshape, slice } from "../ops/layout.js";
import { headSpec } from "./decoder-specs.js";
import { activate, layerNorm, stored } from "./layers.js";
import { divided, paired } from "./narrow.js";
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
  NarrowModel,
  ParameterSpec,
  Tower,
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

function blockSpecs({ width, hidden, transposed }: GptConfig, root: string, block: number): BlockSpecs {
  const path = `${root}.h.${block}`;
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

function gptSpecs(config: GptConfig, root = "transformer"): GptSpecs {
  const { vocabularySize, width, contextLength, attentionScales, tied } = config;
  return {
    tokens: { name: `${root}.wte.weight`, shape: [vocabularySize, width], kind: "embedding" },
    positions: { name: `${root}.wpe.weight`, shape: [contextLength, width], kind: "position" },
    blocks: attentionScales.map((_, block) => blockSpecs(config, root, block)),
    norm: normSpecs(`${root}.ln_f`, width),
    head: tied ? undefined : headSpec(vocabularySize, width, attentionScales.length),
  };
}

/** The tensors of the blocks and of the norm behind them, in the order of use. */
function towerParameters(specs: GptSpecs): ParameterSpec[] {
  const blocks = specs.blocks.flatMap((block) => [
    ...[block.attentionNorm.weight, block.attentionNorm.bias],
    ...[block.queryKeyValue, block.output].flatMap(tensorsOf),
    ...[block.mlpNorm.weight, block.mlpNorm.bias],
    ...[block.up, block.down].flatMap(tensorsOf),
  ]);
  return [...blocks, specs.norm.weight, specs.norm.bias];
}

function parametersOf(specs: GptSpecs): ParameterSpec[] {
  const head = specs.head === undefined ? [] : [specs.head];
  return [specs.tokens, specs.positions, ...towerParameters(specs), ...head];
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
    activation: config.activation,
    parameters,
    linears: linearsOf(parameters),
    narrow: (reduction, prefix) => narrowGpt(config, specs, reduction, prefix),
    forward: (context, inputs) => forward(config, specs, context, inputs),
  };
}

function narrowGpt(config: GptConfig, of: GptSpecs, reduction: number, prefix: string): NarrowModel {
  divided("the width of a head", config.width / config.heads, reduction);
  const narrow: GptConfig = {
    ...config,
    width: divided("the model's width", config.width, reduction),
    hidden: divided("the width of the MLP", config.hidden, reduction),
    attentionScales: config.attentionScales.map((scale) => scale * Math.sqrt(reduction)),
  };
  const specs = gptSpecs(narrow, prefix);
  return {
    width: narrow.width,
    parameters: paired(towerParameters(specs), towerParameters(of)),
    build: (context) => tower(narrow, specs, context),
  };
}

function forward(config: GptConfig, specs: GptSpecs, context: ForwardContext, inputs: ForwardInputs): ForwardResult {
  const { graph } = context;
  const tokens = context.parameter(specs.tokens);
  const start = graph.inScope("embedding", () => {
    const places = gather(context.parameter(specs.positions), inputs.positions);
    const rows = context.embedded(stored(context, gather(tokens, inputs.ids)));
    return stored(context, add(cast(rows, "f32"), cast(places, "f32")));
  });
  const hidden = context.stack(tower(config, specs, context), start);
  const head = specs.head === undefined ? tokens : context.parameter(specs.head);
  return { hidden, head: graph.inScope("head", () => stored(context, head)) };
}

function tower(config: GptConfig, specs: GptSpecs, context: ForwardContext): Tower {
  return {
    blocks: specs.blocks.map((block, index) => gptBlock(config, context, block, index)),
    norm: (x) => context.graph.inScope("norm", () => norm(config, context, specs.norm, x)),
  };
}

function norm({ epsilon }: GptConfig, context: ForwardContext, specs: NormSpecs, x: Node): Node {
  return stored(context, layerNorm(x, context.parameter(specs.weight), context.parameter(specs.bias), epsilon));
}

function gptBlock(config: GptConfig, context: ForwardContext, specs: BlockSpecs, index: number): Block {
  const { graph } = context;
  const residual = (from: Node, part: Node): Node => stored(context, add(cast(from, "f32"), part));
  const inPart = (part: BlockPart, build: () => Node): Node =>
    graph.inScope(`blocks.${index}`, () => graph.inScope(part, build));
  const read = (x: Node): Node => context.represent({ role: "norm", block: index }, x);
  const mlp = (x: Node): Node => {
    const up = context.represent({ role: "up", block: index }, stored(context, context.linear(specs.up, x)));
    return context.linear(specs.down, stored(context, activate(config.activation, up)));
  };
  return {
    index,
    attention: (x) =>
      inPart("attention", () => {
        const normal = norm(config, context, specs.attentionNorm, read(x));
        return residual(
          x,
          context.part("attention", index, normal, (own) => selfAttention(config, context, specs, own)),
        );
      }),
    mlp: (x) =>
      inPart("mlp", () => residual(x, context.part("mlp", index, norm(config, context, specs.mlpNorm, read(x)), mlp))),
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
