import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileLibrary, type Library } from "./compiler.js";
import type { NativeMemory } from "./native.js";
import { createPool, type Pool } from "./pool.js";
import { encodeTable, floatBits, type Entry } from "./table.js";

const header = `
#include <stdint.h>
typedef struct { int32_t thread, threads; void* pool; } Context;
static void meet(Context* context) { (*(void (**)(Context*))context->pool)(context); }
`;

/** Each thread appends to its own row of a log; `order` checks that the entry before was complete in all rows. */
const orderSource = `
void order(const int64_t* arguments, Context* context) {
  int32_t* counts = (int32_t*)arguments[0];
  int32_t* wrong = (int32_t*)arguments[1];
  const int32_t expected = (int32_t)arguments[2];
  for (int32_t i = 0; i < context->threads; i++) {
    int32_t seen = __atomic_load_n(&counts[16 * i], __ATOMIC_ACQUIRE);
    if (seen != expected && !(seen == expected + 1 && i != context->thread)) __atomic_fetch_add(wrong, 1, __ATOMIC_RELAXED);
  }
  __atomic_fetch_add(&counts[16 * context->thread], 1, __ATOMIC_RELEASE);
}
`;

/** Sums over threads with a barrier inside: each thread writes its own cell, then all read all cells. */
const innerSource = `
void inner(const int64_t* arguments, Context* context) {
  volatile int32_t* cells = (int32_t*)arguments[0];
  int32_t* sums = (int32_t*)arguments[1];
  const int32_t rounds = (int32_t)arguments[2];
  int32_t total = 0;
  for (int32_t round = 0; round < rounds; round++) {
    cells[16 * context->thread] = round * (context->thread + 1);
    meet(context);
    for (int32_t i = 0; i < context->threads; i++) total += cells[16 * i];
    meet(context);
  }
  sums[16 * context->thread] = total;
}
`;

const spinSource = `
void spin(const int64_t* arguments, Context* context) {
  for (volatile int64_t i = 0; i < arguments[0]; i++) {}
}
`;

let library: Library;
beforeAll(async () => {
  const include = { includes: [header] };
  library = await compileLibrary([
    { name: "order", source: orderSource, ...include },
    { name: "inner", source: innerSource, ...include },
    { name: "spin", source: spinSource, ...include },
  ]);
});

