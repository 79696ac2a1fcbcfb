import { z } from "zod";
import { decoderFields } from "../config.js";
import { decoderFamily } from "../decoder-family.js";
import type { DecoderConfig } from "../decoder-specs.js";
import { decoderJson } from "../gguf-config.js";
import { decoderConfig, slidingBlocks } from "./shared.js";

const qwenFields = decoderFields.extend({
  max_window_layers: z.int().nonnegative().default(28),
  attention_bias: z.boolean().nullish(),
});

/** Blocks after the first `max_window_layers` have a sliding window, where it is switched on. */
function qwenConfig(family: string, fields: z.output<typeof qwenFields>): DecoderConfig {
  const window = fields.use_sliding_window === true ? (fields.sliding_window ?? 0) : 0;
  const config = decoderConfig(family, fields);
  const sliding = slidingBlocks(family, fields, (block) => block >= fields.max_window_layers);
  const attention = config.attention.map((block, index) => ({
    ...block,
    window: sliding[index] === true ? window : 0,
  }));
  return { ...config, attention };
}

/** Qwen 2 and 2.5: biases on queries, keys and values. */
export const qwen2 = decoderFamily({
  id: "qwen2",
  modelTypes: ["qwen2"],
  architectures: ["qwen2"],
  schema: qwenFields,
  configure: (fields) => ({ ...qwenConfig("qwen2", fields), bias: { inputs: true, output: false, mlp: false } }),
  huggingFaceJson: decoderJson,
});

/** Qwen 3: queries and keys normalised head by head, heads of a width of their own. */
export const qwen3 = decoderFamily({
  id: "qwen3",
  modelTypes: ["qwen3"],
  architectures: ["qwen3"],
  schema: qwenFields.extend({ head_dim: z.int().positive().max(65536).default(128) }),
  configure: (fields) => {
    const bias = fields.attention_bias ?? false;
    const config = qwenConfig("qwen3", fields);
    return { ...config, queryKeyNorms: true, bias: { inputs: bias, output: bias, mlp: false } };
  },
  huggingFaceJson: decoderJson,
});
