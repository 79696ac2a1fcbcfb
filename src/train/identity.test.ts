import { expect, test } from "vitest";
import { checkResume } from "./identity.js";
import type { Manifest } from "./manifest.js";

const manifest: Manifest = {
  format: "thimble-checkpoint",
  version: 1,
  step: 0,
  metricsBytes: 0,
  run: { batch: 4, recompute: "cheap" },
  rates: [],
  machine: { version: "1" },
  tensors: [],
};

const resume = (run: Record<string, unknown>, machine: Record<string, string>): string | undefined =>
  checkResume({ folder: "run", manifest }, { run, machine, factor: () => 1, steps: 10 });

test("a run goes on under another budget: to the bit where only recomputing differs, else with a notice", () => {
  expect(resume({ batch: 4 }, { version: "1" })).toBeUndefined();
  expect(resume({ batch: 4 }, { version: "1", "number of rows at a time": "2" })).toMatch(/rows at a time.*rounding/);
  expect(() => resume({ batch: 8 }, { version: "1" })).toThrow("another batch");
});
