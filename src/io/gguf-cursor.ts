/** Reads the header region of a GGUF file front to back through a small window. */
import { readSync } from "node:fs";
import { ThimbleError } from "../errors.js";

const windowBytes = 2 ** 20;
/** No more than this is read as a header: vocabularies of a million tokens take a tenth of it. */
const headerLimit = 2 ** 28;
const countLimit = 2 ** 24;

export class HeaderCursor {
  readonly path: string;
  readonly size: number;
  readonly #descriptor: number;
  #window = new Uint8Array(0);
  #windowStart = 0;
  #position = 0;
  readonly #text = new TextDecoder();

  constructor(path: string, descriptor: number, size: number) {
    this.path = path;
    this.size = size;
    this.#descriptor = descriptor;
  }

  get position(): number {
    return this.#position;
  }

  /** The next `length` bytes, valid until the next call. */
  bytes(length: number): Uint8Array {
    if (length > this.size - this.#position) this.#fail("gguf-truncated", "The file ends within its header", length);
    if (this.#position + length > headerLimit) this.#fail("gguf-header", "The header is too large", length);
    const start = this.#position - this.#windowStart;
    if (start + length > this.#window.length) this.#refill(length);
    const from = this.#position - this.#windowStart;
    this.#position += length;
    return this.#window.subarray(from, from + length);
  }

  u32(): number {
    const [a = 0, b = 0, c = 0, d = 0] = this.bytes(4);
    return (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
  }

  /** A u64, as a number if it is one exactly; else infinity, which no check lets pass. */
  u64(): number {
    const low = this.u32();
    const value = this.u32() * 2 ** 32 + low;
    return Number.isSafeInteger(value) ? value : Infinity;
  }

  /** A count of things that take at least `least` bytes each of what is left of the file. */
  count(least: number, what: string): number {
    const count = this.u64();
    if (count > Math.min(countLimit, (this.size - this.#position) / least)) {
      throw new ThimbleError("gguf-count", "The file claims more than it can hold", {
        where: `${what} in ${this.path}`,
        given: count === Infinity ? "2^53 or more" : String(count),
        expected: `at most ${Math.min(countLimit, Math.floor((this.size - this.#position) / least))}`,
        fix: "The file is damaged or cut short: fetch it again.",
      });
    }
    return count;
  }

  /** A length and as many bytes of UTF-8; what is not UTF-8 becomes U+FFFD. */
  string(): string {
    return this.#text.decode(this.bytes(this.u64()));
  }

  #refill(length: number): void {
    const wanted = Math.min(Math.max(length, windowBytes), this.size - this.#position);
    const window = new Uint8Array(wanted);
    let done = 0;
    while (done < wanted) {
      const read = readSync(this.#descriptor, window, done, wanted - done, this.#position + done);
      if (read === 0) this.#fail("gguf-truncated", "The file became shorter while it was read", length);
      done += read;
    }
    this.#window = window;
    this.#windowStart = this.#position;
  }

  #fail(code: string, message: string, length: number): never {
    throw new ThimbleError(code, message, {
      where: `byte ${this.#position} of ${this.path}`,
      given: `${this.size - this.#position} bytes left`,
      expected: `${length === Infinity ? "2^53 or more" : length} bytes more`,
      fix: "The file is damaged or cut short: fetch it again.",
    });
  }
}
