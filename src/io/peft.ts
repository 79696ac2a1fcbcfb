/** PEFT's adapter folders: `adapter_config.json` and `adapter_model.safetensors`. */
import { join } from "node:path";
import { ThimbleError } from "../errors.js";
import type { Shape } from "../ir/shape.js";
import { elements, sameShape } from "../ir/shape.js";
import type { MethodSelection } from "../methods/compose.js";
import { patternLookup } from "../methods/pattern.js";
import { moduleMatcher, targetNames } from "../methods/targets.js";
import type { PeftForm } from "../methods/types.js";
import type { LinearSpec, ModelDefinition, ParameterSpec } from "../models/types.js";
import { writeJsonAtomically } from "./atomic.js";
import { isFile, withFile } from "./header.js";
import type { PeftConfig } from "./peft-config.js";
import { checkPeftConfig } from "./peft-config.js";
import type { SafetensorsFile } from "./safetensors.js";
import { openSafetensors } from "./safetensors.js";
import { writeSafetensors } from "./safetensors-write.js";
import { parseStrictJson } from "./strict-json.js";
import { readExactly } from "./tensor-file.js";

const prefix = "base_model.model.";
export const adapterConfigName = "adapter_config.json";
export const adapterWeightsName = "adapter_model.safetensors";
/** Patterns for every layer of a very large model fit in a fraction of this. */
const configLimit = 4 * 2 ** 20;

export interface PeftAdapter {
  /** The method and settings that compute the adapter. */
  readonly selection: MethodSelection;
  /** Trained values by the method's tensor names. */
  readonly tensors: ReadonlyMap<string, Float32Array>;
  /** What the adapter says it was trained on. */
  readonly baseModel: string | undefined;
  readonly warnings: readonly string[];
}

/**
 * Reads an adapter folder for a model. Every tensor must be there, have the shape that the configuration says, and
 * belong to a layer of the model; what does not is named in one error, before any data is read.
 */
export async function readPeft(folder: string, model: ModelDefinition): Promise<PeftAdapter> {
  const where = join(folder, adapterConfigName);
  const { config, warnings } = checkPeftConfig(await readAdapterConfig(folder), where);
  const file = await openWeights(folder);
  try {
    const expected = expectedTensors(config, model, file, warnings, where);
    checkTensors(expected.shapes, file, folder);
    const tensors = new Map<string, Float32Array>();
    for (const name of expected.shapes.keys()) tensors.set(name, await readFinite(file, name));
    return {
      selection: { id: "lora", settings: settingsOf(config, model, expected.targets) },
      tensors,
      baseModel: config.base_model_name_or_path ?? undefined,
      warnings,
    };
  } finally {
    await file.close();
  }
}

/** `adapter_config.json` of a folder, parsed and not yet checked. */
export async function readAdapterConfig(folder: string): Promise<unknown> {
  const path = join(folder, adapterConfigName);
  if (!(await isFile(path))) {
    throw new ThimbleError("peft-missing", `The adapter's folder has no ${adapterConfigName}`, {
      where: folder,
      fix: "Name the folder that PEFT's save_pretrained wrote.",
    });
  }
  return withFile(path, async (handle, size) => {
    if (size > configLimit) {
      throw new ThimbleError("peft-config", "The adapter's configuration is too large to be one", {
        where: path,
        given: `${size} bytes`,
        expected: `at most ${configLimit}`,
      });
    }
    const bytes = new Uint8Array(size);
    await readExactly(handle, bytes, 0, path);
    return parseStrictJson(bytes, { code: "peft-config", where: path, depth: 16 });
  });
}

/** The tensors of an adapter folder; close the file after use. */
export async function openWeights(folder: string): Promise<SafetensorsFile> {
  const path = join(folder, adapterWeightsName);
  if (await isFile(path)) return openSafetensors(path);
  const pickled = await isFile(join(folder, "adapter_model.bin"));
  throw new ThimbleError("peft-missing", `The adapter's folder has no ${adapterWeightsName}`, {
    where: folder,
    ...(pickled ? { given: "adapter_model.bin, a pickle, which can run code when it is read" } : {}),
    fix: pickled
      ? "Load it with PEFT and save it again: newer versions write safetensors."
      : "Fetch the adapter again.",
  });
}

