/** Finds the model in a folder that may hold other things too. */
import type { Dirent } from "node:fs";
import { readdir } from "node:fs/promises";
import { join, relative } from "node:path";
import { ThimbleError } from "../errors.js";
import { isDirectory, isFile } from "./header.js";

export type ModelKind = "huggingface" | "gguf" | "safetensors";

export interface FoundModel {
  readonly kind: ModelKind;
  /** A folder for `huggingface`, else a file. */
  readonly path: string;
}

const maximumDepth = 6;
const maximumFolders = 10_000;

/** Files that a model may need: weights, configuration, tokenizers, chat templates. */
export function isModelFile(path: string): boolean {
  return /(\.(gguf|safetensors|json|jinja|tiktoken|spm)|(^|[/\\])(tokenizer[^/\\]*\.model|spiece\.model|vocab\.txt|merges\.txt))$/i.test(
    path,
  );
}

/**
 * The one model at `path`. A folder with config.json and .safetensors is one, and so is every .gguf file (of a split
 * one, the first part). If the folder itself is a model, it is meant, whatever else lies in it; else all that is below
 * is looked at, and several models are an error that lists them.
 */
export async function findModel(path: string, source: string): Promise<FoundModel> {
  if (await isFile(path)) return modelFile(path, source);
  if (!(await isDirectory(path))) {
    throw new ThimbleError("source-missing", "There is no such file or folder", { where: path, given: source });
  }
  const found = await search(path);
  const own = found.find((model) => model.path === path);
  if (own !== undefined) return own;
  const [first, ...others] = found;
  if (first !== undefined && others.length === 0) return first;
  const names = found.map((model) => relative(path, model.path)).sort();
  if (names.length > 0) {
    throw new ThimbleError("source-ambiguous", "Several models are there", {
      where: source,
      given: names.join(", "),
      fix: `Name one of them, as in ${source.replace(/\/+$/, "")}/${names[0] ?? ""}`,
    });
  }
  throw new ThimbleError("source-no-model", "No model is there", {
    where: source,
    given: await listing(path),
    expected: "config.json with .safetensors files, or a .gguf file",
  });
}

function modelFile(path: string, source: string): FoundModel {
  if (path.endsWith(".gguf")) return { kind: "gguf", path };
  if (path.endsWith(".safetensors") || path.endsWith(".safetensors.index.json")) return { kind: "safetensors", path };
  throw new ThimbleError("source-no-model", "This is not a model file", {
    where: path,
    given: source,
    expected: "a .gguf or .safetensors file, or a folder with config.json and .safetensors files",
  });
}

async function search(root: string): Promise<FoundModel[]> {
  const found: FoundModel[] = [];
  let folders = [root];
  let visited = 0;
  for (let depth = 0; depth <= maximumDepth && folders.length > 0; depth++) {
    const next: string[] = [];
    for (const folder of folders) {
      if (++visited > maximumFolders) return found;
      const entries = await readdir(folder, { withFileTypes: true });
      found.push(...modelsIn(folder, entries));
      next.push(...entries.filter((entry) => entry.isDirectory()).map((entry) => join(folder, entry.name)));
    }
    folders = next.sort();
  }
  return found;
}

function modelsIn(folder: string, entries: readonly Dirent[]): FoundModel[] {
  const names = entries.filter((entry) => entry.isFile() || entry.isSymbolicLink()).map((entry) => entry.name);
  const found: FoundModel[] = names
    .filter((name) => name.endsWith(".gguf") && !isLaterPart(name))
    .map((name) => ({ kind: "gguf", path: join(folder, name) }));
  if (names.includes("config.json") && names.some((name) => name.endsWith(".safetensors"))) {
    found.push({ kind: "huggingface", path: folder });
  }
  return found;
}

/** A part of a split GGUF model other than the first. */
function isLaterPart(name: string): boolean {
  const part = /-(\d{5})-of-\d{5}\.gguf$/.exec(name)?.[1];
  return part !== undefined && part !== "00001";
}

async function listing(path: string): Promise<string> {
  const names = (await readdir(path)).filter((name) => !name.startsWith("."));
  const more = names.length > 10 ? `, and ${names.length - 10} more` : "";
  return names.length === 0 ? "an empty folder" : names.slice(0, 10).join(", ") + more;
}
