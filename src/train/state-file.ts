import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import type { PersistentTensor, Session } from "../session/types.js";
import type { FileSystem } from "./files.js";
import { isMissing } from "./files.js";
import type { Manifest, ManifestTensor } from "./manifest.js";
import { brokenCheckpoint } from "./manifest.js";

/** Bytes read or written at once. */
const chunkBytes = 4 * 2 ** 20;

/** What a checkpoint needs of a session. */
export type StateHolder = Pick<Session, "tensors" | "bytes" | "peek" | "put">;

/** Where tensors are put that are read. */
export interface StatePlaces {
  of(tensor: ManifestTensor): Uint8Array;
  /** Called when a tensor's bytes are there: what lies elsewhere in the end is put there. */
  read(tensor: ManifestTensor, bytes: Uint8Array): void;
}

/** The tensors that a checkpoint must hold: all that change, by name. */
export function changingTensors(session: Pick<Session, "tensors">): PersistentTensor[] {
  const changing = session.tensors.filter(({ changes }) => changes);
  return changing.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** Writes the changing tensors one after the other, straight from their place, and makes the file last. */
export async function writeState(files: FileSystem, path: string, session: StateHolder): Promise<ManifestTensor[]> {
  const handle = await files.open(path, "wx");
  try {
    const entries: ManifestTensor[] = [];
    for (const tensor of changingTensors(session)) {
      const sha256 = await writeTensor(handle, session.peek?.(tensor.name) ?? session.bytes(tensor.name));
      const { name, format, shape, bytes } = tensor;
      entries.push({ name, format, shape: [...shape], bytes, sha256 });
    }
    await handle.sync();
    return entries;
  } finally {
    await handle.close();
  }
}

async function writeTensor(handle: FileHandle, bytes: Uint8Array): Promise<string> {
  const hash = createHash("sha256");
  for (let start = 0; start < bytes.length; start += chunkBytes) {
    const chunk = bytes.subarray(start, Math.min(bytes.length, start + chunkBytes));
    hash.update(chunk);
    for (let done = 0; done < chunk.length;) {
      done += (await handle.write(chunk, done, chunk.length - done)).bytesWritten;
    }
  }
  return hash.digest("hex");
}

/**
 * Reads the state file against its manifest, every byte and digest; `places` says where a tensor's bytes go, and
 * nothing is kept without it. Throws `checkpoint-broken`.
 */
export async function readState(
  files: FileSystem,
  path: string,
  manifest: Manifest,
  places?: StatePlaces,
): Promise<void> {
  const handle = await openState(files, path);
  try {
    const { size } = await handle.stat();
    const expected = manifest.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
    if (size !== expected) throw brokenCheckpoint(path, `${size} bytes`, `${expected} bytes`);
    const scratch = places === undefined ? new Uint8Array(Math.min(chunkBytes, Math.max(1, size))) : undefined;
    let offset = 0;
    for (const tensor of manifest.tensors) {
      const target = places?.of(tensor) ?? scratch ?? new Uint8Array(0);
      const sha256 = await readTensor(handle, path, offset, tensor.bytes, target);
      if (sha256 !== tensor.sha256)
        throw brokenCheckpoint(path, `bytes of ${tensor.name} that are not what was written`);
      places?.read(tensor, target);
      offset += tensor.bytes;
    }
  } finally {
    await handle.close();
  }
}

async function openState(files: FileSystem, path: string): Promise<FileHandle> {
  try {
    return await files.open(path, "r");
  } catch (error) {
    if (isMissing(error)) throw brokenCheckpoint(path, "no state file");
    throw error;
  }
}

/** Reads `length` bytes into `target`, over and over from its start where it is shorter; the digest of all. */
async function readTensor(
  handle: FileHandle,
  path: string,
  offset: number,
  length: number,
  target: Uint8Array,
): Promise<string> {
  const hash = createHash("sha256");
  for (let done = 0; done < length;) {
    const at = done % target.length;
    const wanted = Math.min(chunkBytes, length - done, target.length - at);
    const { bytesRead } = await handle.read(target, at, wanted, offset + done);
    if (bytesRead === 0) throw brokenCheckpoint(path, `${offset + done} bytes`, `${offset + length} bytes or more`);
    hash.update(target.subarray(at, at + bytesRead));
    done += bytesRead;
  }
  return hash.digest("hex");
}
