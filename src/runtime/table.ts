import { ThimbleError } from "../errors.js";

/** An absolute address, a size or a stride: one 64-bit word of a program table. */
export type Word = bigint | number;

/** One entry of a program: all threads work on it together, and the next one starts when all are done. */
export type Entry =
  | { readonly kind: "kernel"; readonly address: bigint; readonly arguments: readonly Word[] }
  /** The ranges may not overlap. */
  | { readonly kind: "copy"; readonly target: Word; readonly source: Word; readonly bytes: Word }
  /** `pattern` is written as 32-bit words; `bytes` should be a multiple of 4. */
  | { readonly kind: "fill"; readonly target: Word; readonly bytes: Word; readonly pattern: number }
  /**
   * Asks for bytes of a file to be read into memory, or written from it, while the program goes on. `place` is the
   * address of a place of a `FilePlaces` (src/runtime/file-places.ts).
   */
  | { readonly kind: "read" | "write"; readonly memory: Word; readonly place: Word; readonly bytes: Word }
  /** Waits until the first `transfers` reads and writes of this run are finished; they are made in order. */
  | { readonly kind: "wait"; readonly transfers: number };

/** The numbers the native runner knows the kinds by. */
const kindNumbers = { kernel: 1n, copy: 2n, fill: 3n, read: 4n, write: 5n, wait: 6n } as const;

function wordsOf(entry: Entry): Word[] {
  switch (entry.kind) {
    case "kernel":
      return [kindNumbers.kernel, entry.address, entry.arguments.length, ...entry.arguments];
    case "copy":
      return [kindNumbers.copy, entry.target, entry.source, entry.bytes];
    case "fill":
      return [kindNumbers.fill, entry.target, entry.bytes, entry.pattern >>> 0];
    case "read":
    case "write":
      return [kindNumbers[entry.kind], entry.memory, entry.place, entry.bytes];
    case "wait":
      return [kindNumbers.wait, entry.transfers];
  }
}

/** A program as the native runner reads it: the words of its entries one after another. */
export interface Table {
  readonly words: BigInt64Array;
  readonly entries: number;
}

export function encodeTable(entries: readonly Entry[]): Table {
  const words = entries.flatMap(wordsOf);
  const table = new BigInt64Array(words.length);
  for (const [index, word] of words.entries()) {
    if (typeof word === "number" && !Number.isSafeInteger(word)) {
      throw new ThimbleError("table-word", "A program argument is no whole number", { given: String(word) });
    }
    table[index] = BigInt(word);
  }
  return { words: table, entries: entries.length };
}

const single = new Float32Array(1);
const bits = new Uint32Array(single.buffer);

/** The bits of an f32 as a kernel argument. */
export function floatBits(value: number): number {
  single[0] = value;
  return bits[0] ?? 0;
}
