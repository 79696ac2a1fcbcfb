import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { download } from "../io/download.js";
import type { Source } from "../io/source-name.js";

type HubSource = Extract<Source, { kind: "hf" }>;

/**
 * The text of a hub model's config.json, without its weights; undefined where it cannot be had (a model of GGUF files,
 * no network): then whoever asks must go the long way.
 */
export async function fetchHubConfig({ repository, revision, path }: HubSource): Promise<string | undefined> {
  if (path.endsWith(".gguf")) return undefined;
  const endpoint = (process.env["HF_ENDPOINT"] ?? "https://huggingface.co").replace(/\/+$/, "");
  const token = process.env["HF_TOKEN"];
  const folder = await mkdtemp(join(tmpdir(), "thimble-config-"));
  try {
    const target = join(folder, "config.json");
    const name = path === "" ? "config.json" : `${path}/config.json`;
    await download({
      url: `${endpoint}/${repository}/resolve/${encodeURIComponent(revision)}/${name}`,
      target,
      source: `hf:${repository}`,
      ...(token === undefined || token === "" ? {} : { headers: { authorization: `Bearer ${token}` } }),
      retryDelay: 50,
    });
    return await readFile(target, "utf8");
  } catch {
    return undefined;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
