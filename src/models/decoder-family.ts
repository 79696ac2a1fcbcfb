import type { z } from "zod";
import { must } from "../errors.js";
import { parseConfig } from "./config.js";
import type { DecoderConfig } from "./decoder-specs.js";
import { decoderModel } from "./decoder.js";
import type { Family, GgufTensor } from "./family.js";
import { GgufSettings } from "./gguf-config.js";
import type { ModelDefinition, ParameterSpec } from "./types.js";

interface DecoderFamilyRule<Schema extends z.ZodType> {
  readonly id: string;
  readonly modelTypes: readonly string[];
  readonly architectures: readonly string[];
  readonly schema: Schema;
  readonly configure: (fields: z.output<Schema>) => DecoderConfig;
  /** The fields of config.json that GGUF metadata stands for. */
  readonly huggingFaceJson: (settings: GgufSettings) => Record<string, unknown>;
  /** llama.cpp's converter reorders the rows of queries and keys for it. */
  readonly interleaved?: boolean;
  /** llama.cpp's converter adds one to the norms' weights. */
  readonly shiftedNorms?: boolean;
  /** Names in GGUF that differ from {@link moduleNames}. */
  readonly names?: Readonly<Record<string, string>>;
}

const moduleNames: Readonly<Record<string, string>> = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  lm_head: "output",
  input_layernorm: "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  post_attention_layernorm: "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};

/** `model.layers.3.mlp.up_proj.weight` -> `blk.3.ffn_up.weight`, by a table of module names. */
export function ggufName(name: string, blocks: string, names: Readonly<Record<string, string>>): string {
  const dot = name.lastIndexOf(".");
  const [module, kind] = [name.slice(0, dot), name.slice(dot + 1)];
  if (!module.startsWith(blocks)) return `${must(names[module], `GGUF name of ${name}`)}.${kind}`;
  const [block = "", ...rest] = module.slice(blocks.length).split(".");
  return `blk.${block}.${must(names[rest.join(".")], `GGUF name of ${name}`)}.${kind}`;
}

/** A family whose models are {@link decoderModel}s. */
export function decoderFamily<Schema extends z.ZodType>(rule: DecoderFamilyRule<Schema>): Family {
  const names = { ...moduleNames, ...rule.names };
  const fromHuggingFace = (config: unknown): ModelDefinition =>
    decoderModel(rule.configure(parseConfig(rule.id, rule.schema, config)));
  return {
    id: rule.id,
    modelTypes: rule.modelTypes,
    architectures: rule.architectures,
    prefix: "model.",
    ignored: [/\.rotary_emb\.inv_freq$/],
    fromHuggingFace,
    fromGguf: (facts) => fromHuggingFace(rule.huggingFaceJson(new GgufSettings(facts))),
    ggufTensor: (definition: ModelDefinition, parameter: ParameterSpec): GgufTensor => {
      const role = parameter.linear?.role;
      const turned = rule.interleaved === true && (role === "query" || role === "key");
      return {
        name: ggufName(parameter.name, "model.layers.", names),
        interleavedHeads: turned ? must(parameter.shape[0], "rows") / definition.headWidth : 0,
        added: rule.shiftedNorms === true && parameter.kind === "norm" ? 1 : 0,
      };
    },
  };
}