describe.each([1, 2, 3, 4])("a pool of %i threads", (threads) => {
  let pool: Pool;
  let memory: NativeMemory;
  beforeAll(async () => {
    pool = await createPool(threads);
    memory = pool.memory(1 << 16);
  });
  afterAll(() => {
    memory.release();
    pool.close();
  });

  it("completes an entry on all threads before the next begins", () => {
    const words = new Int32Array(memory.buffer(0, 1 << 12)).fill(0);
    const entries = Array.from({ length: 500 }, (_, index): Entry => ({
      kind: "kernel",
      address: library.address("order"),
      arguments: [memory.address, memory.address + 2048n, index],
    }));
    const program = pool.program(entries, true);
    expect(program.runSync()).toEqual({ completed: 500, cancelled: false });
    expect(Array.from({ length: threads }, (_, thread) => words[16 * thread])).toEqual(Array(threads).fill(500));
    expect(words[512]).toBe(0);
    expect(program.nanoseconds?.every((time) => time > 0n)).toBe(true);
    program.close();
  });

  it("offers kernels a barrier", () => {
    const rounds = 300;
    const words = new Int32Array(memory.buffer(0, 1 << 13)).fill(-1);
    const kernel = library.address("inner");
    const program = pool.program([
      { kind: "kernel", address: kernel, arguments: [memory.address, memory.address + 4096n, rounds] },
    ]);
    program.runSync();
    const sum = ((rounds * (rounds - 1)) / 2) * ((threads * (threads + 1)) / 2);
    for (let thread = 0; thread < threads; thread++) expect(words[1024 + 16 * thread]).toBe(sum);
    program.close();
  });

  it.each([0, 4, 60, 64, 1000, 4099])("copies and fills %i bytes and none beside them", (bytes) => {
    const all = new Uint8Array(memory.buffer(0, 16384));
    for (let i = 0; i < all.length; i++) all[i] = (i * 7) & 255;
    const expected = all.slice();
    expected.copyWithin(8193, 5, 5 + bytes);
    for (let i = 0; i < bytes; i++) expected[4100 - 64 + i - 4000] = [0x44, 0x33, 0x22, 0x11][i % 4] ?? 0;
    const program = pool.program([
      { kind: "copy", target: memory.address + 8193n, source: memory.address + 5n, bytes },
      { kind: "fill", target: memory.address + 36n, bytes, pattern: 0x11223344 },
    ]);
    program.runSync();
    expect(Buffer.compare(all, expected)).toBe(0);
    program.close();
  });

  it("fills with zero and with float patterns", () => {
    const floats = new Float32Array(memory.buffer(0, 4096)).fill(NaN);
    const program = pool.program([
      { kind: "fill", target: memory.address, bytes: 4096, pattern: floatBits(-1.5) },
      { kind: "fill", target: memory.address, bytes: 2048, pattern: 0 },
    ]);
    program.runSync();
    expect(floats.subarray(0, 512).every((value) => value === 0)).toBe(true);
    expect(floats.subarray(512).every((value) => value === -1.5)).toBe(true);
    program.close();
  });

  it("stops between entries when cancelled, and runs again", async () => {
    const entries = Array.from({ length: 4000 }, (): Entry => ({
      kind: "kernel",
      address: library.address("spin"),
      arguments: [200_000],
    }));
    const program = pool.program(entries, true);
    const controller = new AbortController();
    const watch = setInterval(() => {
      if ((program.nanoseconds?.[0] ?? 0n) > 0n) controller.abort();
    }, 1);
    const result = await program.run({ signal: controller.signal });
    clearInterval(watch);
    expect(result.cancelled).toBe(true);
    expect(result.completed).toBeGreaterThan(0);
    expect(result.completed).toBeLessThan(4000);
    expect(await program.run({ signal: controller.signal })).toEqual({ completed: 0, cancelled: true });
    program.close();
  });

  it("leaves JavaScript free, and refuses a second run of a running program", async () => {
    const program = pool.program([{ kind: "kernel", address: library.address("spin"), arguments: [20_000_000] }]);
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const running = program.run();
    expect(() => program.runSync()).toThrow(expect.objectContaining({ code: "program-busy" }) as Error);
    await running;
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(1);
    program.close();
  });

  it("walks 10,000 empty entries", () => {
    const program = pool.program(
      Array.from({ length: 10_000 }, (): Entry => ({ kind: "fill", target: 0n, bytes: 0, pattern: 0 })),
    );
    program.runSync();
    const start = performance.now();
    expect(program.runSync().completed).toBe(10_000);
    console.log(`${threads} threads: ${((performance.now() - start) / 10).toFixed(2)} us an empty entry`);
    program.close();
  });
});

describe("wrong programs", () => {
  it("stop at an entry of an unknown kind, on all threads", async () => {
    const pool = await createPool(2);
    const { words } = encodeTable([{ kind: "fill", target: 0n, bytes: 0, pattern: 0 }]);
    const program = pool.program({ words: new BigInt64Array([...words, 99n, ...words]), entries: 3 });
    await expect(program.run()).rejects.toMatchObject({ code: "program-malformed", where: "entry 1 of 3" });
    expect(() => program.runSync()).toThrow(expect.objectContaining({ code: "program-malformed" }) as Error);
    program.close();
    pool.close();
  });

  it("are refused on a closed pool, and pools of no threads", async () => {
    const pool = await createPool(2);
    pool.close();
    expect(() => pool.program([])).toThrow(expect.objectContaining({ code: "pool-closed" }) as Error);
    await expect(createPool(0)).rejects.toMatchObject({ code: "pool-threads" });
  });

  it("are refused when a word is no whole number", () => {
    expect(() => encodeTable([{ kind: "kernel", address: 1n, arguments: [0.5] }])).toThrow(
      expect.objectContaining({ code: "table-word" }) as Error,
    );
  });
});

it("lets the process end while a program runs", async () => {
  const url = (name: string): string => JSON.stringify(new URL(name, import.meta.url).href);
  const script = `import { createPool } from ${url("./pool.ts")};
    import { compileLibrary } from ${url("./compiler.ts")};
    const library = await compileLibrary([{ name: "spin", source: ${JSON.stringify(header + spinSource)} }]);
    const pool = await createPool(2);
    const spin = { kind: "kernel", address: library.address("spin"), arguments: [1e6] };
    void pool.program(Array.from({ length: 100_000 }, () => spin)).run();
    setTimeout(() => process.exit(7), 30);`;
  const parameters = ["--import", "tsx", "--input-type=module", "-e", script];
  await expect(promisify(execFile)(process.execPath, parameters, { timeout: 20_000 })).rejects.toMatchObject({
    code: 7,
    signal: null,
  });
});
