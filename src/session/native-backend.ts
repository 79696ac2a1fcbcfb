import { must } from "../errors.js";
import type { Buffer, ProgramPlan } from "../plan/plan.js";
import { compileLibrary } from "../runtime/compiler.js";
import type { Arena } from "../runtime/memory.js";
import { allocateArena, checkFits } from "../runtime/memory.js";
import type { Pool, Program } from "../runtime/pool.js";
import { createPool } from "../runtime/pool.js";
import type { Entry, Word } from "../runtime/table.js";
import type { PlannedWord } from "../targets/c/entries.js";
import { lowerProgram } from "../targets/c/lower.js";
import { prelude } from "../targets/c/prelude.js";
import { poisonPattern } from "../targets/interpret/execute.js";
import type { Backend, BackendOptions } from "./backend.js";

/** What the process takes beside the arena: code, tables, the JavaScript heap. Compared with the memory that is free. */
export const overheadBytes = 120 * 2 ** 20;

/** Programs as tables of compiled kernels, run by native threads in one block of native memory. */
export class NativeBackend implements Backend {
  #arena: Arena | undefined;
  #programs: Program[] = [];

  constructor(
    private readonly pool: Pool,
    private readonly options: BackendOptions,
  ) {}

  allocate(bytes: number): void {
    checkFits(bytes, overheadBytes);
    this.#arena = allocateArena(this.pool, bytes);
  }

  get allocatedBytes(): number {
    return this.#arena?.bytes ?? 0;
  }

  bytes(offset: number, length: number): Uint8Array {
    return must(this.#arena, "arena").view(offset, length);
  }

  async prepare(plans: readonly ProgramPlan[]): Promise<void> {
    const lowered = plans.map((plan) => lowerProgram(plan, this.options.threads));
    const sources = new Map(lowered.flatMap(({ kernels }) => kernels.map((kernel) => [kernel.name, kernel.source])));
    const library = await compileLibrary([...sources].map(([name, source]) => ({ name, source, includes: [prelude] })));
    const base = must(this.#arena, "arena").address;
    const word = (value: PlannedWord): Word => (typeof value === "number" ? value : base + BigInt(value.buffer.offset));
    this.#programs = lowered.map(({ steps }, index) => {
      const plan = must(plans[index], "plan");
      const entries = steps.flatMap((step, place): Entry[] => [
        ...step.entries.map(({ kernel, words }): Entry => ({
          kind: "kernel",
          address: library.address(kernel),
          arguments: words.map(word),
        })),
        ...step.copies.map(([from, to]): Entry => ({
          kind: "copy",
          target: word({ buffer: to }),
          source: word({ buffer: from }),
          bytes: to.bytes,
        })),
        ...(this.options.poison ? fills(plan.buffers.filter((buffer) => buffer.end === place)) : []),
      ]);
      return this.pool.program(
        this.options.poison ? [...fills(plan.buffers), ...entries] : entries,
        this.options.timed,
      );
    });
    function fills(buffers: readonly Buffer[]): Entry[] {
      return buffers.map((buffer) => ({
        kind: "fill",
        target: word({ buffer }),
        bytes: buffer.bytes,
        pattern: poisonPattern,
      }));
    }
  }

  async run(index: number, signal?: AbortSignal): Promise<boolean> {
    const result = await must(this.#programs[index], "program").run(signal === undefined ? {} : { signal });
    return !result.cancelled;
  }

  /** Seconds of each entry of a program in its last run; only with `timed`. */
  times(index: number): number[] {
    const nanoseconds = must(this.#programs[index], "program").nanoseconds ?? new BigInt64Array(0);
    return Array.from(nanoseconds, (value) => Number(value) / 1e9);
  }

  close(): void {
    for (const program of this.#programs) program.close();
    this.#programs = [];
    this.#arena?.release();
    this.#arena = undefined;
    this.pool.close();
  }
}

export async function createNativeBackend(options: BackendOptions): Promise<NativeBackend> {
  return new NativeBackend(await createPool(options.threads), options);
}
