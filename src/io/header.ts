/** Checks that every reader of weight files makes. */
import { open, stat } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { ThimbleError } from "../errors.js";
import type { TensorInfo } from "./tensor-file.js";

/** The product of sizes, or undefined when it is not a safe integer. */
export function checkedProduct(sizes: readonly number[]): number | undefined {
  let product = 1;
  for (const size of sizes) {
    product *= size;
    if (!Number.isSafeInteger(product)) return undefined;
  }
  return sizes.every(Number.isSafeInteger) ? product : undefined;
}

/** Refuses tensors that share bytes. Tensors of no bytes overlap nothing. */
export function checkOverlaps(code: string, tensors: readonly TensorInfo[], where: string): void {
  const sorted = tensors.filter((tensor) => tensor.bytes > 0).sort((a, b) => a.offset - b.offset);
  let previous: TensorInfo | undefined;
  for (const tensor of sorted) {
    if (previous !== undefined && tensor.offset < previous.offset + previous.bytes) {
      throw new ThimbleError(code, `Tensors ${previous.name} and ${tensor.name} overlap`, {
        where,
        given: `bytes ${previous.offset} to ${previous.offset + previous.bytes} and from ${tensor.offset} on`,
      });
    }
    previous = tensor;
  }
}

/** Opens a file for reading its header; `use` gets the handle and the file's size. */
export async function withFile<T>(path: string, use: (handle: FileHandle, size: number) => Promise<T>): Promise<T> {
  const handle = await openForReading(path);
  try {
    const info = await handle.stat();
    if (!info.isFile()) throw notAFile(path);
    return await use(handle, info.size);
  } finally {
    await handle.close();
  }
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (cause) {
    throw new ThimbleError("file-unreadable", "The file cannot be opened", {
      where: path,
      given: String(cause),
      cause,
    });
  }
}

function notAFile(path: string): ThimbleError {
  return new ThimbleError("file-unreadable", "This is not a file", { where: path, expected: "a regular file" });
}

export async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isFile(),
    () => false,
  );
}

export async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );
}
