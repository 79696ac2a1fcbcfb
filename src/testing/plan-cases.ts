/** Training set-ups whose plans are held against the liveness bound: every family, method, type and policy. */
import { readFileSync } from "node:fs";
import { ThimbleError } from "../errors.js";
import type { ComposedMethods } from "../methods/compose.js";
import { composeMethods, withRunDefaults } from "../methods/compose.js";
import { describeMethod } from "../methods/describe.js";
import { methods } from "../methods/registry.js";
import { exampleConfig } from "../methods/share.js";
import { fromHuggingFaceConfig } from "../models/registry.js";
import type { ModelDefinition } from "../models/types.js";
import { makeOptimizer } from "../optim/registry.js";
import type { SavedPolicy } from "../passes/saved.js";
import type { SessionOptions } from "../session/types.js";
import { storedFormats } from "../train/options.js";
import type { GoldenFamily } from "./goldens.js";
import { goldenFamilies, goldenFolder } from "./goldens.js";

const llama = { model_type: "llama", architectures: ["LlamaForCausalLM"], rms_norm_eps: 1e-5, hidden_act: "silu" };
const qwen = { rms_norm_eps: 1e-6, hidden_act: "silu", max_position_embeddings: 32768, rope_theta: 1000000 };

/** What the config.json of published models says of their shapes. */
const published = {
  "SmolLM2-135M": exampleConfig,
  "Llama-3.2-1B": {
    ...{ ...llama, vocab_size: 128256, hidden_size: 2048, intermediate_size: 8192, num_hidden_layers: 16 },
    ...{ num_attention_heads: 32, num_key_value_heads: 8, head_dim: 64, tie_word_embeddings: true },
    ...{ rope_theta: 500000, max_position_embeddings: 131072 },
  },
  "Llama-3-8B": {
    ...{ ...llama, vocab_size: 128256, hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 32 },
    ...{ num_attention_heads: 32, num_key_value_heads: 8, tie_word_embeddings: false },
    ...{ rope_theta: 500000, max_position_embeddings: 8192 },
  },
  "Qwen2.5-0.5B": {
    ...{ ...qwen, model_type: "qwen2", architectures: ["Qwen2ForCausalLM"], vocab_size: 151936, hidden_size: 896 },
    ...{ intermediate_size: 4864, num_hidden_layers: 24, num_attention_heads: 14, num_key_value_heads: 2 },
    ...{ tie_word_embeddings: true, use_sliding_window: false, sliding_window: 32768, max_window_layers: 21 },
  },
  "Qwen3-0.6B": {
    ...{ ...qwen, model_type: "qwen3", architectures: ["Qwen3ForCausalLM"], vocab_size: 151936, hidden_size: 1024 },
    ...{ intermediate_size: 3072, num_hidden_layers: 28, num_attention_heads: 16, num_key_value_heads: 8 },
    ...{ head_dim: 128, tie_word_embeddings: true, attention_bias: false, use_sliding_window: false },
  },
  "GPT-2": {
    ...{ model_type: "gpt2", architectures: ["GPT2LMHeadModel"], vocab_size: 50257, n_embd: 768, n_layer: 12 },
    ...{ n_head: 12, n_positions: 4096, layer_norm_epsilon: 1e-5, activation_function: "gelu_new" },
  },
} as const;

export type PublishedModel = keyof typeof published;
export const publishedModels = Object.keys(published) as PublishedModel[];

export interface PlanCase {
  readonly model: GoldenFamily | PublishedModel;
  readonly method: string;
  readonly dtype: "f32" | "bf16";
  readonly saved: SavedPolicy;
  readonly accumulate: number;
  readonly clip: number | undefined;
  readonly batch: number;
  readonly length: number;
}

function isPublished(model: PlanCase["model"]): model is PublishedModel {
  return model in published;
}

const known = new Map<PlanCase["model"], ModelDefinition>();

