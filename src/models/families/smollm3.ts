import { z } from "zod";
import { decoderFields, unsupportedSetting } from "../config.js";
import { decoderFamily } from "../decoder-family.js";
import { decoderJson } from "../gguf-config.js";
import { decoderConfig, slidingBlocks } from "./shared.js";

/** SmolLM3: llama in which some blocks do not turn queries and keys. (SmolLM and SmolLM2 are llama itself.) */
export const smollm3 = decoderFamily({
  id: "smollm3",
  modelTypes: ["smollm3"],
  architectures: ["smollm3"],
  schema: decoderFields.extend({
    tie_word_embeddings: z.boolean().default(true),
    attention_bias: z.boolean().nullish(),
    mlp_bias: z.boolean().nullish(),
    /** 1 where a block turns. */
    no_rope_layers: z.array(z.int()).nullish(),
    no_rope_layer_interval: z.int().positive().default(4),
  }),
  configure: (fields) => {
    const config = decoderConfig("smollm3", fields, 2_000_000);
    const { no_rope_layers: listed, no_rope_layer_interval: interval, num_hidden_layers: blocks } = fields;
    if (listed && listed.length < blocks) {
      throw unsupportedSetting("smollm3", "no_rope_layers", listed, `at least ${blocks} entries`);
    }
    const turns = config.attention.map((_, block) => (listed ? listed[block] === 1 : (block + 1) % interval !== 0));
    const window = fields.use_sliding_window === true ? (fields.sliding_window ?? 0) : 0;
    const sliding = slidingBlocks("smollm3", fields, (block) => turns[block] === false);
    const attentionBias = fields.attention_bias ?? false;
    return {
      ...config,
      bias: { inputs: attentionBias, output: attentionBias, mlp: fields.mlp_bias ?? false },
      attention: config.attention.map(({ rotary }, block) => ({
        rotary: turns[block] === true ? rotary : undefined,
        window: sliding[block] === true ? window : 0,
      })),
    };
  },
  huggingFaceJson: decoderJson,
  interleaved: true,
});
