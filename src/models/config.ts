import { z } from "zod";
import { ThimbleError } from "../errors.js";
import type { Activation } from "./types.js";

/** A count in a configuration; bounded, as sizes are computed from it. */
export const size = z
  .int()
  .positive()
  .max(2 ** 31);
export const blockCount = z.int().positive().max(4096);
const positive = z.number().positive();

/** A rotary setting as config.json writes it, in its old and its new form. */
export const rotaryParameters = z.looseObject({
  rope_type: z.string().optional(),
  type: z.string().optional(),
  rope_theta: positive.optional(),
  factor: positive.optional(),
  low_freq_factor: positive.optional(),
  high_freq_factor: positive.optional(),
  original_max_position_embeddings: positive.optional(),
  partial_rotary_factor: positive.optional(),
});

/** Fields of config.json that all families with rotary positions share. */
export const decoderFields = z.object({
  vocab_size: size,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: blockCount,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  hidden_act: z.string().default("silu"),
  max_position_embeddings: size,
  rms_norm_eps: positive.default(1e-6),
  tie_word_embeddings: z.boolean().default(false),
  rope_theta: positive.nullish(),
  rope_scaling: rotaryParameters.nullish(),
  rope_parameters: rotaryParameters.nullish(),
  partial_rotary_factor: positive.nullish(),
  sliding_window: size.nullish(),
  use_sliding_window: z.boolean().nullish(),
  layer_types: z.array(z.string()).nullish(),
});

/** Settings of any family that Thimble does not compute; their presence must not pass in silence. */
const refused = z.looseObject({ quantization_config: z.unknown() });

export function unsupportedSetting(family: string, key: string, given: unknown, expected: string): ThimbleError {
  return new ThimbleError("model-setting", `Thimble's ${family} does not support this value of ${key}`, {
    given: `${key} = ${JSON.stringify(given)}`,
    expected,
    where: "config.json",
  });
}

/** The fields of a configuration, checked; an error names the field, what it holds and what it may hold. */
export function parseConfig<Schema extends z.ZodType>(
  family: string,
  schema: Schema,
  config: unknown,
): z.output<Schema> {
  const parsed = schema.safeParse(config);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new ThimbleError("model-config", `The configuration is not one of a ${family} model`, {
      given: problems.join("; "),
      where: "config.json",
    });
  }
  const quantised = refused.safeParse(config).data?.quantization_config;
  if (quantised !== undefined && quantised !== null) {
    throw new ThimbleError("model-setting", "Quantised Hugging Face checkpoints are not read", {
      given: `quantization_config = ${JSON.stringify(quantised)}`,
      where: "config.json",
      fix: "Use the unquantised checkpoint (Thimble quantises it while loading), or a GGUF file.",
    });
  }
  return parsed.data;
}

const activations: Readonly<Record<string, Activation>> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_new: "gelu-tanh",
  gelu_pytorch_tanh: "gelu-tanh",
  gelu_fast: "gelu-tanh",
};

export function activationNamed(family: string, key: string, name: string): Activation {
  const activation = Object.hasOwn(activations, name) ? activations[name] : undefined;
  if (activation === undefined) throw unsupportedSetting(family, key, name, Object.keys(activations).join(", "));
  return activation;
}
