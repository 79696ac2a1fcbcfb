import { z } from "zod";
import { decoderFields } from "../config.js";
import { decoderFamily } from "../decoder-family.js";
import { decoderJson } from "../gguf-config.js";
import { decoderConfig } from "./shared.js";

/** Llama 1 to 3 and what shares its architecture: SmolLM, SmolLM2, TinyLlama. */
export const llama = decoderFamily({
  id: "llama",
  modelTypes: ["llama"],
  architectures: ["llama"],
  schema: decoderFields.extend({
    attention_bias: z.boolean().nullish(),
    mlp_bias: z.boolean().nullish(),
  }),
  configure: (fields) => {
    const attention = fields.attention_bias ?? false;
    const bias = { inputs: attention, output: attention, mlp: fields.mlp_bias ?? false };
    return { ...decoderConfig("llama", fields), bias };
  },
  huggingFaceJson: decoderJson,
  interleaved: true,
});
