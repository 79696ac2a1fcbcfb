/** Fetches models from the Hugging Face hub, or from what HF_ENDPOINT names. */
import { stat } from "node:fs/promises";
import { z } from "zod";
import { ThimbleError } from "../errors.js";
import { inside } from "./archives.js";
import type { Progress } from "./download.js";
import { download, hashFile } from "./download.js";
import { isModelFile } from "./find-model.js";
import { get, TransientError } from "./http.js";
import { unreachable } from "./source-error.js";
import type { Source } from "./source-name.js";

type HubSource = Extract<Source, { kind: "hf" }>;

const listingSchema = z.object({
  sha: z.string().regex(/^[0-9a-f]{40}$/),
  siblings: z.array(
    z.object({
      rfilename: z.string(),
      size: z.number().int().nonnegative().optional(),
      lfs: z.object({ sha256: z.string().regex(/^[0-9a-f]{64}$/) }).nullish(),
    }),
  ),
});

type HubFile = z.infer<typeof listingSchema>["siblings"][number];

export interface HubOptions {
  readonly progress?: Progress | undefined;
  readonly retryDelay?: number | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Downloads the model's files into `folder`; those that an earlier attempt left whole are kept. */
export async function fetchHub(
  wanted: HubSource,
  source: string,
  folder: string,
  options: HubOptions,
): Promise<Record<string, string>> {
  const endpoint = (options.environment["HF_ENDPOINT"] ?? "https://huggingface.co").replace(/\/+$/, "");
  const token = options.environment["HF_TOKEN"];
  const headers: Record<string, string> =
    token === undefined || token === "" ? {} : { authorization: `Bearer ${token}` };
  const { repository, revision } = wanted;
  const address = `${endpoint}/api/models/${repository}/revision/${encodeURIComponent(revision)}?blobs=true`;
  const { sha, siblings } = await readListing(address, headers, source);
  const sums: Record<string, string> = {};
  for (const file of choose(siblings, wanted.path, source)) {
    const target = inside(folder, file.rfilename);
    const known = file.lfs?.sha256;
    if (known !== undefined && file.size === (await sizeOf(target)) && (await hashFile(target)) === known) {
      sums[file.rfilename] = known;
      continue;
    }
    // The commit and not the branch: a push between two files must not mix two models.
    const path = file.rfilename.split("/").map(encodeURIComponent).join("/");
    sums[file.rfilename] = await download({
      url: `${endpoint}/${repository}/resolve/${sha}/${path}`,
      target,
      source,
      headers,
      sha256: known,
      bytes: file.size,
      progress: options.progress,
      retryDelay: options.retryDelay,
    });
  }
  return sums;
}

async function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    (info) => info.size,
    () => undefined,
  );
}

async function readListing(
  address: string,
  headers: Readonly<Record<string, string>>,
  source: string,
): Promise<z.infer<typeof listingSchema>> {
  try {
    const { response } = await get(address, headers, source);
    return listingSchema.parse(await response.json());
  } catch (error) {
    if (error instanceof ThimbleError) throw error;
    const said = error instanceof TransientError ? error.message : "the answer is not a list of the model's files";
    throw unreachable(source, said, error);
  }
}

/** The files of the one model that is meant. */
function choose(files: readonly HubFile[], path: string, source: string): HubFile[] {
  const below = path === "" || path.endsWith(".gguf") ? "" : `${path}/`;
  if (path.endsWith(".gguf")) {
    const same = files.filter(({ rfilename }) => splitName(rfilename) === splitName(path));
    if (same.length === 0) throw noModel(source, files);
    return same;
  }
  const level = files.filter(
    ({ rfilename }) => rfilename.startsWith(below) && !rfilename.slice(below.length).includes("/"),
  );
  const name = (file: HubFile): string => file.rfilename.slice(below.length);
  const weights = level.filter((file) => name(file).endsWith(".safetensors"));
  if (weights.length > 0 && level.some((file) => name(file) === "config.json")) {
    // Some models have a second copy of the weights under another name.
    const usual = weights.filter((file) => /^model(-|\.)/.test(name(file)));
    const kept = new Set(usual.length > 0 ? usual : weights);
    return level.filter(
      (file) => isModelFile(name(file)) && (kept.has(file) || !/\.(safetensors|gguf)$/.test(name(file))),
    );
  }
  const ggufs = files.filter(({ rfilename }) => rfilename.startsWith(below) && rfilename.endsWith(".gguf"));
  const models = [...new Set(ggufs.map(({ rfilename }) => splitName(rfilename)))];
  if (models.length === 0) throw noModel(source, files);
  if (models.length === 1) return ggufs;
  throw new ThimbleError("source-ambiguous", "Several models are there", {
    where: source,
    given: ggufs.map(({ rfilename }) => rfilename).join(", "),
    fix: `Name one of them, as in hf:owner/name/${ggufs[0]?.rfilename ?? ""}`,
  });
}

/** All parts of a split GGUF model have one name without their number. */
function splitName(path: string): string {
  return path.replace(/-\d{5}-of-(\d{5})\.gguf$/, "-of-$1.gguf");
}

function noModel(source: string, files: readonly HubFile[]): ThimbleError {
  return new ThimbleError("source-no-model", "No model that Thimble reads is there", {
    where: source,
    given:
      files
        .map(({ rfilename }) => rfilename)
        .slice(0, 20)
        .join(", ") || "no files",
    expected: "config.json with .safetensors files, or a .gguf file",
  });
}
