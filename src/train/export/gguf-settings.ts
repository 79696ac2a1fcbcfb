import { ThimbleError } from "../../errors.js";
import type { GgufValue } from "../../io/gguf-metadata.js";
import type { ModelDefinition } from "../../models/types.js";
import { modelFamily } from "../../models/registry.js";

type Json = Readonly<Record<string, unknown>>;

const architectures: Readonly<Record<string, string>> = { mistral: "llama" };

export const u32 = (value: number): GgufValue => ({ type: "u32", value });
export const f32 = (value: number): GgufValue => ({ type: "f32", value });
export const text = (value: string): GgufValue => ({ type: "string", value });
export const bool = (value: boolean): GgufValue => ({ type: "bool", value });

/** A number of a configuration, or undefined. */
function numberOf(config: Json, key: string): number | undefined {
  const value = config[key];
  return typeof value === "number" ? value : undefined;
}

/** `general.architecture` of a Hugging Face model, as llama.cpp names it. */
export function architectureOf(config: Json): string {
  const { id, architectures: known } = modelFamily(String(config["model_type"]));
  return architectures[id] ?? known[0] ?? id;
}

/** The model's settings as llama.cpp's converter writes them (convert_hf_to_gguf.py, set_gguf_parameters). */
export function modelSettings(config: Json, definition: ModelDefinition): Map<string, GgufValue> {
  const architecture = architectureOf(config);
  const own = architecture === "gpt2" ? gpt2Settings(config) : decoderSettings(config, definition);
  const common: Record<string, GgufValue> = {
    context_length: u32(definition.contextLength),
    embedding_length: u32(definition.width),
    block_count: u32(definition.blocks),
    vocab_size: u32(definition.vocabularySize),
  };
  return new Map(Object.entries({ ...common, ...own }).map(([key, value]) => [`${architecture}.${key}`, value]));
}

function required(config: Json, key: string): number {
  const value = numberOf(config, key);
  if (value !== undefined) return value;
  throw new ThimbleError("model-config", "The configuration lacks a number that a GGUF file needs", { where: key });
}

function gpt2Settings(config: Json): Record<string, GgufValue> {
  return {
    feed_forward_length: u32(numberOf(config, "n_inner") ?? 4 * required(config, "n_embd")),
    "attention.head_count": u32(required(config, "n_head")),
    "attention.layer_norm_epsilon": f32(numberOf(config, "layer_norm_epsilon") ?? 1e-5),
  };
}

function decoderSettings(config: Json, definition: ModelDefinition): Record<string, GgufValue> {
  const { headWidth, keyHeads } = definition;
  const rotary = rotaryOf(config);
  const scaling = rotary.kind === "linear" ? rotary.factor : undefined;
  const window = numberOf(config, "sliding_window");
  const gemma = String(config["model_type"]).startsWith("gemma3");
  return {
    feed_forward_length: u32(required(config, "intermediate_size")),
    "attention.head_count": u32(required(config, "num_attention_heads")),
    "attention.head_count_kv": u32(keyHeads),
    "attention.key_length": u32(headWidth),
    "attention.value_length": u32(headWidth),
    "attention.layer_norm_rms_epsilon": f32(numberOf(config, "rms_norm_eps") ?? 1e-6),
    "rope.dimension_count": u32(headWidth),
    "rope.freq_base": f32(rotary.theta ?? (gemma ? 1e6 : 1e4)),
    ...(scaling === undefined ? {} : { "rope.scaling.type": text("linear"), "rope.scaling.factor": f32(scaling) }),
    ...(gemma ? gemmaSettings(config, window ?? 4096) : {}),
  };
}

function gemmaSettings(config: Json, window: number): Record<string, GgufValue> {
  const parameters = objectOf(objectOf(config["rope_parameters"])["sliding_attention"]);
  const local = numberOf(parameters, "rope_theta") ?? numberOf(config, "rope_local_base_freq") ?? 1e4;
  return { "attention.sliding_window": u32(window), "rope.freq_base_swa": f32(local) };
}

function objectOf(value: unknown): Json {
  return typeof value === "object" && value !== null ? (value as Json) : {};
}

interface RotarySetting {
  readonly theta: number | undefined;
  readonly kind: string;
  readonly factor: number;
  readonly values: Json;
}

/** The rotary setting of full attention, in its old or its new form. */
function rotaryOf(config: Json): RotarySetting {
  const both = objectOf(config["rope_parameters"]);
  const values =
    "full_attention" in both ? objectOf(both["full_attention"]) : { ...objectOf(config["rope_scaling"]), ...both };
  const kind = values["rope_type"] ?? values["type"] ?? "default";
  return {
    theta: numberOf(values, "rope_theta") ?? numberOf(config, "rope_theta"),
    kind: typeof kind === "string" ? kind : "default",
    factor: numberOf(values, "factor") ?? 1,
    values,
  };
}

/** Divisors of the frequencies for Llama 3's scaling: the tensor `rope_freqs.weight`; undefined for other kinds. */
export function rotaryFactors(config: Json, definition: ModelDefinition): Float32Array | undefined {
  const { kind, theta = 1e4, factor, values } = rotaryOf(config);
  if (kind !== "llama3") return undefined;
  const low = numberOf(values, "low_freq_factor") ?? 1;
  const high = numberOf(values, "high_freq_factor") ?? 4;
  const context = numberOf(values, "original_max_position_embeddings") ?? definition.contextLength;
  return Float32Array.from({ length: definition.headWidth / 2 }, (_, pair) => {
    const turns = (context * theta ** ((-2 * pair) / definition.headWidth)) / (2 * Math.PI);
    const share = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return 1 / ((1 - share) / factor + share);
  });
}
