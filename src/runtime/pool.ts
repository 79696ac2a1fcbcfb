import type { KoffiFunc } from "koffi";
import { must, ThimbleError } from "../errors.js";
import type { CompileOptions } from "./compiler.js";
import { FilePlaces } from "./file-places.js";
import { loadNative, NativeMemory, type NativeFunctions, type RunCall } from "./native.js";
import { usableCores } from "./platform.js";
import { encodeTable, type Entry, type Table } from "./table.js";

/** How long a waiting worker looks before it sleeps, when each has a core of its own. */
const spinNanoseconds = 50_000;
const maximumThreads = 1024;

export interface RunOptions {
  /** Stops the program between two entries. */
  readonly signal?: AbortSignal;
}

export interface RunResult {
  /** Entries completed; fewer than the program has when it was cancelled. */
  readonly completed: number;
  readonly cancelled: boolean;
}

/** What the host and the native runner tell each other, as `Control` in its source; then comes the table. */
const headerBytes = 64;

/** Programs in the middle of a run: a process that exits stops them, for Node waits for native calls to return. */
const running = new Set<Program>();

function stopAll(): void {
  for (const program of running) program.cancel();
}

/** A program table in native memory, ready to run any number of times, once at a time. */
export class Program {
  readonly entries: number;
  /** Nanoseconds of each entry in the last run, if asked for. */
  readonly nanoseconds: BigInt64Array | undefined;
  readonly #memory: NativeMemory;
  readonly #cancel: Int32Array;
  /** Error, place and position of a transfer that failed. */
  readonly #failure: BigInt64Array;
  readonly #pool: bigint;
  readonly #run: KoffiFunc<RunCall>;
  readonly #timesAddress: bigint;

  constructor(
    functions: NativeFunctions,
    pool: bigint,
    table: Table,
    timed: boolean,
    private readonly places?: FilePlaces,
  ) {
    const { words, entries } = table;
    const timesOffset = headerBytes + words.byteLength;
    this.entries = entries;
    this.#memory = new NativeMemory(functions, timesOffset + (timed ? 8 * entries : 0));
    const buffer = this.#memory.buffer(0, this.#memory.bytes);
    new BigInt64Array(buffer, headerBytes, words.length).set(words);
    this.#cancel = new Int32Array(buffer, 0, 1);
    this.#failure = new BigInt64Array(buffer, 8, 3);
    this.nanoseconds = timed ? new BigInt64Array(buffer, timesOffset, entries) : undefined;
    this.#timesAddress = timed ? this.#memory.address + BigInt(timesOffset) : 0n;
    this.#pool = pool;
    this.#run = functions.run;
  }

  /** Bytes of native memory that the table takes. */
  get bytes(): number {
    return this.#memory.bytes;
  }

  #begin(): [bigint, bigint, number, bigint, bigint] {
    if (running.has(this)) throw new ThimbleError("program-busy", "The program is already running");
    if (running.size === 0) process.on("exit", stopAll);
    running.add(this);
    this.#cancel[0] = 0;
    const { address } = this.#memory;
    return [this.#pool, address + BigInt(headerBytes), this.entries, this.#timesAddress, address];
  }

  #finish(status: number | bigint): RunResult {
    running.delete(this);
    if (running.size === 0) process.off("exit", stopAll);
    const completed = Number(status);
    const [error = 0n, place = 0n, position = 0n] = this.#failure;
    if (error !== 0n) throw must(this.places, "places of a program with transfers").error(error, place, position);
    if (completed < 0) {
      throw new ThimbleError("program-malformed", "The program has an entry of an unknown kind", {
        where: `entry ${-1 - completed} of ${this.entries}`,
      });
    }
    return { completed, cancelled: completed < this.entries };
  }

  /** Runs the program on the pool; JavaScript stays free meanwhile. */
  run(options: RunOptions = {}): Promise<RunResult> {
    const parameters = this.#begin();
    const { signal } = options;
    const stop = (): void => {
      this.cancel();
    };
    if (signal?.aborted === true) stop();
    signal?.addEventListener("abort", stop);
    return new Promise((resolve, reject) => {
      this.#run.async(...parameters, (error: unknown, status: number | bigint) => {
        signal?.removeEventListener("abort", stop);
        try {
          if (error instanceof Error) throw error;
          resolve(this.#finish(status));
        } catch (failure) {
          reject(failure instanceof Error ? failure : new Error(String(failure)));
        }
      });
    });
  }

  /** Runs the program and waits; for tests and short programs. */
  runSync(): RunResult {
    return this.#finish(this.#run(...this.#begin()));
  }

  /** Asks a running program to stop before its next entry. */
  cancel(): void {
    this.#cancel[0] = 1;
  }

  close(): void {
    if (running.has(this)) throw new ThimbleError("program-busy", "A running program cannot be closed");
    this.#memory.release();
  }
}

/** Native worker threads that run programs. They sleep while there is nothing to do. */
export class Pool {
  readonly threads: number;
  readonly #functions: NativeFunctions;
  #pool: bigint | undefined;

  constructor(functions: NativeFunctions, threads: number) {
    if (!Number.isInteger(threads) || threads < 1 || threads > maximumThreads) {
      throw new ThimbleError("pool-threads", "A pool cannot have that many threads", {
        given: String(threads),
        expected: `a whole number from 1 to ${maximumThreads}`,
      });
    }
    this.threads = threads;
    this.#functions = functions;
    const pool = BigInt(functions.createPool(threads, threads <= usableCores() ? spinNanoseconds : 0) ?? 0);
    if (pool === 0n) {
      throw new ThimbleError("pool-threads", "The system gave no threads", {
        given: `${threads} threads`,
        fix: "Ask for fewer threads, or raise the limit on processes (`ulimit -u`).",
      });
    }
    this.#pool = pool;
  }

  #handle(): bigint {
    if (this.#pool === undefined) throw new ThimbleError("pool-closed", "The pool was closed");
    return this.#pool;
  }

  /**
   * Puts a program's table into native memory. With `timed`, each run records nanoseconds per entry. `places` are those
   * that its reads and writes name; they must outlive it.
   */
  program(program: readonly Entry[] | Table, timed = false, places?: FilePlaces): Program {
    const table = "words" in program ? program : encodeTable(program);
    return new Program(this.#functions, this.#handle(), table, timed, places);
  }

  /** Places for the reads and writes of programs; see {@link FilePlaces}. */
  places(names: readonly string[]): FilePlaces {
    return new FilePlaces(this.#functions, names);
  }

  /** Native memory whose pages the pool's threads have made resident. */
  memory(bytes: number): NativeMemory {
    const pool = this.#handle();
    const memory = new NativeMemory(this.#functions, bytes);
    const touch: Entry = { kind: "kernel", address: this.#functions.touch, arguments: [memory.address, memory.bytes] };
    const program = new Program(this.#functions, pool, encodeTable([touch]), false);
    program.runSync();
    program.close();
    return memory;
  }

  /** Ends the threads, after the program that is running. */
  close(): void {
    const pool = this.#handle();
    this.#pool = undefined;
    this.#functions.destroyPool(pool);
  }
}

/** A pool of worker threads: as many as there are usable cores, if not said otherwise. */
export async function createPool(threads: number = usableCores(), options: CompileOptions = {}): Promise<Pool> {
  return new Pool(await loadNative(options), threads);
}
