/** Writing files so that a reader sees the old contents or the new, never a part: temporary name, fsync, rename. */
import { randomBytes } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ThimbleError } from "../errors.js";

/** Appends a chunk to the file being written. */
export type Write = (chunk: Uint8Array) => Promise<void>;

/**
 * Writes `path` through `produce`, chunk by chunk; missing folders are made. If anything fails, whatever stood at
 * `path` stays, and the temporary file beside it is removed.
 */
export async function writeAtomically(path: string, produce: (write: Write) => Promise<void>): Promise<void> {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${process.pid}-${randomBytes(6).toString("hex")}.tmp`);
  let handle: FileHandle | undefined;
  try {
    await onDisk(path, mkdir(folder, { recursive: true }));
    handle = await onDisk(path, open(temporary, "wx"));
    const target = handle;
    await produce((chunk) => onDisk(path, writeAll(target, chunk)));
    await onDisk(path, handle.sync());
    await handle.close();
    handle = undefined;
    await onDisk(path, rename(temporary, path));
  } catch (error) {
    await handle?.close();
    // What matters is the first error; a temporary file that cannot be removed is often one that was never made.
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
  await syncFolder(folder);
}

export function writeBytesAtomically(path: string, bytes: Uint8Array): Promise<void> {
  return writeAtomically(path, (write) => write(bytes));
}

export function writeTextAtomically(path: string, text: string): Promise<void> {
  return writeBytesAtomically(path, new TextEncoder().encode(text));
}

/** JSON with two spaces of indentation and a newline at the end. */
export function writeJsonAtomically(path: string, value: unknown): Promise<void> {
  return writeTextAtomically(path, `${JSON.stringify(value, undefined, 2)}\n`);
}

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let done = 0; done < chunk.length;) {
    done += (await handle.write(chunk, done, chunk.length - done)).bytesWritten;
  }
}

async function onDisk<T>(path: string, action: Promise<T>): Promise<T> {
  try {
    return await action;
  } catch (cause) {
    throw new ThimbleError("file-unwritable", "The file cannot be written", {
      where: path,
      given: cause instanceof Error ? cause.message : String(cause),
      fix: "Check that the folder is writable and that the disk has room.",
      cause,
    });
  }
}

/** Makes the rename itself last; file systems that cannot sync a folder need no such thing or offer no better. */
async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await open(folder, "r");
    await handle.sync().finally(() => handle.close());
  } catch {
    return;
  }
}
