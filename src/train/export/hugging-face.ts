import { copyFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { ThimbleError } from "../../errors.js";
import { writeJsonAtomically } from "../../io/atomic.js";
import { writeSafetensors } from "../../io/safetensors-write.js";
import type { TensorToWrite } from "../../io/tensor-write.js";
import type { ParameterSpec } from "../../models/types.js";
import { storageFormat } from "../../storage/registry.js";
import type { OpenedModel } from "../model.js";
import type { TensorSource } from "./tensor-source.js";

export type DenseType = "f32" | "f16" | "bf16";

/** Elements converted at once. */
const chunkElements = 2 ** 20;

/** What transformers needs beside config.json and the weights: tokenizers, templates, generation settings. */
const companions =
  /^(tokenizer.*\.(json|model)|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|spiece\.model|chat_template\.(jinja|json)|generation_config\.json)$/;

const typeNames: Readonly<Record<DenseType, string>> = { f32: "float32", f16: "float16", bf16: "bfloat16" };

/** Writes a whole model as transformers loads it: config.json, model.safetensors, tokenizer files. */
export async function writeHuggingFace(
  folder: string,
  model: OpenedModel,
  source: TensorSource,
  type: DenseType,
): Promise<void> {
  const { files } = model;
  if (files.format !== "huggingface") {
    throw new ThimbleError("export-format", "A model from a GGUF file is saved as GGUF: it has no config.json", {
      given: model.path,
      fix: "Export it as GGUF, or start from the model's Hugging Face folder.",
    });
  }
  const tensors = files.definition.parameters.map((parameter) => tensorToWrite(parameter, source, type));
  await writeSafetensors(join(folder, "model.safetensors"), tensors, { format: "pt" });
  for (const name of await readdir(files.files.folder)) {
    if (companions.test(name)) await copyFile(join(files.files.folder, name), join(folder, name));
  }
  await writeJsonAtomically(join(folder, "config.json"), configOf(files.files.config, type));
}

function tensorToWrite(parameter: ParameterSpec, source: TensorSource, type: DenseType): TensorToWrite {
  return { name: parameter.name, type, shape: parameter.shape, chunks: () => encoded(parameter, source, type) };
}

async function* encoded(parameter: ParameterSpec, source: TensorSource, type: DenseType): AsyncGenerator<Uint8Array> {
  const stored = source.stored?.(parameter, type);
  if (stored !== undefined) {
    for (let start = 0; start < stored.length; start += chunkElements)
      yield stored.subarray(start, start + chunkElements);
    return;
  }
  const { encode } = storageFormat(type);
  const values = await source.read(parameter);
  for (let start = 0; start < values.length; start += chunkElements) {
    const chunk = values.subarray(start, start + chunkElements);
    if (encode !== undefined) yield encode(chunk);
  }
}

/** The configuration with the type that the weights now have, under the key that it used. */
function configOf(config: unknown, type: DenseType): Record<string, unknown> {
  const known = config as Record<string, unknown>;
  return { ...known, ["dtype" in known ? "dtype" : "torch_dtype"]: typeNames[type] };
}
