import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { largestDifference } from "../testing/method-bench.js";
import { schedule, scheduleConfig } from "./schedules.js";

const { schedules } = JSON.parse(readFileSync(new URL("fixtures/optim.json", import.meta.url), "utf8")) as {
  schedules: Record<string, number[]>;
};

const factors = (settings: Record<string, unknown>, total: number, count = total + 1): number[] => {
  const at = schedule(scheduleConfig.parse(settings), total);
  return Array.from({ length: count }, (_, done) => at(done));
};

test.each([
  ["constant", { kind: "constant", warmup: 3 }],
  ["linear", { warmup: 3 }],
  ["linear", { warmup: 0.25 }],
  ["cosine", { kind: "cosine", warmup: 3 }],
  ["cosine-min", { kind: "cosine", warmup: 3, min_ratio: 0.1 }],
  ["wsd", { kind: "wsd", warmup: 3, decay: 4 }],
])("%s as transformers computes it, with %j", (name, settings) => {
  expect(largestDifference(factors(settings, 12), schedules[name]!.slice(0, 13))).toBeLessThan(1e-12);
});

test("after the last step the last value holds", () => {
  for (const kind of ["linear", "cosine", "wsd"]) {
    expect(factors({ kind, min_ratio: 0.2 }, 10, 15).slice(10)).toEqual(new Array(5).fill(0.2));
  }
});

test("wsd holds the highest rate, then falls over the last tenth", () => {
  const values = factors({ kind: "wsd" }, 20);
  expect(values.slice(0, 19)).toEqual(new Array(19).fill(1));
  expect(values[19]).toBeCloseTo(0.5, 12);
  expect(values[20]).toBe(0);
});

test("without warm-up the first step has the whole rate", () => {
  expect(factors({}, 4)).toEqual([1, 0.75, 0.5, 0.25, 0]);
});

test("impossible settings are refused", () => {
  expect(() => schedule(scheduleConfig.parse({ warmup: 20 }), 10)).toThrow(/longer than the run/);
  expect(scheduleConfig.safeParse({ warmup: 2.5 }).success).toBe(false);
  expect(scheduleConfig.safeParse({ min_ratio: 1.5 }).success).toBe(false);
  expect(scheduleConfig.safeParse({ kind: "step" }).success).toBe(false);
});
