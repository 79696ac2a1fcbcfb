/**
 * Compiles generated C with the system compiler and calls its kernels from tests and benchmarks: every kernel on a
 * given number of threads, on memory that is filled with NaN and fenced with guard words.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import koffi from "koffi";
import { prelude } from "../../targets/c/prelude.js";

export const nativeFlags: readonly string[] = ["-march=native"];

const runner = String.raw`
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
typedef struct { int32_t thread, threads; void* pool; } Context;
typedef void (*Kernel)(const int64_t*, Context*);
typedef struct { void (*wait)(Context*); int threads, repeats; volatile int arrived, phase; Kernel kernel; const int64_t* arguments; double best; } Pool;
typedef struct { Context context; pthread_t id; } Worker;

static void wait_for_all(Context* context) {
  Pool* pool = context->pool;
  int phase = __atomic_load_n(&pool->phase, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&pool->arrived, 1, __ATOMIC_ACQ_REL) == pool->threads) {
    __atomic_store_n(&pool->arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->phase, phase + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int spins = 0; __atomic_load_n(&pool->phase, __ATOMIC_ACQUIRE) == phase; spins++) if (spins > 2000) sched_yield();
}
static double now(int threads) { struct timespec t; clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
static void* work(void* data) {
  Worker* worker = data;
  Pool* pool = worker->context.pool;
  for (int repeat = 0; repeat < pool->repeats; repeat++) {
    wait_for_all(&worker->context);
    double start = now(pool->threads);
    pool->kernel(pool->arguments, &worker->context);
    wait_for_all(&worker->context);
    double seconds = now(pool->threads) - start;
    if (worker->context.thread == 0 && seconds < pool->best) pool->best = seconds;
  }
  return 0;
}
double test_run(uint64_t kernel, uint64_t arguments, int threads, int repeats) {
  Pool pool = {wait_for_all, threads, repeats, 0, 0, (Kernel)kernel, (const int64_t*)arguments, 1e30};
  Worker workers[64];
  for (int i = 0; i < threads; i++) workers[i].context = (Context){i, threads, &pool};
  for (int i = 1; i < threads; i++) pthread_create(&workers[i].id, 0, work, &workers[i]);
  work(&workers[0]);
  for (int i = 1; i < threads; i++) pthread_join(workers[i].id, 0);
  return pool.best;
}
void* test_allocate(uint64_t bytes) { void* p = 0; return posix_memalign(&p, 64, bytes) ? 0 : p; }
void test_free(uint64_t p) { free((void*)p); }
`;

interface Native {
  run(kernel: bigint, words: bigint, threads: number, repeats: number): number;
  allocate(bytes: number): unknown;
  free(address: bigint): void;
}

function compile(source: string, flags: readonly string[]): ReturnType<typeof koffi.load> {
  const folder = mkdtempSync(join(tmpdir(), "thimble-test-"));
  try {
    const file = join(folder, "kernels.c");
    const library = join(folder, "kernels.so");
    writeFileSync(file, source);
    const fixed = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-std=gnu11", "-Wno-psabi", "-Wall", "-Wextra"];
    execFileSync("cc", [...fixed, "-Werror", ...flags, "-shared", "-fPIC", "-pthread", "-o", library, file]);
    return koffi.load(library);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

let loaded: Native | undefined;

function native(): Native {
  if (loaded === undefined) {
    const library = compile(runner, []);
    loaded = {
      run: library.func("double test_run(uint64_t kernel, uint64_t words, int threads, int repeats)") as Native["run"],
      allocate: library.func("void* test_allocate(uint64_t bytes)") as Native["allocate"],
      free: library.func("void test_free(uint64_t address)") as Native["free"],
    };
  }
  return loaded;
}

const guardBytes = 256;
const guardByte = 0xa5;

/** Native memory for one operand, 64-byte aligned unless `misalign` bytes are asked for, between two guards. */
export class Memory {
  readonly address: bigint;
  readonly bytes: number;
  readonly #base: bigint;
  readonly #all: Uint8Array;
  readonly #start: number;

  constructor(bytes: number, misalign = 0) {
    const total = guardBytes * 2 + Math.ceil(bytes / 64) * 64 + 64;
    const pointer = native().allocate(total);
    this.#base = koffi.address(pointer);
    this.#all = new Uint8Array(koffi.view(pointer, total));
    this.#start = guardBytes + misalign;
    this.bytes = bytes;
    this.address = this.#base + BigInt(this.#start);
    this.#all.fill(guardByte);
    this.#all.fill(0xff, this.#start, this.#start + bytes);
  }

  /** The operand's bytes. They start as 0xff, which is NaN in every float type. */
  get data(): Uint8Array {
    return this.#all.subarray(this.#start, this.#start + this.bytes);
  }

  read(): Uint8Array {
    return this.data.slice();
  }

  /** True when nothing outside the operand was written. */
  intact(): boolean {
    const fences = [this.#all.subarray(0, this.#start), this.#all.subarray(this.#start + this.bytes)];
    return fences.every((fence) => fence.every((byte) => byte === guardByte));
  }

  free(): void {
    native().free(this.#base);
  }
}

/** Generated kernels, compiled and callable. */
export class Kernels {
  readonly #library: ReturnType<typeof koffi.load>;

  /** `sources` are put behind the prelude in one translation unit. */
  constructor(sources: readonly string[], flags: readonly string[] = nativeFlags) {
    this.#library = compile([prelude, ...new Set(sources)].join("\n"), flags);
  }

  /** Runs a kernel on `threads` threads and returns the seconds (CPU seconds on one) of the fastest of `repeats` calls. */
  run(name: string, words: readonly (bigint | number)[], threads = 1, repeats = 1): number {
    const memory = new Memory(words.length * 8);
    const view = new DataView(memory.data.buffer, memory.data.byteOffset, memory.bytes);
    words.forEach((word, index) => {
      view.setBigInt64(index * 8, BigInt(word), true);
    });
    const kernel = koffi.address(this.#library.symbol(name));
    const seconds = native().run(kernel, memory.address, threads, repeats);
    const intact = memory.intact();
    memory.free();
    if (!intact) throw new Error(`${name} wrote into its arguments`);
    return seconds;
  }
}
