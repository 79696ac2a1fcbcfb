import { z } from "zod";
import { activationNamed, blockCount, parseConfig, size, unsupportedSetting } from "../config.js";
import { ggufName } from "../decoder-family.js";
import type { Family } from "../family.js";
import { GgufSettings } from "../gguf-config.js";
import type { GptConfig } from "../gpt.js";
import { gptModel } from "../gpt.js";

const schema = z.object({
  vocab_size: size,
  n_embd: size,
  n_layer: blockCount,
  n_head: size,
  n_positions: size,
  n_inner: size.nullish(),
  activation_function: z.string().default("gelu_new"),
  layer_norm_epsilon: z.number().positive().default(1e-5),
  tie_word_embeddings: z.boolean().default(true),
  scale_attn_weights: z.boolean().default(true),
  scale_attn_by_inverse_layer_idx: z.boolean().default(false),
  add_cross_attention: z.boolean().default(false),
});

const ggufNames: Readonly<Record<string, string>> = {
  "transformer.wte": "token_embd",
  "transformer.wpe": "position_embd",
  "transformer.ln_f": "output_norm",
  lm_head: "output",
  ln_1: "attn_norm",
  "attn.c_attn": "attn_qkv",
  "attn.c_proj": "attn_output",
  ln_2: "ffn_norm",
  "mlp.c_fc": "ffn_up",
  "mlp.c_proj": "ffn_down",
};

function configure(json: unknown, transposed: boolean): GptConfig {
  const fields = parseConfig("gpt2", schema, json);
  const { n_embd: width, n_head: heads } = fields;
  if (width % heads !== 0) throw unsupportedSetting("gpt2", "n_head", heads, `a divisor of n_embd = ${width}`);
  if (fields.add_cross_attention) throw unsupportedSetting("gpt2", "add_cross_attention", true, "false");
  const scale = fields.scale_attn_weights ? 1 / Math.sqrt(width / heads) : 1;
  return {
    vocabularySize: fields.vocab_size,
    width,
    hidden: fields.n_inner ?? 4 * width,
    heads,
    contextLength: fields.n_positions,
    tied: fields.tie_word_embeddings,
    epsilon: fields.layer_norm_epsilon,
    activation: activationNamed("gpt2", "activation_function", fields.activation_function),
    attentionScales: Array.from({ length: fields.n_layer }, (_, block) =>
      fields.scale_attn_by_inverse_layer_idx ? scale / (block + 1) : scale,
    ),
    transposed,
  };
}

/** GPT-2 and DistilGPT-2. Hugging Face stores its linear weights as [in, out]; GGUF files as [out, in]. */
export const gpt2: Family = {
  id: "gpt2",
  modelTypes: ["gpt2"],
  architectures: ["gpt2"],
  prefix: "transformer.",
  ignored: [/\.attn\.(masked_)?bias$/],
  fromHuggingFace: (config) => gptModel(configure(config, true)),
  fromGguf: (facts) => {
    const settings = new GgufSettings(facts);
    const json = {
      vocab_size: facts.tensors.get("token_embd.weight")?.[0],
      n_embd: settings.get("embedding_length"),
      n_layer: settings.get("block_count"),
      n_head: settings.get("attention.head_count"),
      n_positions: settings.get("context_length"),
      n_inner: settings.get("feed_forward_length"),
      layer_norm_epsilon: settings.get("attention.layer_norm_epsilon"),
      tie_word_embeddings: !settings.has("output.weight"),
    };
    return gptModel(configure(json, false));
  },
  ggufTensor: (_definition, parameter) => ({
    name: ggufName(parameter.name, "transformer.h.", ggufNames),
    interleavedHeads: 0,
    added: 0,
  }),
};
