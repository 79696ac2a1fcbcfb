import { decoderFields } from "../config.js";
import { decoderFamily } from "../decoder-family.js";
import { decoderJson } from "../gguf-config.js";
import { decoderConfig } from "./shared.js";

/** Mistral 7B and its successors: llama with a sliding window in all blocks or none. GGUF files call it llama. */
export const mistral = decoderFamily({
  id: "mistral",
  modelTypes: ["mistral"],
  architectures: [],
  schema: decoderFields,
  configure: (fields) => {
    const config = decoderConfig("mistral", fields);
    const window = fields.sliding_window ?? 0;
    return { ...config, attention: config.attention.map((block) => ({ ...block, window })) };
  },
  huggingFaceJson: decoderJson,
  interleaved: true,
});
