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

/** A program that is ready to run. */
interface Prepared {
  readonly plan: ProgramPlan;
  /** Where the arena lay when it was made. */
  readonly base: bigint;
  readonly program: Program;
  /** The numbers of its kernels and copies among its entries, and of those that wait for transfers. */
  readonly kernels: readonly number[];
  readonly waits: readonly number[];
}

/** Programs as tables of compiled kernels, run by native threads in one block of native memory. */
export class NativeBackend implements Backend {
  #arena: Arena | undefined;
  #prepared: readonly Prepared[] = [];
  /** Kernels that are loaded, by name: programs that come in the place of others are mostly made of the same. */
  readonly #loaded = new Map<string, { readonly source: string; readonly address: bigint }>();
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
    const base = must(this.#arena, "arena").address;
    const stays = ({ plan, base: before }: Prepared): boolean =>
      plans.includes(plan) && before === base && plan.transfers.length === 0;
    const kept = this.#prepared.filter(stays);
    const lowered = plans
      .filter((plan) => kept.every((one) => one.plan !== plan))
      .map((plan) => ({ plan, ...lowerProgram(plan, this.options.threads) }));
    await this.#load(lowered.flatMap(({ kernels }) => kernels));
    this.#release(this.#prepared.filter((one) => !stays(one)));
    this.#stored = [...new Set(plans.flatMap(({ transfers }) => transfers.map(({ stored }) => stored.name)))];
    if (this.#stored.length > 0) this.#places = this.pool.places(this.#stored);
    const word = (value: PlannedWord): Word => (typeof value === "number" ? value : base + BigInt(value.buffer.offset));
    const made = lowered.map(({ plan, steps }): Prepared => {
      const transfers = transferEntries(plan, (transfer) => this.#transfer(transfer, word));
      const entries = steps.flatMap((step, place): Entry[] => [
        ...transfers(place),
        ...step.entries.map(({ kernel, words }): Entry => ({
          kind: "kernel",
          address: must(this.#loaded.get(kernel), kernel).address,
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
      return {
        plan,
        base,
        program: this.pool.program(all, this.options.timed, plan.transfers.length > 0 ? this.#places : undefined),
        kernels: numbersOf(all, ({ kind }) => kind === "kernel" || kind === "copy" || kind === "fill"),
        waits: numbersOf(all, ({ kind }) => kind === "wait"),
      };
    });
    const byPlan = new Map([...kept, ...made].map((one) => [one.plan, one]));
    this.#prepared = plans.map((plan) => must(byPlan.get(plan), plan.name));
    function fills(buffers: readonly Buffer[]): Entry[] {
      return buffers.map((buffer) => ({
        kind: "fill",
        target: word({ buffer }),
        bytes: buffer.bytes,
        pattern: poisonPattern,
      }));
    }
  }

  /** Compiles and loads those kernels that are not loaded. */
  async #load(kernels: readonly { readonly name: string; readonly source: string }[]): Promise<void> {
    const missing = kernels.filter(({ name, source }) => this.#loaded.get(name)?.source !== source);
    if (missing.length === 0) return;
    const sources = new Map(missing.map(({ name, source }) => [name, source]));
    const includes = [tuningSource(await machineTuning()), prelude].filter((text) => text !== "");
    const library = await compileLibrary([...sources].map(([name, source]) => ({ name, source, includes })));
    for (const [name, source] of sources) this.#loaded.set(name, { source, address: library.address(name) });
  }

  async run(index: number, signal?: AbortSignal): Promise<boolean> {
    const result = await must(this.#prepared[index], "program").program.run(signal === undefined ? {} : { signal });
    return !result.cancelled;
  }

  attach(disk: DiskWeights): void {
    this.#stored.forEach((name, index) => {
      this.#places?.set(index, must(disk.places.get(name), `place of ${name}`));
    });
  }

  /** Seconds of each kernel, copy and fill of a program in its last run; only with `timed`. */
  times(index: number): number[] {
    return this.#seconds(index, must(this.#prepared[index], "program").kernels);
  }

  waited(index: number): number {
    return this.#seconds(index, must(this.#prepared[index], "program").waits).reduce((sum, value) => sum + value, 0);
  }

  #seconds(index: number, entries: readonly number[]): number[] {
    const { nanoseconds } = must(this.#prepared[index], "program").program;
    return nanoseconds === undefined ? [] : entries.map((entry) => Number(nanoseconds[entry] ?? 0n) / 1e9);
  }

  #transfer({ direction, stored, memory }: PlannedTransfer, word: (value: PlannedWord) => Word): Entry {
    const place = must(this.#places, "places").address(this.#stored.indexOf(stored.name));
    return { kind: direction, memory: word({ buffer: memory }), place, bytes: stored.bytes };
  }

  #release(programs: readonly Prepared[]): void {
    for (const { program } of programs) program.close();
    this.#prepared = this.#prepared.filter((one) => !programs.includes(one));
    this.#places?.close();
    this.#places = undefined;
  }

  close(): void {
    this.#release(this.#prepared);
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