/** The tensors that the configuration and the layers in the file call for. */
function expectedTensors(
  config: PeftConfig,
  model: ModelDefinition,
  file: SafetensorsFile,
  warnings: string[],
  where: string,
): { readonly targets: readonly LinearSpec[]; readonly shapes: ReadonlyMap<string, Shape> } {
  const rankOf = patternLookup(config.rank_pattern ?? {}, config.r, `${where}: rank_pattern`);
  const chosen = chosenBy(config, where, warnings);
  const present = (path: string): boolean =>
    [".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"].some((end) => file.tensors.has(prefix + path + end));
  const targets = model.linears.filter((spec) => present(spec.path) || chosen(spec));
  const shapes = new Map<string, Shape>(savedTensors(config, model, where).map(({ name, shape }) => [name, shape]));
  for (const { path, inputs, outputs } of targets) {
    const rank = rankOf(path);
    shapes.set(`${path}.lora_A.weight`, [rank, inputs]);
    shapes.set(`${path}.lora_B.weight`, [outputs, rank]);
    if (config.use_dora) shapes.set(`${path}.lora_magnitude_vector`, [outputs]);
  }
  return { targets, shapes };
}

/** Names under which PEFT looks for the head of any model; most have one of the two. */
const headNames = ["classifier", "score"];

/** The tensors of the head, which lie in the adapter whole where `modules_to_save` names it. */
function savedTensors({ modules_to_save: saved }: PeftConfig, model: ModelDefinition, where: string): ParameterSpec[] {
  const head = new Set(model.task?.head);
  const modules = model.parameters.filter(({ name }) => head.has(name));
  const strange = (saved ?? []).filter(
    (name) => !headNames.includes(name) && !modules.some((tensor) => savedModule(tensor.name) === name),
  );
  if (strange.length > 0 || (model.task === undefined && (saved ?? []).length > 0)) {
    throw new ThimbleError("peft-unsupported", "The adapter saves modules that Thimble does not train whole", {
      given: `modules_to_save ${JSON.stringify(saved)}`,
      expected: model.task === undefined ? "none, as the model predicts tokens" : headNames.join(", "),
      where,
      fix: "Merge it into its base with PEFT, and train from there.",
    });
  }
  return modules.filter(({ name }) => saved?.includes(savedModule(name)) === true);
}

/** What PEFT calls the module that a tensor of a head belongs to. */
function savedModule(tensor: string): string {
  return tensor.startsWith("classifier.") ? "classifier" : tensor.slice(0, tensor.lastIndexOf("."));
}

/** Whether the configuration targets a layer; where its expression cannot be read, the tensors alone decide. */
function chosenBy(config: PeftConfig, where: string, warnings: string[]): (spec: LinearSpec) => boolean {
  const { target_modules: targets, exclude_modules: excluded, layers_to_transform: layers } = config;
  try {
    const wanted = moduleMatcher(targets, `${where}: target_modules`);
    const unwanted = isNothing(excluded) ? () => false : moduleMatcher(excluded, `${where}: exclude_modules`);
    const listed = typeof layers === "number" ? [layers] : (layers ?? []);
    return (spec) => wanted(spec) && !unwanted(spec) && (listed.length === 0 || listed.includes(spec.block));
  } catch (error) {
    if (!(error instanceof ThimbleError) || error.code !== "pattern") throw error;
    warnings.push(`${error.message} (${error.given ?? ""}): the layers are taken from the adapter's tensors`);
    return () => false;
  }
}

function isNothing(names: string | readonly string[] | null | undefined): names is null | undefined {
  return names === null || names === undefined || names.length === 0;
}

