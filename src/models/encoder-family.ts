import { ThimbleError } from "../errors.js";
import type { Family } from "./family.js";
import type { ModelDefinition } from "./types.js";

export interface EncoderFamilyOptions {
  readonly id: string;
  readonly modelTypes: readonly string[];
  readonly prefix: string;
  readonly definition: (json: unknown) => ModelDefinition;
}

/** What pretraining and other tasks leave in a checkpoint beside the body; old files call a norm's tensors otherwise. */
const otherHeads = [
  /(^|\.)embeddings\.position_ids$/,
  /^cls\./,
  /^lm_head\./,
  /^qa_outputs\./,
  /(^|\.)pooler\.dense\.(weight|bias)$/,
];

/** A family of encoders, which are read from Hugging Face's files alone: GGUF files have no head of a task. */
export function encoderFamily({ id, modelTypes, prefix, definition }: EncoderFamilyOptions): Family {
  const refused = (): never => {
    throw new ThimbleError(
      "model-setting",
      `Thimble reads ${id} models from Hugging Face folders, not from GGUF files`,
      {
        given: "a GGUF file",
        fix: "Name the folder of the original checkpoint.",
      },
    );
  };
  return {
    id,
    modelTypes,
    architectures: [],
    prefix,
    tells: "records",
    ignored: otherHeads,
    alias: (name) =>
      name.replace(/LayerNorm\.weight$/, "LayerNorm.gamma").replace(/LayerNorm\.bias$/, "LayerNorm.beta"),
    fromHuggingFace: definition,
    fromGguf: refused,
    ggufTensor: refused,
  };
}
