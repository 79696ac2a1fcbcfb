import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { elements } from "../ir/shape.js";
import type { Tensor } from "../ir/tensor.js";
import { fromHuggingFaceConfig } from "../models/registry.js";
import type { ModelDefinition } from "../models/types.js";
import { leafAttributes } from "../ops/leaves.js";

/** A Llama small enough for the interpreter: two blocks, grouped heads, tied embeddings. */
export function tinyLlama(overrides: Readonly<Record<string, unknown>> = {}): ModelDefinition {
  return fromHuggingFaceConfig({
    model_type: "llama",
    architectures: ["LlamaForCausalLM"],
    vocab_size: 33,
    hidden_size: 16,
    intermediate_size: 24,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    max_position_embeddings: 64,
    tie_word_embeddings: true,
    hidden_act: "silu",
    ...overrides,
  });
}

/** A BERT of two blocks whose head tells one of three classes, or a number. */
export function tinyBert(overrides: Readonly<Record<string, unknown>> = {}): ModelDefinition {
  return fromHuggingFaceConfig({
    model_type: "bert",
    vocab_size: 67,
    hidden_size: 48,
    intermediate_size: 80,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    max_position_embeddings: 40,
    type_vocab_size: 2,
    num_labels: 3,
    ...overrides,
  });
}

/** Numbers in [-0.5, 0.5) from a linear congruential generator: the same in every run. */
export function sequence(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return state / 0x7fffffff - 0.5;
  };
}

/** A plausible value for a leaf of a training step: ids in range, weights that sum to 1, states zero. */
export function plausibleValue(leaf: Node, vocabulary: number, length: number, next: () => number): Tensor {
  const { name, role, shape, dtype } = leafAttributes(leaf);
  const count = elements(shape);
  const value = (index: number): number => {
    if (role === "state" || role === "accumulator") return 0;
    if (name.endsWith("ids") || name.endsWith("labels")) return (index * 7) % vocabulary;
    if (name.endsWith("positions")) return index % length;
    if (name.endsWith("types")) return Number(index % length > length / 2);
    if (name.endsWith("segments")) return Math.floor((index % length) / 3);
    if (name.endsWith("weights")) return 1 / count;
    if (name.startsWith("scalar.")) return dtype === "u32" ? 3 : name.endsWith("rate") ? 0.01 : 0.1;
    return next() * (name.includes("norm") ? 2 : 0.6);
  };
  return { shape, dtype, data: Float64Array.from({ length: count }, (_, index) => value(index)) };
}

/** The largest difference between two arrays, relative to the largest expected value; NaN where either has one. */
export function relativeDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let scale = 1e-12;
  let worst = 0;
  for (let index = 0; index < expected.length; index++) scale = Math.max(scale, Math.abs(expected[index] ?? NaN));
  for (let index = 0; index < expected.length; index++) {
    const difference = Math.abs(must(actual[index], "value") - (expected[index] ?? NaN)) / scale;
    if (!(difference <= worst)) worst = difference;
  }
  return worst;
}
