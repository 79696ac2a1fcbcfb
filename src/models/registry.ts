import { ThimbleError } from "../errors.js";
import { bert } from "./families/bert.js";
import { gemma3 } from "./families/gemma3.js";
import { gpt2 } from "./families/gpt2.js";
import { llama } from "./families/llama.js";
import { mistral } from "./families/mistral.js";
import { qwen2, qwen3 } from "./families/qwen.js";
import { roberta } from "./families/roberta.js";
import { smollm3 } from "./families/smollm3.js";
import type { Family, GgufFacts } from "./family.js";
import type { ModelDefinition } from "./types.js";

/** Every family that Thimble trains. */
export const modelFamilies: readonly Family[] = [llama, mistral, qwen2, qwen3, smollm3, gemma3, gpt2, bert, roberta];

function unsupported(given: string, where: string, expected: readonly string[]): ThimbleError {
  return new ThimbleError("model-family", "Thimble does not know this model family", {
    given,
    expected: expected.join(", "),
    where,
  });
}

/** The family that reads this `model_type` of config.json. */
export function modelFamily(modelType: string): Family {
  const family = modelFamilies.find(({ modelTypes }) => modelTypes.includes(modelType));
  if (family !== undefined) return family;
  throw unsupported(
    modelType,
    "model_type in config.json",
    modelFamilies.flatMap(({ modelTypes }) => modelTypes),
  );
}

/** The family that reads GGUF files of this `general.architecture`. */
export function ggufFamily(architecture: string): Family {
  const family = modelFamilies.find(({ architectures }) => architectures.includes(architecture));
  if (family !== undefined) return family;
  throw unsupported(
    architecture,
    "general.architecture in the GGUF file",
    modelFamilies.flatMap(({ architectures }) => architectures),
  );
}

function textField(value: unknown, key: string): string {
  const field = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[key] : undefined;
  return typeof field === "string" ? field : String(field);
}

/** The model that a parsed config.json describes; settings that Thimble does not compute are refused by name. */
export function fromHuggingFaceConfig(config: unknown): ModelDefinition {
  return modelFamily(textField(config, "model_type")).fromHuggingFace(config);
}

/** The model that a GGUF file's metadata describes. */
export function fromGgufMetadata(facts: GgufFacts): ModelDefinition {
  return ggufFamily(String(facts.metadata.get("general.architecture"))).fromGguf(facts);
}
