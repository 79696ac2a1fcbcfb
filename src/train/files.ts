import * as nodeFiles from "node:fs/promises";
import { ThimbleError } from "../errors.js";

/** The file operations of training, as one value: tests replace it to fail at each of them in turn. */
export type FileSystem = Pick<
  typeof nodeFiles,
  "copyFile" | "mkdir" | "open" | "readdir" | "readFile" | "rename" | "rm" | "stat"
>;

export const diskFiles: FileSystem = nodeFiles;

export function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR");
}

/** A failure of the disk (full, read-only, broken) as an error for a person; anything else as it is. */
export function diskError(error: unknown): unknown {
  if (!(error instanceof Error) || !("syscall" in error) || !("code" in error)) return error;
  const path = "path" in error ? { where: String(error.path) } : {};
  return new ThimbleError("disk", "A file of the run cannot be read or written", {
    ...path,
    given: error.message,
    fix: "Make room or give another --out; a run can go on from its last checkpoint with --resume.",
    cause: error,
  });
}

/** Names in a folder, sorted; none where there is no such folder. */
export async function namesIn(files: FileSystem, folder: string): Promise<string[]> {
  try {
    return (await files.readdir(folder)).sort();
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}

/** Makes a folder's entries last through a power failure; file systems that cannot do so are left to their ways. */
export async function syncFolder(files: FileSystem, folder: string): Promise<void> {
  let handle;
  try {
    handle = await files.open(folder, "r");
  } catch (error) {
    if (process.platform === "win32") return;
    throw error;
  }
  try {
    await handle.sync();
  } catch (error) {
    if (!(error instanceof Error && "code" in error && (error.code === "EINVAL" || error.code === "EPERM")))
      throw error;
  } finally {
    await handle.close();
  }
}

/** Puts `made` in the place of `folder`, whatever stands there; a kill in between leaves one of the two or neither. */
export async function replaceFolder(files: FileSystem, made: string, folder: string, old: string): Promise<void> {
  try {
    await files.rename(folder, old);
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  await files.rename(made, folder);
  await files.rm(old, { recursive: true, force: true });
}
