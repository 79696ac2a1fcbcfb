import { writeFileSync } from "node:fs";
import { ThimbleError } from "../errors.js";
import type { NativeMemory } from "./native.js";
import { availableMemory, readText } from "./platform.js";
import type { Pool } from "./pool.js";

let liveBytes = 0;
let liveRounding = 0;

/** Bytes of all live arenas, as they were asked for: what tests hold equal to the plan. */
export function allocatedBytes(): number {
  return liveBytes;
}

/** Bytes by which the live arenas exceed {@link allocatedBytes}, because memory comes in whole pages. */
export function roundingBytes(): number {
  return liveRounding;
}

/** One block of native memory, resident from the start, 2 MiB aligned, zeroed. Offsets and lengths are in bytes. */
export class Arena {
  readonly #memory: NativeMemory;
  #live = true;

  constructor(memory: NativeMemory) {
    this.#memory = memory;
    liveBytes += memory.bytes;
    liveRounding += memory.mapped - memory.bytes;
  }

  get address(): bigint {
    return this.#memory.address;
  }

  get bytes(): number {
    return this.#memory.bytes;
  }

  /** A range as bytes, without copying: at most 4 GiB at once, since an ArrayBuffer of Node 20 holds no more. */
  view(offset: number, length: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#memory.buffer(offset, length));
  }

  f32(offset: number, count: number): Float32Array<ArrayBuffer> {
    return new Float32Array(this.#memory.buffer(offset, count * 4));
  }

  i32(offset: number, count: number): Int32Array<ArrayBuffer> {
    return new Int32Array(this.#memory.buffer(offset, count * 4));
  }

  u16(offset: number, count: number): Uint16Array<ArrayBuffer> {
    return new Uint16Array(this.#memory.buffer(offset, count * 2));
  }

  /** Gives the memory back to the system. Views of it hold nothing of use any more; further calls do nothing. */
  release(): void {
    if (!this.#live) return;
    this.#live = false;
    liveBytes -= this.#memory.bytes;
    liveRounding -= this.#memory.mapped - this.#memory.bytes;
    this.#memory.release();
  }
}

/** Allocates exactly `bytes` (rounded only to the system's page) and makes them resident, using the pool's threads. */
export function allocateArena(pool: Pool, bytes: number): Arena {
  if (!Number.isSafeInteger(bytes) || bytes <= 0) {
    throw new ThimbleError("arena-size", "An arena cannot have that size", {
      given: String(bytes),
      expected: "a positive whole number of bytes",
    });
  }
  return new Arena(pool.memory(bytes));
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

/** Fails unless the plan and what the process needs beside it fit into the memory that is free now. All in bytes. */
export function checkFits(planBytes: number, overheadBytes: number, available: number = availableMemory()): void {
  if (planBytes + overheadBytes <= available) return;
  throw new ThimbleError("memory-insufficient", "The program does not fit into the memory that is free", {
    given: `${mebibytes(planBytes)} planned and ${mebibytes(overheadBytes)} beside it`,
    expected: `at most ${mebibytes(available)} together`,
    fix: "Set a memory budget, shorten sequences, use a smaller batch or a method that needs less, or close other programs.",
  });
}

/** Bytes of this process that are in physical memory now. */
export function residentBytes(): number {
  return process.memoryUsage.rss();
}

/** Starts a new measurement of {@link peakResidentBytes}; false where the system cannot, so that peaks are since start. */
export function resetPeakResident(): boolean {
  try {
    writeFileSync("/proc/self/clear_refs", "5");
    return true;
  } catch {
    return false;
  }
}

/** The most bytes of this process that were in physical memory at once since the last reset, or since its start. */
export function peakResidentBytes(): number {
  const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(readText("/proc/self/status") ?? "")?.[1];
  return (kibibytes === undefined ? process.resourceUsage().maxRSS : Number(kibibytes)) * 1024;
}
