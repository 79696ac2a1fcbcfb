import { closeSync, fstatSync, fsyncSync, mkdirSync, openSync, readSync, rmSync, statfsSync, writeSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { must, ThimbleError } from "../errors.js";
import type { FilePlace } from "./file-places.js";

/** A tensor that lies on disk. */
export interface DiskTensor {
  readonly name: string;
  readonly bytes: number;
  /** Of its first byte, where it lies in the file of this process. */
  readonly offset: number;
}

export interface DiskOptions {
  /** Where the file of this process is made; not in a file system that lies in memory. */
  readonly folder: string;
  /** Ask the system not to keep what was read in its cache of files. */
  readonly uncached: boolean;
}

interface OpenFile {
  readonly descriptor: number;
  readonly path: string;
  /** Of a file that others may write to: what it was like when it was opened. */
  readonly seen?: { readonly size: number; readonly modified: number };
}

/** No more than this is read or written at once. */
const chunkBytes = 8 * 2 ** 20;

/**
 * The tensors that lie on disk while a session runs: in the files that they came from, where these hold the very bytes,
 * else in one file of this process. That file has no name (on Windows: until the session is closed), so it goes away
 * with the process, however that ends, and none is ever found by another one.
 */
export class DiskWeights {
  readonly #tensors: ReadonlyMap<string, DiskTensor>;
  readonly #places = new Map<string, FilePlace>();
  readonly #borrowed = new Map<string, OpenFile>();
  #own: OpenFile | undefined;

  constructor(
    tensors: readonly DiskTensor[],
    private readonly options: DiskOptions,
  ) {
    this.#tensors = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  /** Where each tensor is that has been written or found in a file. */
  get places(): ReadonlyMap<string, FilePlace> {
    return this.#places;
  }

  /** Takes a tensor from where it lies already; the file must stay as it is until `close`. */
  borrow(name: string, path: string, offset: number): void {
    const file = this.#borrowed.get(path) ?? openBorrowed(path);
    this.#borrowed.set(path, file);
    this.#places.set(name, { file: file.descriptor, offset, path, uncached: this.options.uncached });
  }

  /** Puts a tensor's bytes into the file of this process; a tensor that was borrowed is its own from then on. */
  write(name: string, bytes: Uint8Array): void {
    const { offset, bytes: expected } = this.#tensor(name);
    if (bytes.length !== expected) throw new ThimbleError("tensor-range", `Tensor ${name} has another size on disk`);
    const { descriptor: file, path } = this.#ownFile();
    onDisk(path, () => {
      for (let done = 0; done < bytes.length;) {
        done += writeSync(file, bytes, done, Math.min(chunkBytes, bytes.length - done), offset + done);
      }
    });
    this.#places.set(name, { file, offset, path, uncached: this.options.uncached });
  }

  /** Fills `target`, which must be as long as the tensor, or new memory. */
  read(name: string, target: Uint8Array = new Uint8Array(this.#tensor(name).bytes)): Uint8Array {
    const place = this.#places.get(name);
    if (place === undefined) {
      throw new ThimbleError("transfer-no-file", "A tensor that lies on disk has not been loaded", { where: name });
    }
    const where = `${name} in ${place.path}`;
    for (let done = 0; done < target.length;) {
      const length = Math.min(chunkBytes, target.length - done);
      const count = onDisk(where, () => readSync(place.file, target, done, length, place.offset + done));
      if (count === 0) throw truncated(where, done);
      done += count;
    }
    return target;
  }

  /** Makes what was written last; only then is it sure that the disk had room. */
  flush(): void {
    const own = this.#own;
    if (own !== undefined) {
      onDisk(own.path, () => {
        fsyncSync(own.descriptor);
      });
    }
  }

  /** Refuses to go on with a file that somebody has changed since. */
  check(): void {
    for (const { descriptor, path, seen } of this.#borrowed.values()) {
      const { size, mtimeMs: modified } = fstatSync(descriptor);
      if (size === seen?.size && modified === seen.modified) continue;
      throw new ThimbleError("disk-weights-changed", "The model's file was changed while its weights were in use", {
        where: path,
        given: `${size} bytes, changed ${new Date(modified).toISOString()}`,
        expected: `${must(seen, "size of a borrowed file").size} bytes, as at the start`,
        fix: "Start again, or resume from the last checkpoint, and leave the file alone.",
      });
    }
  }

  close(): void {
    for (const { descriptor } of this.#borrowed.values()) closeSync(descriptor);
    this.#borrowed.clear();
    this.#places.clear();
    if (this.#own === undefined) return;
    closeSync(this.#own.descriptor);
    rmSync(this.#own.path, { force: true });
    this.#own = undefined;
  }

  #tensor(name: string): DiskTensor {
    return must(this.#tensors.get(name), `tensor ${name} on disk`);
  }

  #ownFile(): OpenFile {
    this.#own ??= createOwn(this.options.folder, this.#bytesToWrite());
    return this.#own;
  }

  #bytesToWrite(): number {
    return [...this.#tensors.values()].reduce(
      (sum, { name, bytes }) => (this.#places.has(name) ? sum : sum + bytes),
      0,
    );
  }
}

function openBorrowed(path: string): OpenFile {
  const descriptor = onDisk(path, () => openSync(path, "r"));
  const { size, mtimeMs } = fstatSync(descriptor);
  return { descriptor, path, seen: { size, modified: mtimeMs } };
}

/** An empty file that only this user can read, without a name where the system allows that. */
function createOwn(folder: string, bytes: number): OpenFile {
  const path = join(folder, `weights-${process.pid}-${randomBytes(6).toString("hex")}`);
  return onDisk(path, () => {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const { bavail, bsize } = statfsSync(folder);
    if (bavail * bsize < bytes) throw full(folder, bytes, bavail * bsize);
    const descriptor = openSync(path, "wx+", 0o600);
    if (process.platform !== "win32") rmSync(path);
    return { descriptor, path };
  });
}

function full(where: string, bytes: number, free?: number): ThimbleError {
  return new ThimbleError("disk-full", "The disk has no room for the weights that are to lie on it", {
    where,
    given: free === undefined ? "a full disk" : `${(free / 1e6).toFixed(0)} MB free`,
    expected: `${(bytes / 1e6).toFixed(0)} MB`,
    fix: "Make room, set THIMBLE_CACHE to a folder on another disk, or keep the weights in memory.",
  });
}

function truncated(where: string, position: number): ThimbleError {
  return new ThimbleError("transfer-truncated", "A file of weights ends before its contents do", {
    where,
    given: `end of file ${position} bytes into the tensor`,
    fix: "The file was cut short while it was in use: start again.",
  });
}

function onDisk<T>(where: string, action: () => T): T {
  try {
    return action();
  } catch (cause) {
    if (cause instanceof ThimbleError) throw cause;
    if (cause instanceof Error && "code" in cause && cause.code === "ENOSPC") throw full(where, 0);
    throw new ThimbleError("transfer-failed", "A file of weights could not be read or written", {
      where,
      given: String(cause),
      fix: "Check the disk and the folder's permissions.",
      cause,
    });
  }
}
