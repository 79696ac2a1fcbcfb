import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeSafetensors } from "../../io/safetensors-write.js";
import { elements } from "../../ir/shape.js";
import { drawNormal } from "../../methods/initial.js";
import { fromHuggingFaceConfig } from "../../models/registry.js";
import { tokenizerFixture } from "./tiny-folder.js";

export interface TinyEncoderOptions {
  readonly family?: "bert" | "roberta";
  /** Whether the checkpoint has the head of a task; without, it is what pretraining left. */
  readonly head?: boolean;
  readonly changes?: Readonly<Record<string, unknown>>;
}

const common = {
  vocab_size: 424,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  max_position_embeddings: 40,
  hidden_act: "gelu",
  dtype: "float32",
};

const families = {
  bert: { model_type: "bert", type_vocab_size: 2, pad_token_id: 0 },
  roberta: { model_type: "roberta", type_vocab_size: 1, pad_token_id: 1, layer_norm_eps: 1e-5 },
};

const classes = { bert: "Bert", roberta: "Roberta" };

/** Writes a Hugging Face folder with a random tiny encoder and a WordPiece tokenizer. */
export async function writeTinyEncoder(
  folder: string,
  { family = "bert", head = false, changes = {} }: TinyEncoderOptions = {},
): Promise<void> {
  const architectures = [`${classes[family]}${head ? "ForSequenceClassification" : "Model"}`];
  const config = { ...common, ...families[family], architectures, ...changes };
  const definition = fromHuggingFaceConfig(config);
  const left = definition.parameters.filter(({ name }) => head || !name.startsWith("classifier"));
  const tensors = left.map(({ name, shape, kind }) => ({
    name,
    type: "f32",
    shape,
    chunks: () => {
      const centre = kind === "norm" && name.endsWith("weight") ? 1 : 0;
      const values = Float32Array.from(drawNormal(1, name, elements(shape)), (value) => centre + 0.15 * value);
      return [new Uint8Array(values.buffer)];
    },
  }));
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  await writeSafetensors(join(folder, "model.safetensors"), tensors);
  const { tokenizer, config: settings } = await tokenizerFixture("wordpiece");
  await writeFile(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
  await writeFile(join(folder, "tokenizer_config.json"), JSON.stringify(settings));
}

const subjects = ["the whale", "the sea", "my purse", "the ship", "the shore", "the soul", "the world", "a sailor"];
const likes = { good: "sail about and see", bad: "nothing and damp" };

/** Records that a tiny model can learn to tell apart: half of them good, half bad. */
export function sentiment(count: number): { text: string; label: "good" | "bad" }[] {
  return Array.from({ length: count }, (_, index) => {
    const label = index % 2 === 0 ? "good" : "bad";
    const subject = subjects[(index * 5) % subjects.length] ?? "";
    return { text: `${subject} ${likes[label]} ${subjects[(index * 3 + 1) % subjects.length] ?? ""} ${index}`, label };
  });
}
