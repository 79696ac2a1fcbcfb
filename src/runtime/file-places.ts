import { getSystemErrorName } from "node:util";
import { must, ThimbleError } from "../errors.js";
import { NativeMemory, type NativeFunctions } from "./native.js";

/** Bytes in a file that this process has open. */
export interface FilePlace {
  /** Node's descriptor, which must stay open while programs run. */
  readonly file: number;
  /** Of the first byte, from the start of the file. */
  readonly offset: number;
  /** Ask the system not to keep what was read in its cache of files. */
  readonly uncached?: boolean;
  /** The file's name, for errors. */
  readonly path: string;
}

const wordsOfPlace = 3;

/** The places that the transfers of programs name, in native memory: they can change between two runs. */
export class FilePlaces {
  readonly #memory: NativeMemory;
  readonly #words: BigInt64Array;
  readonly #paths: string[];

  /** `names` says what lies at each place, for errors; no place has a file yet. */
  constructor(
    functions: NativeFunctions,
    private readonly names: readonly string[],
  ) {
    const bytes = 8 * wordsOfPlace * Math.max(1, names.length);
    this.#memory = new NativeMemory(functions, bytes);
    this.#words = new BigInt64Array(this.#memory.buffer(0, bytes)).fill(-1n);
    this.#paths = names.map(() => "");
  }

  address(index: number): bigint {
    return this.#memory.address + BigInt(8 * wordsOfPlace * index);
  }

  set(index: number, { file, offset, uncached = false, path }: FilePlace): void {
    this.#words.set([BigInt(file), BigInt(offset), uncached ? 1n : 0n], wordsOfPlace * index);
    this.#paths[index] = path;
  }

  /** What the native runner's account of a failure means; `position` is the byte in the range. */
  error(failure: bigint, address: bigint, position: bigint): ThimbleError {
    const index = Number(address - this.#memory.address) / (8 * wordsOfPlace);
    const name = must(this.names[index], "place of a failed transfer");
    const where = `${name} in ${must(this.#paths[index], "path")}`;
    switch (Number(failure)) {
      case -1:
        return new ThimbleError("transfer-truncated", "A file of weights ends before its contents do", {
          where,
          given: `end of file ${position} bytes into the tensor`,
          fix: "The file was cut short while it was in use: start again.",
        });
      case -2:
        return new ThimbleError("transfer-no-file", "A tensor that lies on disk has not been loaded", { where: name });
      case -3:
        return new ThimbleError("pool-threads", "The system gave no thread for reading files", { where });
      default:
        return new ThimbleError("transfer-failed", "A file could not be read or written while a program ran", {
          where,
          given: describeError(Number(failure)),
          fix: "Check the disk, and that it has room; start again, or resume from the last checkpoint.",
        });
    }
  }

  close(): void {
    this.#memory.release();
  }
}

function describeError(error: number): string {
  try {
    return `${getSystemErrorName(-error)} (error ${error} of the system)`;
  } catch {
    return `error ${error} of the system`;
  }
}
