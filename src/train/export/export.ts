import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { RunConfig } from "../../config/schema.js";
import { ThimbleError } from "../../errors.js";
import type { Progress } from "../../io/download.js";
import { writeTextAtomically } from "../../io/atomic.js";
import { portableForm } from "../../methods/low-rank/portable.js";
import { writePeft } from "../../io/peft.js";
import { isMissing } from "../files.js";
import { openRunModel } from "../model.js";
import type { OpenedModel } from "../model.js";
import type { RunMethods } from "../run-methods.js";
import { composeAdapter } from "../run-methods.js";
import { writeGgufModel } from "./gguf.js";
import type { DenseType } from "./hugging-face.js";
import { writeHuggingFace } from "./hugging-face.js";
import { modelfile } from "./modelfile.js";
import { headTensors, writeTask } from "./task-head.js";
import type { TensorSource } from "./tensor-source.js";
import { baseTensors, exportContext, mergedTensors } from "./tensor-source.js";

export const exportFormats = ["peft", "safetensors", "gguf"] as const;
export type ExportFormat = (typeof exportFormats)[number];
export const exportTypes = ["f32", "f16", "bf16", "q8_0", "q4_0"] as const;
export type ExportType = (typeof exportTypes)[number];

export interface ExportOptions {
  readonly format: ExportFormat;
  /** Type of the weights; default that of the checkpoint for safetensors, f16 for GGUF. */
  readonly type?: ExportType;
  /** A folder that does not exist yet, or is empty. */
  readonly out: string;
  /** peft: fold scales and ranks so that every reader of such adapters takes it alike. */
  readonly portable?: boolean;
  /** Called while a model is fetched. */
  readonly progress?: Progress | undefined;
}

export interface ExportResult {
  readonly out: string;
  readonly files: readonly string[];
}

/**
 * Writes a model, with its adapter merged in if there is one, or the adapter alone (`peft`). The folder gets its name
 * when everything is in it. One tensor at a time is in memory.
 */
export async function exportModel(config: RunConfig, options: ExportOptions): Promise<ExportResult> {
  const { format, out } = options;
  await refuseUsed(out);
  refuseType(options);
  const model = await openRunModel(config.model, { progress: options.progress, run: config });
  try {
    refuseTask(model, format);
    const run = config.adapter === undefined ? undefined : await composeAdapter(config.adapter, model.files.definition);
    const made = join(dirname(out), `.${basename(out)}.unfinished-${process.pid}`);
    try {
      await mkdir(made, { recursive: true });
      if (format === "peft") await writeAdapterAlone(made, model, run, options.portable === true, config.seed);
      else {
        const source = await tensorsOf(model, run, config.seed, made);
        try {
          await writeMerged(made, model, source, options);
        } finally {
          await source.close?.();
        }
      }
      await rm(out, { recursive: true, force: true });
      await rename(made, out);
    } finally {
      await rm(made, { recursive: true, force: true });
    }
    return { out, files: (await readdir(out)).sort() };
  } finally {
    await model.files.weights.close();
  }
}

async function refuseUsed(out: string): Promise<void> {
  try {
    if ((await readdir(out)).length === 0) return;
  } catch (error) {
    if (isMissing(error)) return;
    throw error;
  }
  throw new ThimbleError("out-not-empty", "The folder to export into is not empty", {
    where: out,
    fix: "Give another --out.",
  });
}

function refuseType({ format, type }: ExportOptions): void {
  const packed = type === "q8_0" || type === "q4_0";
  if (type === undefined || (format === "gguf" ? true : format === "safetensors" && !packed)) return;
  throw new ThimbleError("export-type", `${format} files cannot be written in ${type}`, {
    expected: format === "peft" ? "no type: adapters are written in f32" : "f32, f16 or bf16",
  });
}

async function tensorsOf(
  model: OpenedModel,
  run: RunMethods | undefined,
  seed: number,
  folder: string,
): Promise<TensorSource> {
  const { definition, weights } = model.files;
  const adapter = run?.adapter;
  if (run === undefined || adapter === undefined) return baseTensors(weights);
  return mergedTensors(definition, weights, run.methods, adapter, seed, folder);
}

/** llama.cpp's readers of such models know no heads of tasks. */
function refuseTask({ files }: OpenedModel, format: ExportFormat): void {
  if (format !== "gguf" || files.definition.task === undefined) return;
  throw new ThimbleError("export-format", "A model with the head of a task is not written as GGUF", {
    given: files.definition.family,
    expected: "--format safetensors, or peft",
    fix: "Export it as safetensors, which transformers reads.",
  });
}

async function writeMerged(
  folder: string,
  model: OpenedModel,
  source: TensorSource,
  { format, type }: ExportOptions,
): Promise<void> {
  if (format === "safetensors") {
    await writeHuggingFace(folder, model, source, (type as DenseType | undefined) ?? checkpointType(model));
    return;
  }
  await writeGgufModel(join(folder, "model.gguf"), model, source, type ?? "f16");
  await writeTextAtomically(join(folder, "Modelfile"), modelfile("model.gguf", await model.loadTokenizer()));
}

/** The type that config.json states, or f32. */
function checkpointType({ files }: OpenedModel): DenseType {
  const config = files.format === "huggingface" ? (files.files.config as Record<string, unknown>) : {};
  const stated = config["dtype"] ?? config["torch_dtype"];
  if (stated === "bfloat16") return "bf16";
  return stated === "float16" ? "f16" : "f32";
}

async function writeAdapterAlone(
  folder: string,
  model: OpenedModel,
  run: RunMethods | undefined,
  portable: boolean,
  seed: number,
): Promise<void> {
  const adapter = run?.adapter;
  const peft = run?.methods.peft;
  if (adapter !== undefined && peft === undefined) {
    throw new ThimbleError("export-peft", "PEFT has no form for what the adapter computes", {
      where: "--adapter",
      given: run?.selections.map(({ id }) => id).join(", ") ?? "",
      fix: "Take the adapter's folder as it is: Thimble evaluates and generates with it.",
    });
  }
  if (adapter === undefined || peft === undefined) {
    throw new ThimbleError("export-adapter", "There is no adapter to export", {
      where: "--adapter",
      fix: "Name the folder of the adapter, or export the model as safetensors or gguf.",
    });
  }
  const form = await peft(adapter.tensors, exportContext(model.files.weights, seed));
  const { definition } = model.files;
  const head = headTensors(definition, (name) => adapter.tensors.get(name));
  await writeTask(folder, definition);
  const origin = { baseModel: adapter.baseModel ?? model.name, ...(head === undefined ? {} : { head }) };
  await writePeft(folder, portable ? portableForm(form) : form, origin);
}
