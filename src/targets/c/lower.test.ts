import { describe, expect, test } from "vitest";
import { makeOptimizer } from "../../optim/registry.js";
import { planOnly } from "../../session/open.js";
import type { SessionOptions } from "../../session/types.js";
import { trainingOptions } from "../../testing/method-training.js";
import { tinyLlama } from "../../testing/tiny.js";
import { lowerProgram } from "./lower.js";

const definition = tinyLlama({ num_hidden_layers: 4 });

type Overrides = Partial<SessionOptions> & { method?: string; settings?: Record<string, unknown> };

/** Name and source of every kernel of a step. */
function kernelsOf({ method = "lora", settings = {}, ...overrides }: Overrides): Map<string, string> {
  const session = { batch: 2, length: 64, segments: false, evaluate: false, ...overrides };
  const { plans } = planOnly(trainingOptions({ selection: [{ id: method, settings }], model: definition, session }));
  return new Map(plans.flatMap((plan) => lowerProgram(plan, 2).kernels.map(({ name, source }) => [name, source])));
}

/** Kernels of the second that the first does not have: those that would need the compiler. */
function fresh(before: Overrides, after: Overrides): string[] {
  const known = kernelsOf(before);
  return [...kernelsOf(after).keys()].filter((name) => !known.has(name));
}

const beside: readonly (readonly [string, Overrides, Overrides])[] = [
  ["length", {}, { length: 128 }],
  ["length that fills no vector", {}, { length: 101 }],
  ["batch", {}, { batch: 5 }],
  ["rank, and with it the scale", {}, { settings: { r: 8 } }],
  ["rank that fills no vector", {}, { settings: { r: 11 } }],
  ["learning-rate ratio of B", { settings: { loraplus_ratio: 4 } }, { settings: { loraplus_ratio: 16 } }],
  ["choice of layers", { settings: { layers_to_transform: [1] } }, { settings: { layers_to_transform: [2] } }],
  ["decay of the moments", {}, { optimizer: makeOptimizer({ beta1: 0.8, beta2: 0.95 }) }],
];

describe.each(["f32", "bf16"] as const)("in %s no kernel is compiled for another", (dtype) => {
  test.each(beside)("%s", (_what, before, after) => {
    expect(fresh({ ...before, dtype }, { ...after, dtype })).toEqual([]);
  });

  test("choice of what backward recomputes", () => {
    expect(fresh({ dtype, saved: "cheap" }, { dtype, saved: "block" })).toEqual([]);
    expect(fresh({ dtype, saved: "cheap" }, { dtype, saved: "all" })).toEqual([]);
  });

  test("length, with every weight trained", () => {
    expect(fresh({ dtype, method: "full" }, { dtype, method: "full", length: 48 })).toEqual([]);
  });
});

test("another type or method does need other kernels", () => {
  expect(fresh({}, { dtype: "bf16" }).length).toBeGreaterThan(10);
  expect(fresh({}, { method: "full" }).length).toBeGreaterThan(5);
});
