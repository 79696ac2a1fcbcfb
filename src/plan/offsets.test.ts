import fc from "fast-check";
import { expect, test } from "vitest";
import { exactExtent } from "../testing/exact-offsets.js";
import { sequence } from "../testing/tiny.js";
import type { Interval } from "./offsets.js";
import { largestLive, placeIntervals } from "./offsets.js";

const interval = fc
  .record({
    bytes: fc.integer({ min: 0, max: 100 }),
    start: fc.integer({ min: 0, max: 30 }),
    length: fc.integer({ min: 0, max: 20 }),
  })
  .map(({ bytes, start, length }): Interval => ({ bytes: bytes * 64, start, end: start + length }));

test("buffers that are alive together never overlap, and the extent is their end", () => {
  fc.assert(
    fc.property(fc.array(interval, { maxLength: 40 }), (intervals) => {
      const { offsets, extent, bound } = placeIntervals(intervals);
      const placed = intervals.map((item, index) => ({ ...item, offset: offsets[index] ?? NaN }));
      for (const a of placed) {
        for (const b of placed) {
          if (a === b || a.bytes === 0 || b.bytes === 0 || a.end < b.start || b.end < a.start) continue;
          expect(a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset).toBe(true);
        }
      }
      expect(Math.max(0, ...placed.filter(({ bytes }) => bytes > 0).map(({ offset, bytes }) => offset + bytes))).toBe(
        extent,
      );
      expect(extent).toBeGreaterThanOrEqual(bound);
    }),
  );
});

test("shards are never overrun, keep what they held, and are opened only when the others are full", () => {
  const largest = 40 * 64;
  const used = fc.array(
    fc.integer({ min: 0, max: 40 }).map((units) => units * 64),
    { maxLength: 3 },
  );
  const small = interval.map((item) => ({ ...item, bytes: Math.min(item.bytes, largest) }));
  fc.assert(
    fc.property(fc.array(small, { maxLength: 40 }), used, (intervals, taken) => {
      const { shards, offsets, sizes, extent } = placeIntervals(intervals, { used: taken, largest });
      const placed = intervals
        .map((item, index) => ({ ...item, shard: shards[index] ?? NaN, offset: offsets[index] ?? NaN }))
        .filter(({ bytes }) => bytes > 0);
      for (const a of placed) {
        expect(a.offset).toBeGreaterThanOrEqual(taken[a.shard] ?? 0);
        expect(a.offset + a.bytes).toBeLessThanOrEqual(sizes[a.shard] ?? 0);
        for (const b of placed) {
          if (a === b || a.shard !== b.shard || a.end < b.start || b.end < a.start) continue;
          expect(a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset).toBe(true);
        }
      }
      for (const size of sizes) expect(size).toBeLessThanOrEqual(largest);
      const total = (list: readonly number[]): number => list.reduce((sum, bytes) => sum + bytes, 0);
      expect(extent).toBe(total(sizes) - total(taken));
      const opened = sizes.slice(taken.length);
      if (total(intervals.map(({ bytes }) => bytes)) <= largest) expect(opened.length).toBeLessThanOrEqual(1);
    }),
  );
});

test("few intervals are placed as tightly as can be, or nearly so", () => {
  const gaps: number[] = [];
  fc.assert(
    fc.property(fc.array(interval, { minLength: 4, maxLength: 11 }), (intervals) => {
      const { extent, bound } = placeIntervals(intervals);
      const least = exactExtent(intervals);
      expect(least).toBeGreaterThanOrEqual(bound);
      expect(extent).toBeGreaterThanOrEqual(least);
      gaps.push(least === 0 ? 0 : extent / least - 1);
    }),
    { seed: 4, numRuns: 300 },
  );
  const [mean, worst] = [gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length, Math.max(...gaps)];
  expect(mean).toBeLessThan(0.001);
  expect(worst).toBeLessThan(0.05);
});

test("the exact search stacks what is alive together", () => {
  const intervals: Interval[] = [
    { bytes: 3, start: 0, end: 2 },
    { bytes: 2, start: 1, end: 4 },
    { bytes: 1, start: 3, end: 6 },
    { bytes: 3, start: 5, end: 7 },
  ];
  expect(exactExtent(intervals)).toBe(largestLive(intervals));
  expect(exactExtent([{ bytes: 4, start: 0, end: 1 }, ...intervals])).toBe(9);
});

test("where the greedy orders are far from the bound, the search comes nearer", () => {
  const next = sequence(3);
  const hard = Array.from({ length: 120 }, (): Interval => {
    const start = Math.floor((next() + 0.5) * 60);
    return {
      bytes: 64 * (1 + Math.floor((next() + 0.5) ** 3 * 300)),
      start,
      end: start + Math.floor((next() + 0.5) ** 2 * 40),
    };
  });
  const { extent, bound } = placeIntervals(hard);
  expect(extent).toBeGreaterThanOrEqual(bound);
  expect(extent / bound).toBeLessThan(1.02);
  expect(placeIntervals(hard)).toEqual(placeIntervals(hard));
});

test("the bound is the most bytes alive at one step", () => {
  expect(
    largestLive([
      { bytes: 10, start: 0, end: 2 },
      { bytes: 20, start: 2, end: 3 },
      { bytes: 15, start: 3, end: 4 },
    ]),
  ).toBe(35);
});
