import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeSafetensors } from "../../io/safetensors-write.js";
import { elements } from "../../ir/shape.js";
import { drawNormal } from "../../methods/initial.js";
import { fromHuggingFaceConfig } from "../../models/registry.js";

export interface TokenizerFixture {
  readonly tokenizer: Record<string, unknown>;
  readonly config: Record<string, unknown>;
  readonly cases: readonly { readonly text: string }[];
}

/** A tokenizer of the data's fixtures: its two files, and texts it was tried on. */
export async function tokenizerFixture(name: string): Promise<TokenizerFixture> {
  const path = fileURLToPath(new URL(`../../data/fixtures/tokenizer-${name}.json`, import.meta.url));
  return JSON.parse(await readFile(path, "utf8")) as TokenizerFixture;
}

export const tinyConfig = {
  model_type: "llama",
  architectures: ["LlamaForCausalLM"],
  vocab_size: 424,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  max_position_embeddings: 128,
  tie_word_embeddings: true,
  hidden_act: "silu",
  torch_dtype: "float32",
};

/** Writes a Hugging Face folder with a random tiny model and one of the fixtures' tokenizers. */
export async function writeTinyModel(
  folder: string,
  changes: Readonly<Record<string, unknown>> = {},
  tokenizer = "llama3",
): Promise<void> {
  const config = { ...tinyConfig, ...changes };
  const definition = fromHuggingFaceConfig(config);
  const tensors = definition.parameters.map(({ name, shape, kind }) => ({
    name,
    type: "f32",
    shape,
    chunks: () => {
      const centre = kind === "norm" ? 1 : 0;
      const values = Float32Array.from(drawNormal(1, name, elements(shape)), (value) => centre + 0.08 * value);
      return [new Uint8Array(values.buffer)];
    },
  }));
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  await writeSafetensors(join(folder, "model.safetensors"), tensors);
  const files = await tokenizerFixture(tokenizer);
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(files.tokenizer));
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(files.config));
}

/** Writes uint16 token ids below `vocabulary`, as `--data tokens:FILE` reads them. */
export async function writeTokens(path: string, count: number, vocabulary: number): Promise<void> {
  const ids = Uint16Array.from({ length: count }, (_, index) => (index * index + 7 * index) % vocabulary);
  await writeFile(path, new Uint8Array(ids.buffer));
}
