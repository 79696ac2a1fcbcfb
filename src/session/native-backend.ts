import { must } from "../errors.js";
import type { Buffer, PlannedTransfer, ProgramPlan } from "../plan/plan.js";
import { compileLibrary } from "../runtime/compiler.js";
import type { DiskWeights } from "../runtime/disk-weights.js";
import type { FilePlaces } from "../runtime/file-places.js";
import type { Arena } from "../runtime/memory.js";
import { allocateArena, checkFits } from "../runtime/memory.js";
import type { Pool, Program } from "../runtime/pool.js";
import { createPool } from "../runtime/pool.js";
import type { Entry, Word } from "../runtime/table.js";
import { machineTuning } from "../runtime/tune.js";
import { tuningSource } from "../targets/c/contraction-tune.js";
import type { PlannedWord } from "../targets/c/entries.js";
import { lowerProgram } from "../targets/c/lower.js";
import { prelude } from "../targets/c/prelude.js";
import { poisonPattern } from "../targets/interpret/execute.js";
import type { Backend, BackendOptions } from "./backend.js";
import { processBytes } from "./overhead.js";

/** Programs as tables of compiled kernels, run by native threads in one block of native memory. */
export class NativeBackend implements Backend {
  #arena: Arena | undefined;
  #programs: Program[] = [];
  /** The numbers of each program's kernels and copies among its entries, and of those that wait for transfers. */
  #entries: { readonly kernels: readonly number[]; readonly waits: readonly number[] }[] = [];
  /** Tensors on disk, in the order of `places`. */
  #stored: string[] = [];
  #places: FilePlaces | undefined;

  constructor(
    private readonly pool: Pool,
    private readonly options: BackendOptions,
  ) {}

  allocate(bytes: number): void {
    checkFits(bytes, processBytes);
    this.#arena = allocateArena(this.pool, bytes);
  }

  grow(bytes: number): void {
    const before = must(this.#arena, "arena");
    if (bytes <= before.bytes) return;
    checkFits(bytes, 0);
    const after = allocateArena(this.pool, bytes);
    after.view(0, before.bytes).set(before.view(0, before.bytes));
    before.release();
    this.#arena = after;
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
    const includes = [tuningSource(await machineTuning()), prelude].filter((text) => text !== "");
    const library = await compileLibrary([...sources].map(([name, source]) => ({ name, source, includes })));
    const base = must(this.#arena, "arena").address;
    this.#releasePrograms();
    this.#stored = [...new Set(plans.flatMap(({ transfers }) => transfers.map(({ stored }) => stored.name)))];
    if (this.#stored.length > 0) this.#places = this.pool.places(this.#stored);
    const word = (value: PlannedWord): Word => (typeof value === "number" ? value : base + BigInt(value.buffer.offset));
    this.#programs = lowered.map(({ steps }, index) => {
      const plan = must(plans[index], "plan");
      const transfers = transferEntries(plan, (transfer) => this.#transfer(transfer, word));
      const entries = steps.flatMap((step, place): Entry[] => [
        ...transfers(place),
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
      const all = [...(this.options.poison ? fills(plan.buffers) : []), ...entries, ...transfers(steps.length)];
      this.#entries.push({
        kernels: numbersOf(all, ({ kind }) => kind === "kernel" || kind === "copy" || kind === "fill"),
        waits: numbersOf(all, ({ kind }) => kind === "wait"),
      });
      return this.pool.program(all, this.options.timed, this.#places);
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

  attach(disk: DiskWeights): void {
    this.#stored.forEach((name, index) => {
      this.#places?.set(index, must(disk.places.get(name), `place of ${name}`));
    });
  }

  /** Seconds of each kernel, copy and fill of a program in its last run; only with `timed`. */
  times(index: number): number[] {
    return this.#seconds(index, must(this.#entries[index], "entries").kernels);
  }

  waited(index: number): number {
    return this.#seconds(index, must(this.#entries[index], "entries").waits).reduce((sum, value) => sum + value, 0);
  }

  #seconds(index: number, entries: readonly number[]): number[] {
    const { nanoseconds } = must(this.#programs[index], "program");
    return nanoseconds === undefined ? [] : entries.map((entry) => Number(nanoseconds[entry] ?? 0n) / 1e9);
  }

  #transfer({ direction, stored, memory }: PlannedTransfer, word: (value: PlannedWord) => Word): Entry {
    const place = must(this.#places, "places").address(this.#stored.indexOf(stored.name));
    return { kind: direction, memory: word({ buffer: memory }), place, bytes: stored.bytes };
  }

  #releasePrograms(): void {
    for (const program of this.#programs) program.close();
    this.#programs = [];
    this.#entries = [];
    this.#places?.close();
    this.#places = undefined;
  }

  close(): void {
    this.#releasePrograms();
    this.#arena?.release();
    this.#arena = undefined;
    this.pool.close();
  }
}

/** What asks for transfers, and waits for those that must be finished, before each step. */
function transferEntries(
  { transfers }: ProgramPlan,
  entryOf: (transfer: PlannedTransfer) => Entry,
): (step: number) => Entry[] {
  let waited = 0;
  return (step) => {
    const asked = transfers.filter(({ start }) => start === step).map(entryOf);
    // Transfers are finished in the order in which they are asked for.
    const needed = transfers.findLastIndex(({ done }) => done === step) + 1;
    if (needed <= waited) return asked;
    waited = needed;
    return [...asked, { kind: "wait", transfers: needed }];
  };
}

function numbersOf(entries: readonly Entry[], wanted: (entry: Entry) => boolean): number[] {
  return entries.flatMap((entry, number) => (wanted(entry) ? number : []));
}

export async function createNativeBackend(options: BackendOptions): Promise<NativeBackend> {
  return new NativeBackend(await createPool(options.threads), options);
}
