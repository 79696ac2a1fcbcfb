import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as memory from "./memory.js";
import { createPool, type Pool } from "./pool.js";

const mebibyte = 2 ** 20;

let pool: Pool;
beforeAll(async () => {
  pool = await createPool(2);
});
afterAll(() => {
  pool.close();
});

describe("allocateArena", () => {
  it("gives zeroed, aligned, writable memory and counts it exactly", () => {
    const before = memory.allocatedBytes();
    const arena = memory.allocateArena(pool, 5 * mebibyte + 12);
    expect(arena.address % (2n * 1024n * 1024n)).toBe(0n);
    expect(memory.allocatedBytes() - before).toBe(5 * mebibyte + 12);
    expect(memory.roundingBytes()).toBeGreaterThan(0);
    expect(memory.roundingBytes()).toBeLessThan(65536);
    const floats = arena.f32(8, 3);
    expect([...floats]).toEqual([0, 0, 0]);
    floats[1] = 2.5;
    expect([...arena.view(12, 4)]).toEqual([0, 0, 32, 64]);
    expect(arena.i32(12, 1)[0]).toBe(0x40200000);
    expect(arena.u16(14, 1)[0]).toBe(0x4020);
    arena.release();
    arena.release();
    expect(memory.allocatedBytes()).toBe(before);
    expect(memory.roundingBytes()).toBe(0);
  });

  it("gives memory back under live views, which then do no harm", () => {
    const before = memory.residentBytes();
    const arena = memory.allocateArena(pool, 64 * mebibyte);
    const view = arena.view(0, 64 * mebibyte);
    view.fill(7);
    arena.release();
    expect(memory.residentBytes() - before).toBeLessThan(20 * mebibyte);
    view[5] = 1;
    expect(view[6]).not.toBe(7);
    expect(() => arena.view(0, 1)).toThrow(expect.objectContaining({ code: "memory-range" }) as Error);
  });

  it("refuses views that reach outside", () => {
    const arena = memory.allocateArena(pool, 4096);
    for (const [offset, length] of [
      [4090, 7],
      [-1, 2],
      [0.5, 1],
      [0, 2 ** 40],
    ] as const) {
      expect(() => arena.view(offset, length)).toThrow(expect.objectContaining({ code: "memory-range" }) as Error);
    }
    arena.release();
  });

  it("refuses senseless and impossible sizes", () => {
    expect(() => memory.allocateArena(pool, 0)).toThrow(expect.objectContaining({ code: "arena-size" }) as Error);
    expect(() => memory.allocateArena(pool, 2 ** 52)).toThrow(
      expect.objectContaining({ code: "memory-refused" }) as Error,
    );
  });

  it("makes memory resident at once, and gives it back", () => {
    const before = memory.residentBytes();
    const arena = memory.allocateArena(pool, 96 * mebibyte);
    const grown = memory.residentBytes() - before;
    expect(grown).toBeGreaterThan(90 * mebibyte);
    expect(grown).toBeLessThan(110 * mebibyte);
    arena.release();
    expect(memory.residentBytes() - before).toBeLessThan(20 * mebibyte);
  });
});

describe("peaks", () => {
  it.skipIf(!memory.resetPeakResident())("are measured since a reset", () => {
    memory.allocateArena(pool, 200 * mebibyte).release();
    expect(memory.resetPeakResident()).toBe(true);
    const low = memory.peakResidentBytes();
    expect(low - memory.residentBytes()).toBeLessThan(60 * mebibyte);
    memory.allocateArena(pool, 120 * mebibyte).release();
    expect(memory.peakResidentBytes() - low).toBeGreaterThan(60 * mebibyte);
  });
});

describe("checkFits", () => {
  it("gives both numbers when the plan is too large", () => {
    memory.checkFits(100, 50, 150);
    expect(() => {
      memory.checkFits(300 * mebibyte, 50 * mebibyte, 100 * mebibyte);
    }).toThrow(
      expect.objectContaining({
        code: "memory-insufficient",
        given: "300.0 MiB planned and 50.0 MiB beside it",
        expected: "at most 100.0 MiB together",
      }) as Error,
    );
  });
});
