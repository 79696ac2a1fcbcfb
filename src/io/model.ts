/** Opens a model's files: what the model is, and where its tensors lie. No tensor data is read. */
import { readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ThimbleError } from "../errors.js";
import type { Shape } from "../ir/shape.js";
import { fromGgufMetadata, fromHuggingFaceConfig, ggufFamily, modelFamily } from "../models/registry.js";
import { weightOf } from "../models/parameters.js";
import type { ModelDefinition } from "../models/types.js";
import type { GgufFile } from "./gguf.js";
import { openGguf } from "./gguf.js";
import { isDirectory, isFile, withFile } from "./header.js";
import { DrawnWeights } from "./drawn-weights.js";
import { ggufTensors, huggingFaceTensors, lackingTensors } from "./model-tensors.js";
import type { SafetensorsFile } from "./safetensors.js";
import { openSafetensors } from "./safetensors.js";
import { parseStrictJson } from "./strict-json.js";
import { readExactly } from "./tensor-file.js";
import type { WeightSource } from "./weight-source.js";
import { FileWeights } from "./weight-source.js";

export type { WeightSource, WeightTensor } from "./weight-source.js";

interface OpenedModel {
  readonly definition: ModelDefinition;
  /** Close it when the weights are read. */
  readonly weights: WeightSource;
  /** Tensors that the files lack: `weights` draws them from the seed. */
  readonly drawn: readonly string[];
}

export interface OpenOptions {
  /** Changes a Hugging Face configuration before it is read, to give a model another head. */
  readonly configure?: ((config: unknown) => Promise<unknown>) | undefined;
  /** Of the tensors that the files lack; 0 if not given. */
  readonly seed?: number | undefined;
}

/** A folder of a Hugging Face checkpoint. */
export interface HuggingFaceModel extends OpenedModel {
  readonly format: "huggingface";
  readonly files: {
    /** Where the tokenizer's files lie too. */
    readonly folder: string;
    /** config.json as parsed. */
    readonly config: unknown;
  };
}

/** A GGUF file. */
export interface GgufModel extends OpenedModel {
  readonly format: "gguf";
  readonly files: {
    readonly path: string;
    /** Plain values by key: the tokenizer among them. */
    readonly metadata: ReadonlyMap<string, unknown>;
  };
}

export type ModelFiles = HuggingFaceModel | GgufModel;

/** No config.json is near this large. */
const configLimit = 16 * 2 ** 20;

/**
 * Opens the model in a Hugging Face folder (or one of its .safetensors files) or a GGUF file (or a folder that has
 * one). Every tensor that the model needs is found and its shape compared, so that what can be wrong is told
 * before anything is loaded.
 */
export async function openModel(path: string, options: OpenOptions = {}): Promise<ModelFiles> {
  if (path.endsWith(".gguf")) return openGgufModel(path);
  if (path.endsWith(".safetensors") || path.endsWith(".safetensors.index.json")) {
    return openHuggingFaceModel(dirname(path), path, options);
  }
  if (!(await isDirectory(path))) {
    throw new ThimbleError("model-path", "There is no model here", {
      given: path,
      expected: "a folder with config.json and .safetensors files, or a .gguf file",
    });
  }
  const alone = (await isFile(join(path, "config.json"))) ? undefined : await onlyGguf(path);
  return alone === undefined ? openHuggingFaceModel(path, path, options) : openGgufModel(alone);
}

/** The GGUF file of a folder that has one, or the first part of one. */
async function onlyGguf(folder: string): Promise<string | undefined> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".gguf"));
  const firsts = names.filter((name) => !/-\d{5}-of-\d{5}\.gguf$/.test(name) || name.includes("-00001-of-"));
  if (firsts.length > 1) {
    throw new ThimbleError("model-path", "The folder has several GGUF files", {
      where: folder,
      given: firsts.sort().join(", "),
      fix: "Name one of the files.",
    });
  }
  return firsts[0] === undefined ? undefined : join(folder, firsts[0]);
}

