import type { z } from "zod";
import type { decoderFields } from "../config.js";
import { activationNamed, unsupportedSetting } from "../config.js";
import { rotaryFrom } from "../config-rotary.js";
import type { DecoderConfig } from "../decoder-specs.js";
import type { Rotary } from "../types.js";

type DecoderFields = z.output<typeof decoderFields>;

/** What a plain llama-like configuration means; families override what differs. */
export function decoderConfig(family: string, fields: DecoderFields, theta = 10000): DecoderConfig {
  const { heads, keyHeads, headWidth } = headSizes(family, fields);
  const contextLength = fields.max_position_embeddings;
  const rotary = rotaryFrom(fields, { family, width: headWidth, theta, contextLength });
  return {
    family,
    vocabularySize: fields.vocab_size,
    width: fields.hidden_size,
    hidden: fields.intermediate_size,
    heads,
    keyHeads,
    headWidth,
    contextLength,
    tied: fields.tie_word_embeddings,
    epsilon: fields.rms_norm_eps,
    plusOneNorms: false,
    activation: activationNamed(family, "hidden_act", fields.hidden_act),
    attentionScale: 1 / Math.sqrt(headWidth),
    embeddingScale: 1,
    bias: { inputs: false, output: false, mlp: false },
    queryKeyNorms: false,
    outputNorms: false,
    attention: uniform(fields.num_hidden_layers, rotary, 0),
  };
}

function headSizes(family: string, fields: DecoderFields): Pick<DecoderConfig, "heads" | "keyHeads" | "headWidth"> {
  const heads = fields.num_attention_heads;
  const keyHeads = fields.num_key_value_heads ?? heads;
  const headWidth = fields.head_dim ?? fields.hidden_size / heads;
  if (!Number.isInteger(headWidth)) {
    throw unsupportedSetting(family, "num_attention_heads", heads, `a divisor of hidden_size = ${fields.hidden_size}`);
  }
  if (heads % keyHeads !== 0) {
    throw unsupportedSetting(family, "num_key_value_heads", keyHeads, `a divisor of num_attention_heads = ${heads}`);
  }
  return { heads, keyHeads, headWidth };
}

function uniform(blocks: number, rotary: Rotary | undefined, window: number): DecoderConfig["attention"] {
  return Array.from({ length: blocks }, () => ({ rotary, window }));
}

/** Which blocks have a sliding window, from `layer_types`, or from the family's rule where it is absent. */
export function slidingBlocks(
  family: string,
  fields: Pick<DecoderFields, "layer_types" | "num_hidden_layers">,
  rule: (block: number) => boolean,
): boolean[] {
  const blocks = fields.num_hidden_layers;
  const types = fields.layer_types;
  if (types === undefined || types === null) return Array.from({ length: blocks }, (_, block) => rule(block));
  const unknown = types.find((type) => type !== "sliding_attention" && type !== "full_attention");
  if (unknown !== undefined || types.length !== blocks) {
    throw unsupportedSetting(family, "layer_types", types, `${blocks} of full_attention or sliding_attention`);
  }
  return types.map((type) => type === "sliding_attention");
}
