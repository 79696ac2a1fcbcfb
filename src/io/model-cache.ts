/** Fetched models on disk: whole or not there, made by one process at a time, with the checksums of their files. */
import { createHash } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { lock } from "proper-lockfile";
import { ThimbleError } from "../errors.js";
import { cacheDirectory } from "../runtime/platform.js";
import { writeJsonAtomically } from "./atomic.js";
import { hashFile } from "./download.js";

const markerName = ".thimble.json";

interface Marker {
  readonly source: string;
  readonly fetched: string;
  /** By path inside the entry, with `/`. */
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}

export interface CacheEntry {
  readonly folder: string;
  /** It was there before. */
  readonly cached: boolean;
}

/**
 * The cache's folder for `source`. If it is not there, `fill` makes its files in a folder beside it, which is kept
 * when that fails, so that downloads can go on; it may return SHA-256 sums that it knows, by path.
 */
export async function cached(
  source: string,
  fill: (folder: string) => Promise<Readonly<Record<string, string>>>,
  root: string = join(cacheDirectory(), "models"),
): Promise<CacheEntry> {
  const folder = join(root, entryName(source));
  if (await isWhole(folder, source)) return { folder, cached: true };
  await makeFolder(root);
  const release = await takeLock(folder);
  try {
    if (await isWhole(folder, source)) return { folder, cached: true };
    const partial = `${folder}.partial`;
    await mkdir(partial, { recursive: true });
    const sums = await fill(partial);
    await writeMarker(partial, source, sums);
    await rm(folder, { recursive: true, force: true });
    await rename(partial, folder);
    return { folder, cached: false };
  } finally {
    await release();
  }
}

/** A name that a person recognises and that no two sources share. */
function entryName(source: string): string {
  const readable = source
    .replace(/^https?:\/\//, "")
    .replace(/[^A-Za-z0-9._-]+/g, "-")
    .slice(0, 80);
  return `${readable}-${createHash("sha256").update(source).digest("hex").slice(0, 12)}`;
}

async function makeFolder(root: string): Promise<void> {
  try {
    await mkdir(root, { recursive: true });
  } catch (cause) {
    throw new ThimbleError("cache-unwritable", "The cache folder cannot be made", {
      where: root,
      given: String(cause),
      fix: "Set THIMBLE_CACHE to a folder that you may write.",
      cause,
    });
  }
}

/** Waits for another process that fetches the same; its lock counts as dead when it is not renewed for 30 s. */
async function takeLock(folder: string): Promise<() => Promise<void>> {
  await (await open(`${folder}.lock`, "a")).close();
  return lock(`${folder}.lock`, {
    stale: 30_000,
    update: 5_000,
    retries: { forever: true, minTimeout: 200, maxTimeout: 2_000 },
    // A lock lost while the machine slept: the folder is renamed as a whole, so the worst is work done twice.
    onCompromised: () => undefined,
  });
}

async function isWhole(folder: string, source: string): Promise<boolean> {
  try {
    const marker = JSON.parse(await readFile(join(folder, markerName), "utf8")) as Partial<Marker> | null;
    if (marker?.source !== source || marker.files === undefined) return false;
    for (const [path, { bytes }] of Object.entries(marker.files)) {
      if ((await stat(join(folder, path))).size !== bytes) return false;
    }
    return true;
  } catch {
    return false;
  }
}

async function writeMarker(folder: string, source: string, sums: Readonly<Record<string, string>>): Promise<void> {
  const files: Record<string, { bytes: number; sha256: string }> = {};
  for (const name of await readdir(folder, { recursive: true })) {
    const info = await stat(join(folder, name));
    const path = name.replaceAll("\\", "/");
    if (!info.isFile() || path === markerName) continue;
    files[path] = { bytes: info.size, sha256: sums[path] ?? (await hashFile(join(folder, name))) };
  }
  await writeJsonAtomically(join(folder, markerName), {
    source,
    fetched: new Date().toISOString(),
    files,
  } satisfies Marker);
}
