/** What the writers of weight files share. */
import { ThimbleError } from "../errors.js";
import type { Shape } from "../ir/shape.js";
import type { Write } from "./atomic.js";

export type Chunks<T> = Iterable<T> | AsyncIterable<T>;

/** A tensor to be written: its bytes come when it is their turn, so that no file is ever in memory. */
export interface TensorToWrite {
  readonly name: string;
  /** Element type as {@link TensorInfo} names it: `f32`, `bf16`, `i64`, ... */
  readonly type: string;
  readonly shape: Shape;
  /** The tensor's bytes, little-endian and row-major, in pieces of any size. */
  readonly chunks: () => Chunks<Uint8Array>;
}

export function checkNames(tensors: readonly { readonly name: string }[]): void {
  const names = new Set<string>();
  for (const { name } of tensors) {
    if (names.has(name)) throw new ThimbleError("tensor-write", `Two tensors to be written are named ${name}`);
    names.add(name);
  }
}

/** Writes all chunks, which must be `bytes` long together. */
export async function writeChunks(
  write: Write,
  name: string,
  bytes: number,
  chunks: Chunks<Uint8Array>,
): Promise<void> {
  let done = 0;
  for await (const chunk of chunks) {
    done += chunk.length;
    if (done > bytes) break;
    await write(chunk);
  }
  if (done === bytes) return;
  throw new ThimbleError("tensor-write", `Tensor ${name} has other bytes than its shape says`, {
    given: done > bytes ? `more than ${bytes}` : String(done),
    expected: String(bytes),
  });
}
