import { ThimbleError } from "../errors.js";
import { llama3Scaling } from "./config-rotary.js";
import type { GgufFacts } from "./family.js";

/** Reads one architecture's numbers from GGUF metadata. */
export class GgufSettings {
  readonly architecture: string;

  constructor(readonly facts: GgufFacts) {
    this.architecture = String(facts.metadata.get("general.architecture"));
  }

  #key(key: string): string {
    return `${this.architecture}.${key}`;
  }

  /** A number, or undefined where the file does not state it. */
  find(key: string): number | undefined {
    const value = this.facts.metadata.get(this.#key(key));
    if (value === undefined) return undefined;
    if (typeof value === "number") return value;
    if (typeof value === "bigint") return Number(value);
    throw new ThimbleError("model-setting", "Thimble reads this GGUF setting only as one number for all blocks", {
      given: typeof value,
      where: this.#key(key),
    });
  }

  get(key: string): number {
    const value = this.find(key);
    if (value !== undefined) return value;
    throw new ThimbleError("model-config", "The GGUF file does not state a setting that the model needs", {
      where: this.#key(key),
    });
  }

  text(key: string): string | undefined {
    const value = this.facts.metadata.get(this.#key(key));
    return typeof value === "string" ? value : undefined;
  }

  has(tensor: string): boolean {
    return this.facts.tensors.has(tensor);
  }
}

/** The fields of config.json that a GGUF file's metadata stands for, for families with rotary positions. */
export function decoderJson(settings: GgufSettings): Record<string, unknown> {
  refuseExperts(settings);
  const heads = settings.get("attention.head_count");
  const width = settings.get("embedding_length");
  const theta = settings.find("rope.freq_base") ?? 10000;
  const headWidth = settings.find("attention.key_length") ?? width / heads;
  const turning = settings.find("rope.dimension_count") ?? headWidth;
  return {
    vocab_size: settings.facts.tensors.get("token_embd.weight")?.[0],
    hidden_size: width,
    intermediate_size: settings.get("feed_forward_length"),
    num_hidden_layers: settings.get("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: settings.find("attention.head_count_kv") ?? heads,
    head_dim: headWidth,
    max_position_embeddings: settings.get("context_length"),
    rms_norm_eps: settings.get("attention.layer_norm_rms_epsilon"),
    tie_word_embeddings: !settings.has("output.weight"),
    rope_theta: theta,
    rope_scaling: rotaryScaling(settings, theta),
    partial_rotary_factor: turning / headWidth,
    attention_bias: settings.has("blk.0.attn_q.bias"),
    mlp_bias: settings.has("blk.0.ffn_gate.bias"),
  };
}

function refuseExperts(settings: GgufSettings): void {
  const experts = settings.find("expert_count") ?? 0;
  if (experts === 0) return;
  throw new ThimbleError("model-setting", "Mixtures of experts are not supported", {
    given: `${experts} experts`,
    where: `${settings.architecture}.expert_count`,
  });
}

function rotaryScaling(settings: GgufSettings, theta: number): Record<string, unknown> | null {
  const kind = settings.text("rope.scaling.type") ?? "none";
  const factors = settings.facts.rotaryFactors;
  if (kind === "none") return factors === undefined ? null : llama3Scaling(factors, theta);
  return { rope_type: kind, factor: settings.find("rope.scaling.factor") };
}
