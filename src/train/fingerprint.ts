import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";

/** Files up to this size are read in full; of larger ones, this many bytes in samples. */
const sampledBytes = 4 * 2 ** 20;
const samples = 256;

/**
 * A digest of a file that tells one from another without reading gigabytes: its size, its start, its end, and samples
 * evenly between. Against mistakes, not against forgers.
 */
export async function fingerprintFile(path: string): Promise<string> {
  const handle = await open(path, "r");
  try {
    const { size } = await handle.stat();
    const hash = createHash("sha256").update(`${size}\n`);
    if (size <= sampledBytes) hash.update(await read(handle, 0, size));
    else {
      const length = sampledBytes / samples;
      for (let index = 0; index < samples; index++) {
        hash.update(await read(handle, Math.floor(((size - length) * index) / (samples - 1)), length));
      }
    }
    return hash.digest("hex");
  } finally {
    await handle.close();
  }
}

async function read(handle: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const { bytesRead } = await handle.read(bytes, 0, length, offset);
  return bytes.subarray(0, bytesRead);
}

/** The digest of several files together, by their digests and in their order. */
export async function fingerprintFiles(paths: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  for (const path of paths) hash.update(await fingerprintFile(path));
  return hash.digest("hex");
}

/** The weight files and the configuration of a model's folder, or the one file that it is. */
export async function fingerprintModel(path: string): Promise<string> {
  if ((await stat(path)).isFile()) return fingerprintFile(path);
  const names = (await readdir(path)).filter((name) => name === "config.json" || name.endsWith(".safetensors"));
  return fingerprintFiles(names.sort().map((name) => join(path, name)));
}