function definitionOf(model: PlanCase["model"]): ModelDefinition {
  const config: unknown = isPublished(model)
    ? published[model]
    : JSON.parse(readFileSync(`${goldenFolder(model)}/config.json`, "utf8"));
  const definition = known.get(model) ?? fromHuggingFaceConfig(config);
  known.set(model, definition);
  return definition;
}

/** Whether a method takes a model, or refuses it in words. */
export function takes(method: string, model: PlanCase["model"]): boolean {
  try {
    composed({ method, model });
    return true;
  } catch (error) {
    if (error instanceof ThimbleError) return false;
    throw error;
  }
}

function composed({ method, model }: Pick<PlanCase, "method" | "model">): ComposedMethods {
  const selection = { id: method, settings: isPublished(model) ? {} : tinySettings(method) };
  return composeMethods([withRunDefaults(selection, { steps: 1000, length: 256 })], definitionOf(model));
}

/** Every combination of these models with all methods that take them, types, policies and ways to sum and clip gradients. */
export function planCases(models: readonly PlanCase["model"][]): PlanCase[] {
  const shapes = (model: PlanCase["model"]): (readonly [number, number])[] =>
    isPublished(model) ? [[4, 256], [1, 4096]] : [[2, 16], [1, 64]]; // prettier-ignore
  return models.flatMap((model) =>
    methods
      .filter(({ id }) => takes(id, model))
      .flatMap(({ id: method }) =>
        (["f32", "bf16"] as const).flatMap((dtype) =>
          (["all", "cheap", "block"] as const).flatMap((saved) =>
            [1, 2].flatMap((accumulate) =>
              (method === "zo2" ? [undefined] : [undefined, 1]).flatMap((clip) =>
                shapes(model).map(([batch, longest]): PlanCase => {
                  const { prefix } = composed({ method, model });
                  const length = Math.min(longest, definitionOf(model).contextLength - prefix);
                  return { model, method, dtype, saved, accumulate, clip, batch, length };
                }),
              ),
            ),
          ),
        ),
      ),
  );
}

export const tinyModels: readonly GoldenFamily[] = goldenFamilies;

export function describeCase({ model, method, dtype, saved, accumulate, clip, batch, length }: PlanCase): string {
  const sums = `${accumulate > 1 ? ` accumulate ${accumulate}` : ""}${clip === undefined ? "" : " clip"}`;
  return `${model} ${method} ${dtype} ${saved} ${batch}x${length}${sums}`;
}

/** What the smallest models have room for: lower ranks, fewer rows in front, and widths that are no multiples of 16. */
function tinySettings(method: string): Record<string, unknown> {
  const own: Readonly<Record<string, Record<string, unknown>>> = {
    lst: { r: 2 },
    dept: { prefix_length: 4, r: 3 },
    coat: { activations: false },
  };
  const known = methods.find(({ id }) => id === method);
  const settings = known === undefined ? [] : describeMethod(known).settings;
  return own[method] ?? (settings.some(({ name }) => name === "rank") ? { rank: 4 } : {});
}

/** The session of a case, as `thimble train` makes it: one that is only planned needs no weights. */
export function optionsOf(entry: PlanCase): SessionOptions {
  const { model, dtype, saved, accumulate, clip, batch, length } = entry;
  const definition = definitionOf(model);
  const methodsOfCase = composed(entry);
  return {
    definition,
    storedFormat: storedFormats(
      definition,
      dtype,
      undefined,
      (parameter) => methodsOfCase.trains(parameter),
      (parameter) => methodsOfCase.baseFormat(parameter),
      (parameter) => methodsOfCase.place?.stored?.(parameter),
    ),
    methods: methodsOfCase,
    batch,
    length,
    accumulate,
    dtype,
    optimizer: makeOptimizer({
      id: methodsOfCase.optimizer ?? "adamw",
      states: dtype === "bf16" && methodsOfCase.saves === "weights" ? "bf16" : "f32",
    }),
    clip,
    saved,
    segments: true,
    train: true,
    evaluate: false,
    decode: undefined,
    target: "c",
    threads: 2,
    seed: 1,
  };
}
