import { z } from "zod";
import { activationNamed, decoderFields, rotaryParameters, size, unsupportedSetting } from "../config.js";
import { rotaryFrom } from "../config-rotary.js";
import { decoderFamily } from "../decoder-family.js";
import type { DecoderConfig } from "../decoder-specs.js";
import { decoderJson } from "../gguf-config.js";
import type { Rotary } from "../types.js";
import { decoderConfig, slidingBlocks } from "./shared.js";

const family = "gemma3";
const softcap = z.number().nullish();

const schema = decoderFields.extend({
  hidden_activation: z.string().default("gelu_pytorch_tanh"),
  num_key_value_heads: size.default(4),
  head_dim: size.default(256),
  tie_word_embeddings: z.boolean().default(true),
  query_pre_attn_scalar: z.number().positive().default(256),
  sliding_window: size.nullable().default(4096),
  sliding_window_pattern: z.int().positive().default(6),
  rope_local_base_freq: z.number().positive().default(10_000),
  rope_parameters: z
    .object({ full_attention: rotaryParameters.nullish(), sliding_attention: rotaryParameters.nullish() })
    .nullish(),
  attention_bias: z.boolean().nullish(),
  final_logit_softcapping: softcap,
  attn_logit_softcapping: softcap,
  use_bidirectional_attention: z.boolean().nullish(),
});

type Fields = z.output<typeof schema>;

/** Frequencies of full attention and of sliding blocks, which have a base of their own and no scaling. */
function rotaries(fields: Fields): { full: Rotary; sliding: Rotary } {
  const { rope_parameters: both, rope_theta, rope_scaling, rope_local_base_freq, max_position_embeddings } = fields;
  const defaults = { family, width: fields.head_dim, contextLength: max_position_embeddings };
  const own = both?.full_attention;
  const full = own ? { rope_parameters: own } : { rope_theta, rope_scaling };
  return {
    full: rotaryFrom(full, { ...defaults, theta: 1_000_000 }),
    sliding: rotaryFrom({ rope_parameters: both?.sliding_attention }, { ...defaults, theta: rope_local_base_freq }),
  };
}

function refuseUnsupported(fields: Fields): void {
  for (const key of ["final_logit_softcapping", "attn_logit_softcapping"] as const) {
    if (typeof fields[key] === "number") throw unsupportedSetting(family, key, fields[key], "null");
  }
  if (fields.use_bidirectional_attention === true) {
    throw unsupportedSetting(family, "use_bidirectional_attention", true, "false");
  }
}

function configure(fields: Fields): DecoderConfig {
  refuseUnsupported(fields);
  const { full, sliding } = rotaries(fields);
  const plain = decoderConfig(family, { ...fields, rope_parameters: null });
  const pattern = slidingBlocks(family, fields, (block) => (block + 1) % fields.sliding_window_pattern !== 0);
  const bias = fields.attention_bias ?? false;
  return {
    ...plain,
    plusOneNorms: true,
    activation: activationNamed(family, "hidden_activation", fields.hidden_activation),
    attentionScale: 1 / Math.sqrt(fields.query_pre_attn_scalar),
    embeddingScale: Math.sqrt(fields.hidden_size),
    bias: { inputs: bias, output: bias, mlp: false },
    queryKeyNorms: true,
    outputNorms: true,
    attention: pattern.map((slides) =>
      slides ? { rotary: sliding, window: fields.sliding_window ?? 0 } : { rotary: full, window: 0 },
    ),
  };
}

/** Gemma 3's text models: sliding and full attention in turn, norms on both sides, scaled embeddings. */
export const gemma3 = decoderFamily({
  id: family,
  modelTypes: ["gemma3_text"],
  architectures: ["gemma3"],
  schema,
  configure,
  huggingFaceJson: (settings) => {
    const json = decoderJson(settings);
    const headWidth = Number(json["head_dim"]);
    // llama.cpp's rule: only the 27B model scales by its width a head.
    const large = settings.get("block_count") === 62;
    const perHead = settings.get("embedding_length") / settings.get("attention.head_count");
    return {
      ...json,
      query_pre_attn_scalar: large ? perHead : headWidth,
      sliding_window: settings.get("attention.sliding_window"),
      sliding_window_pattern: settings.find("attention.sliding_window_pattern") ?? 6,
      rope_theta: settings.find("rope.freq_base") ?? 1_000_000,
      rope_local_base_freq: settings.find("rope.freq_base_swa") ?? 10_000,
      final_logit_softcapping: settings.find("final_logit_softcapping"),
    };
  },
  shiftedNorms: true,
  names: {
    post_attention_layernorm: "post_attention_norm",
    pre_feedforward_layernorm: "ffn_norm",
    post_feedforward_layernorm: "post_ffw_norm",
  },
});