/** One error for everything that is wrong with the tensors. */
function checkTensors(expected: ReadonlyMap<string, Shape>, file: SafetensorsFile, folder: string): void {
  const names = [...file.tensors.keys()];
  const faults: string[] = [];
  const report = (what: string, list: readonly string[]): void => {
    const more = list.length > 6 ? ` and ${list.length - 6} more` : "";
    if (list.length > 0) faults.push(`${what}: ${list.slice(0, 6).join(", ")}${more}`);
  };
  report(
    `without the prefix "${prefix}"`,
    names.filter((name) => !name.startsWith(prefix)),
  );
  report(
    "missing",
    [...expected.keys()].filter((name) => !file.tensors.has(prefix + name)),
  );
  report(
    "of no layer that is adapted",
    names.filter((name) => name.startsWith(prefix) && !expected.has(name.slice(prefix.length))),
  );
  report("of another shape", wrongShapes(expected, file));
  if (expected.size === 0 && faults.length === 0) faults.push("none at all");
  if (faults.length === 0) return;
  throw new ThimbleError("peft-tensors", "The adapter's tensors do not fit its configuration and the model", {
    given: faults.join("; "),
    where: join(folder, adapterWeightsName),
    fix: "Check that the adapter was trained on this model.",
  });
}

function wrongShapes(expected: ReadonlyMap<string, Shape>, file: SafetensorsFile): string[] {
  return [...expected].flatMap(([name, shape]) => {
    const found = file.tensors.get(prefix + name);
    if (found === undefined || sameShape(found.shape, shape)) return [];
    return [`${name} [${found.shape.join(", ")}] instead of [${shape.join(", ")}]`];
  });
}

async function readFinite(file: SafetensorsFile, name: string): Promise<Float32Array> {
  const values = await file.readAs(prefix + name, "f32");
  const place = values.findIndex((value) => !Number.isFinite(value));
  if (place < 0) return values;
  throw new ThimbleError("peft-values", "The adapter holds a value that is not a finite number", {
    given: `${String(values[place])} at element ${place}`,
    where: name,
  });
}

function settingsOf(
  config: PeftConfig,
  model: ModelDefinition,
  targets: readonly LinearSpec[],
): Readonly<Record<string, unknown>> {
  return {
    r: config.r,
    alpha: config.lora_alpha,
    dropout: config.lora_dropout,
    rslora: config.use_rslora,
    dora: config.use_dora,
    init: config.init_lora_weights === "pissa" ? "pissa" : "default",
    target_modules: targetNames(model, targets),
    rank_pattern: config.rank_pattern ?? {},
    alpha_pattern: config.alpha_pattern ?? {},
  };
}

export interface PeftOrigin {
  /** Hub name or path of the base model, for whoever loads the adapter. */
  readonly baseModel?: string;
  /** Tensors of the head of a model with a task, which are saved whole. */
  readonly head?: ReadonlyMap<string, { readonly shape: Shape; readonly data: Float32Array }>;
}

/** Writes an adapter folder that PEFT, and what reads PEFT's files, can load over the base model. */
export async function writePeft(folder: string, form: PeftForm, { baseModel, head }: PeftOrigin = {}): Promise<void> {
  const modules = [...new Set([...(head?.keys() ?? [])].map(savedModule))];
  const tensors = [...form.tensors, ...(head ?? [])].map(([name, { shape, data }]) => {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return { name: prefix + name, type: "f32", shape, chunks: () => [bytes] };
  });
  const size = tensors.find(({ shape, chunks }) => chunks()[0]?.length !== 4 * elements(shape));
  if (size !== undefined) throw new ThimbleError("adapter-tensor", `${size.name} has other values than its shape says`);
  await writeSafetensors(join(folder, adapterWeightsName), tensors, { format: "pt" });
  const config: Record<string, unknown> = {
    ...form.config,
    auto_mapping: null,
    base_model_name_or_path: baseModel ?? null,
    ...(head === undefined ? { task_type: "CAUSAL_LM" } : { task_type: "SEQ_CLS", modules_to_save: modules }),
  };
  const sorted = Object.keys(config).sort();
  await writeJsonAtomically(
    join(folder, adapterConfigName),
    Object.fromEntries(sorted.map((key) => [key, config[key]])),
  );
}
