import { elements } from "../ir/shape.js";
import { fromHuggingFaceConfig } from "../models/registry.js";
import type { ModelDefinition } from "../models/types.js";
import { composeMethods, withRunDefaults } from "./compose.js";

/** What SmolLM2-135M's config.json says of its shapes. */
export const exampleConfig = {
  model_type: "llama",
  architectures: ["LlamaForCausalLM"],
  vocab_size: 49152,
  hidden_size: 576,
  intermediate_size: 1536,
  num_hidden_layers: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  rms_norm_eps: 1e-5,
  rope_theta: 100000,
  max_position_embeddings: 8192,
  tie_word_embeddings: true,
  hidden_act: "silu",
} as const;

let example: ModelDefinition | undefined;

/** SmolLM2-135M, the model that tables give figures for. */
export function exampleModel(): ModelDefinition {
  return (example ??= fromHuggingFaceConfig(exampleConfig));
}

export interface TrainedShare {
  /** Values that a run trains, over those of the model. */
  readonly trained: number;
  /** The same of a single step, where blocks take turns. */
  readonly atOnce: number;
}

/** How much of {@link exampleModel} a method trains with its defaults, and with what it brings along. */
export function trainedShare(id: string): TrainedShare {
  const model = exampleModel();
  const methods = composeMethods([withRunDefaults({ id, settings: {} }, { steps: 1000, length: 512 })], model);
  const trained = [...model.parameters.filter((parameter) => methods.trains(parameter)), ...methods.adapters];
  const count = (tensors: readonly { readonly shape: readonly number[] }[]): number =>
    tensors.reduce((sum, { shape }) => sum + elements(shape), 0);
  const all = count(model.parameters);
  const inBlocks = trained.filter(({ block }) => block !== undefined);
  const turns = methods.turns === undefined ? 1 : methods.turns.count / model.blocks;
  const atOnce = count(trained) - (1 - turns) * count(inBlocks);
  return { trained: count(trained) / all, atOnce: atOnce / all };
}
