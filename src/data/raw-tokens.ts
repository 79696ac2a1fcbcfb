import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { ThimbleError } from "../errors.js";
import { messageOf } from "./json.js";
import type { TokenSource } from "./token-source.js";

const checkedAtOnce = 2 ** 20;

/**
 * A file of little-endian token ids without header: uint32 if its name ends in `.u32`, else uint16. The whole file is
 * one record and every token counts.
 */
export class RawTokens implements TokenSource {
  readonly tokenCount: number;
  readonly recordCount = 1;
  readonly allTrained = true;
  private readonly bytesPerToken: 2 | 4;
  private readonly descriptor: number;

  /** Opens the file. With a vocabulary size, ids are checked as they are read. */
  constructor(
    readonly path: string,
    private readonly vocabularySize?: number,
  ) {
    this.bytesPerToken = path.endsWith(".u32") ? 4 : 2;
    this.descriptor = open(path);
    const { size } = fstatSync(this.descriptor);
    this.tokenCount = size / this.bytesPerToken;
    if (size > 0 && Number.isInteger(this.tokenCount)) return;
    this.close();
    throw new ThimbleError("data-tokens-size", "The token file does not hold a whole number of ids", {
      given: `${size} bytes`,
      expected: `a multiple of ${this.bytesPerToken} bytes, above 0`,
      where: path,
      fix: "Name files of 32-bit ids .u32; all others are read as 16-bit ids.",
    });
  }

  start(record: number): number {
    return record === 0 ? 0 : this.tokenCount;
  }

  targets(): number {
    return this.tokenCount - 1;
  }

  hash(): number {
    return 0;
  }

  sourceOf(): number {
    return 0;
  }

  readIds(start: number, into: Int32Array): void {
    const bytes = readRange(this.descriptor, start * this.bytesPerToken, into.length * this.bytesPerToken, this.path);
    decodeIds(bytes, this.bytesPerToken, into);
    if (this.vocabularySize === undefined) return;
    const limit = this.vocabularySize;
    const bad = into.findIndex((id) => id < 0 || id >= limit);
    if (bad < 0) return;
    throw new ThimbleError("data-token-range", "The token file holds an id that the model does not have", {
      given: `id ${(into[bad] ?? 0) >>> 0} at token ${start + bad}`,
      expected: `ids below ${limit}`,
      where: this.path,
      fix: "Use the tokens that were made for this model's vocabulary.",
    });
  }

  /** Reads the whole file once, so that an id out of range is found before a run begins and not in its middle. */
  checkIds(): void {
    const chunk = new Int32Array(Math.min(this.tokenCount, checkedAtOnce));
    for (let start = 0; start < this.tokenCount; start += chunk.length) {
      this.readIds(start, chunk.subarray(0, Math.min(chunk.length, this.tokenCount - start)));
    }
  }

  readWeights(_start: number, into: Uint8Array): void {
    into.fill(1);
  }

  close(): void {
    closeSync(this.descriptor);
  }
}

function open(path: string): number {
  try {
    return openSync(path, "r");
  } catch (error) {
    throw new ThimbleError("data-unreadable", `The data file cannot be read: ${messageOf(error)}`, {
      where: path,
      fix: "Check the path and its permissions.",
      cause: error,
    });
  }
}

/** Reads exactly `length` bytes at an offset, or fails with `data-truncated`. */
export function readRange(descriptor: number, offset: number, length: number, where: string): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const count = readSync(descriptor, bytes, done, length - done, offset + done);
    if (count === 0) {
      throw new ThimbleError("data-truncated", "The file became shorter while it was in use", {
        where,
        given: `${offset + done} bytes`,
        expected: `${offset + length} bytes or more`,
      });
    }
    done += count;
  }
  return bytes;
}

/** Little-endian ids of 2 or 4 bytes. */
export function decodeIds(bytes: Buffer, bytesPerToken: 2 | 4, into: Int32Array): void {
  if (bytesPerToken === 2) for (let i = 0; i < into.length; i++) into[i] = bytes.readUInt16LE(2 * i);
  else for (let i = 0; i < into.length; i++) into[i] = bytes.readInt32LE(4 * i);
}
