/**
 * Writes the demo's base model before its pretraining: a small Llama with random weights, as a Hugging Face folder.
 *
 *   npx tsx scripts/demo/init.ts FOLDER [SEED]
 *
 * Weights are normal with deviation 0.02; those that write into the residual stream (the projections out of attention
 * and of the feed-forward layer) are divided by the root of twice the number of blocks, as in GPT-2. Norms start at 1.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { must } from "../../src/errors.js";
import { elements } from "../../src/ir/shape.js";
import { writeSafetensors } from "../../src/io/safetensors-write.js";
import { drawNormal } from "../../src/methods/initial.js";
import { fromHuggingFaceConfig } from "../../src/models/registry.js";
import type { ParameterSpec } from "../../src/models/types.js";

const config = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: 2048,
  hidden_size: 192,
  intermediate_size: 512,
  num_hidden_layers: 6,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  head_dim: 32,
  hidden_act: "silu",
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: true,
  attention_bias: false,
  mlp_bias: false,
  bos_token_id: 0,
  eos_token_id: 0,
  torch_dtype: "float32",
};

function startValues({ name, shape, kind, linear }: ParameterSpec, seed: number): Float32Array {
  const count = elements(shape);
  if (kind === "norm") return new Float32Array(count).fill(1);
  const intoResidual = linear?.role === "output" || linear?.role === "down";
  const deviation = intoResidual ? 0.02 / Math.sqrt(2 * config.num_hidden_layers) : 0.02;
  return Float32Array.from(drawNormal(seed, name, count), (value) => value * deviation);
}

const [, , folder, seed = "0"] = process.argv;
const target = must(folder, "the folder to write to");
await mkdir(target, { recursive: true });
const { parameters } = fromHuggingFaceConfig(config);
await writeSafetensors(
  join(target, "model.safetensors"),
  parameters.map((parameter) => ({
    name: parameter.name,
    type: "f32",
    shape: parameter.shape,
    chunks: () => [new Uint8Array(startValues(parameter, Number(seed)).buffer)],
  })),
  { format: "pt" },
);
await writeFile(join(target, "config.json"), `${JSON.stringify(config, null, 2)}\n`);
const count = parameters.reduce((sum, { shape }) => sum + elements(shape), 0);
process.stderr.write(`${count} parameters\n`);
