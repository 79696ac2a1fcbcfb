import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { add, cast, tanh } from "../ops/arithmetic.js";
import { gather } from "../ops/gather.js";
import { reshape, slice } from "../ops/layout.js";
import type { EncoderBlockSpecs, EncoderConfig, EncoderSpecs, NormSpecs } from "./encoder-specs.js";
import { encoderParameters, encoderSpecs, headTensors, towerParameters } from "./encoder-specs.js";
import { activate, layerNorm, stored } from "./layers.js";
import { divided, paired } from "./narrow.js";
import { linearsOf, weightOf } from "./parameters.js";
import type {
  Block,
  BlockPart,
  ForwardContext,
  ForwardInputs,
  ForwardResult,
  ModelDefinition,
  NarrowModel,
  Tower,
} from "./types.js";

/**
 * A model of BERT's architecture (Devlin et al., arXiv 1810.04805): learned positions, attention in both directions,
 * norms behind the residuals, and a head on the first token that tells a class or a number.
 */
export function encoderModel(config: EncoderConfig): ModelDefinition {
  const specs = encoderSpecs(config);
  const parameters = encoderParameters(config, specs);
  return {
    family: config.family,
    vocabularySize: config.vocabularySize,
    width: config.width,
    blocks: config.blocks,
    keyHeads: config.heads,
    headWidth: config.width / config.heads,
    contextLength: config.positions - config.positionOffset,
    tiedEmbeddings: false,
    activation: config.activation,
    parameters,
    linears: linearsOf(parameters),
    tokenTypes: config.tokenTypes,
    task: { ...config.task, head: headTensors(specs) },
    narrow: (reduction, prefix) => narrowEncoder(config, specs, reduction, prefix),
    forward: (context, inputs) => forward(config, specs, context, inputs),
  };
}

function narrowEncoder(config: EncoderConfig, of: EncoderSpecs, reduction: number, prefix: string): NarrowModel {
  divided("the width of a head", config.width / config.heads, reduction);
  const width = divided("the model's width", config.width, reduction);
  const hidden = divided("the width of the MLP", config.hidden, reduction);
  const narrow = { ...config, root: prefix, width, hidden };
  const specs = encoderSpecs(narrow);
  return {
    width,
    parameters: paired(towerParameters(specs), towerParameters(of)),
    build: (context) => tower(narrow, specs, context),
  };
}

function forward(
  config: EncoderConfig,
  specs: EncoderSpecs,
  context: ForwardContext,
  inputs: ForwardInputs,
): ForwardResult {
  const { graph } = context;
  const start = graph.inScope("embedding", () => embed(config, specs, context, inputs));
  const hidden = context.stack(tower(config, specs, context), start);
  return graph.inScope("head", () => {
    const pooled = stored(context, tanh(context.linear(specs.dense, firstRows(context, hidden))));
    const logits = context.linear(specs.last, pooled);
    return { hidden: pooled, head: context.parameter(weightOf(specs.last)), logits };
  });
}

/** Norms stand at the end of each block, and none behind all. */
function tower(config: EncoderConfig, specs: EncoderSpecs, context: ForwardContext): Tower {
  return {
    blocks: specs.blocks.map((block, index) => encoderBlock(config, context, block, index)),
    norm: (x) => x,
  };
}

/** Token, type and position together, normalised: [tokens, d] as stored. */
function embed(config: EncoderConfig, specs: EncoderSpecs, context: ForwardContext, inputs: ForwardInputs): Node {
  const { positionOffset: offset, width } = config;
  const words = context.parameter(specs.words);
  const positions = context.parameter(specs.positions);
  const table = context.parameter(specs.types);
  // Without types, every token is of the first.
  const types =
    inputs.types === undefined ? reshape(slice(table, [0, 0], [1, width]), [width]) : gather(table, inputs.types);
  const places = offset === 0 ? inputs.positions : add(inputs.positions, offset);
  const rows = context.embedded(stored(context, gather(words, inputs.ids)));
  const tokens = add(cast(rows, "f32"), cast(types, "f32"));
  const whole = add(tokens, cast(gather(positions, places), "f32"));
  return norm(config, context, specs.norm, whole);
}

function norm({ epsilon }: EncoderConfig, context: ForwardContext, specs: NormSpecs, x: Node): Node {
  return stored(context, layerNorm(x, context.parameter(specs.weight), context.parameter(specs.bias), epsilon));
}

function encoderBlock(config: EncoderConfig, context: ForwardContext, specs: EncoderBlockSpecs, index: number): Block {
  const { graph } = context;
  const inPart = (part: BlockPart, build: () => Node): Node =>
    graph.inScope(`blocks.${index}`, () => graph.inScope(part, build));
  const mlp = (x: Node): Node => {
    const up = stored(context, context.linear(specs.up, x));
    return context.linear(specs.down, stored(context, activate(config.activation, up)));
  };
  const behind = (x: Node, part: Node, specsOfNorm: NormSpecs): Node =>
    norm(config, context, specsOfNorm, add(cast(x, "f32"), part));
  return {
    index,
    attention: (x) =>
      inPart("attention", () => {
        const part = context.part("attention", index, x, (own) => selfAttention(config, context, specs, own));
        return behind(x, part, specs.attentionNorm);
      }),
    mlp: (x) => inPart("mlp", () => behind(x, context.part("mlp", index, x, mlp), specs.mlpNorm)),
  };
}

/** x [tokens, d] -> f32 [tokens, d]; every token sees all of its row but padding. */
function selfAttention(config: EncoderConfig, context: ForwardContext, specs: EncoderBlockSpecs, x: Node): Node {
  const { batch, length } = context;
  const { width, heads } = config;
  const headed = [specs.query, specs.key, specs.value].map((spec) =>
    reshape(stored(context, context.linear(spec, x)), [batch, length, heads, width / heads]),
  );
  const [q, k, v] = [0, 1, 2].map((index) => must(headed[index], "heads"));
  const scale = 1 / Math.sqrt(width / heads);
  const options = { window: 0, scale, causal: false };
  const mixed = context.attention(specs.output.block, must(q, "q"), must(k, "k"), must(v, "v"), options);
  return context.linear(specs.output, reshape(mixed, [batch * length, width]));
}

/** The first token of each row: [B*T, d] -> [B, d]. */
function firstRows({ batch, length }: ForwardContext, x: Node): Node {
  const width = must(x.shape[1], "width");
  return reshape(slice(reshape(x, [batch, length, width]), [0, 0, 0], [batch, 1, width]), [batch, width]);
}