async function openHuggingFaceModel(
  folder: string,
  weightsPath: string,
  { configure, seed = 0 }: OpenOptions,
): Promise<HuggingFaceModel> {
  const read = await readConfig(join(folder, "config.json"));
  const config = configure === undefined ? read : await configure(read);
  const definition = fromHuggingFaceConfig(config);
  const file = await openSafetensors(weightsPath);
  const found = await guarded(file, () => huggingFaceWeights(definition, config, file, folder, seed));
  return { format: "huggingface", ...found, files: { folder, config } };
}

function huggingFaceWeights(
  definition: ModelDefinition,
  config: unknown,
  file: SafetensorsFile,
  folder: string,
  seed: number,
): OpenedModel {
  const family = modelFamily(String((config as Record<string, unknown>)["model_type"]));
  const own = within(folder, () => new FileWeights(file, huggingFaceTensors(definition, family, file)));
  const lacking = lackingTensors(definition, family, file);
  const drawn = lacking.map(({ name }) => name);
  const weights = drawn.length === 0 ? own : new DrawnWeights(own, lacking, seed);
  return { definition: withNewTensors(definition, drawn), weights, drawn };
}

/** What is new must train, and be saved beside adapters: it belongs to the task, wherever it stands in the model. */
function withNewTensors(definition: ModelDefinition, drawn: readonly string[]): ModelDefinition {
  const { task, linears } = definition;
  if (task === undefined || drawn.length === 0) return definition;
  return {
    ...definition,
    linears: linears.filter((linear) => !drawn.includes(weightOf(linear).name)),
    task: { ...task, head: [...new Set([...task.head, ...drawn])] },
  };
}

/** config.json of a Hugging Face folder, parsed. */
export async function readConfig(path: string): Promise<unknown> {
  if (!(await isFile(path))) {
    throw new ThimbleError("model-config", "The model's folder has no config.json", {
      where: dirname(path),
      fix: "Name the folder of a whole Hugging Face model, or a .gguf file.",
    });
  }
  return withFile(path, async (handle, size) => {
    if (size > configLimit) {
      throw new ThimbleError("model-config", "The configuration is too large to be one", {
        where: path,
        given: `${size} bytes`,
        expected: `at most ${configLimit}`,
      });
    }
    const bytes = new Uint8Array(size);
    await readExactly(handle, bytes, 0, path);
    return parseStrictJson(bytes, { code: "model-config", where: path, depth: 64 });
  });
}

async function openGgufModel(path: string): Promise<GgufModel> {
  const file = await openGguf(path);
  return guarded(file, async () => {
    const metadata = new Map([...file.metadata].map(([key, entry]) => [key, entry.value as unknown]));
    const tensors = new Map([...file.tensors].map(([name, { shape }]): [string, Shape] => [name, shape]));
    const rotaryFactors = await readRotaryFactors(file);
    const facts = { metadata, tensors, rotaryFactors };
    const definition = fromGgufMetadata(facts);
    const family = ggufFamily(String(metadata.get("general.architecture")));
    const found = within(basename(path), () => ggufTensors(definition, family, file));
    const weights = new FileWeights(file, found);
    return { format: "gguf", definition, weights, drawn: [], files: { path, metadata } };
  });
}

/** More pairs than any head has. */
const factorLimit = 65536;

async function readRotaryFactors(file: GgufFile): Promise<number[] | undefined> {
  const info = file.tensors.get("rope_freqs.weight");
  if (info === undefined || info.bytes > factorLimit * 4) return undefined;
  return Array.from(await file.readAs(info.name, "f32"));
}

/** Closes the file if what follows its opening fails. */
async function guarded<T>(file: { close(): Promise<void> }, next: () => T | Promise<T>): Promise<T> {
  try {
    return await next();
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Adds to an error in which model it arose. */
function within<T>(where: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof ThimbleError) || error.where !== undefined) throw error;
    const { given, expected, fix, cause } = error;
    const detail = Object.fromEntries(
      Object.entries({ given, expected, fix }).filter(([, value]) => value !== undefined),
    );
    throw new ThimbleError(error.code, error.message, { ...detail, where, cause });
  }
}
