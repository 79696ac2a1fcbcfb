import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import { methods } from "../methods/registry.js";
import { planOnly } from "../session/open.js";
import type { PlanCase } from "../testing/plan-cases.js";
import { describeCase, optionsOf, planCases, takes, tinyModels } from "../testing/plan-cases.js";

/** Cases whose plan takes more than 2 % more than what is alive at its peak. */
function tooLarge(entries: readonly PlanCase[]): string[] {
  return entries.flatMap((entry) => {
    const { planBytes, boundBytes } = planOnly(optionsOf(entry)).report;
    const ratio = planBytes / boundBytes;
    return ratio <= 1.02 ? [] : [`${describeCase(entry)}: ${ratio.toFixed(4)}`];
  });
}

/** Every n-th of a list, so that all settings are met with one another without planning every combination. */
function some<T>(items: readonly T[], every: number): T[] {
  return items.filter((_, index) => index % every === 0);
}

test("every method takes every family, but for PEQA, which refuses the transposed layers of GPT-2", () => {
  const refused = tinyModels.flatMap((model) =>
    methods.flatMap(({ id }) => (takes(id, model) ? [] : [`${id} ${model}`])),
  );
  expect(refused).toEqual(["peqa gpt2"]);
});

describe("plans take at most 2 % more than their bound", () => {
  test.each(tinyModels)("%s, every method", (model) => {
    expect(tooLarge(some(planCases([model]), 11))).toEqual([]);
  });

  test("SmolLM2-135M, what it is measured with", () => {
    const measured = planCases(["SmolLM2-135M"]).filter(
      ({ method, length, accumulate, clip, saved }) =>
        ["full", "lora"].includes(method) &&
        length === 256 &&
        accumulate === 1 &&
        clip === undefined &&
        saved !== "all",
    );
    expect(measured.length).toBe(8);
    expect(tooLarge(measured)).toEqual([]);
  });

  test("published models of other families", () => {
    const entries = planCases(["Qwen3-0.6B", "GPT-2"]).filter(
      ({ method, dtype, accumulate }) => ["full", "lora"].includes(method) && dtype === "bf16" && accumulate === 1,
    );
    expect(tooLarge(some(entries, 7))).toEqual([]);
  });
});

test.each(["f32", "bf16"])("the output layer's gradient in %s is made last, not kept through backward", (dtype) => {
  const entry = planCases(["SmolLM2-135M"]).find(
    (one) => one.method === "full" && one.dtype === dtype && one.saved === "block" && one.length === 256,
  );
  const { plans, report } = planOnly(optionsOf(must(entry, "case")));
  const plan = must(plans[0], "plan");
  const table = 49152 * 576 * 4;
  const head = plan.buffers.filter(({ bytes }) => bytes >= table);
  expect(head.length).toBe(1);
  expect(head[0]?.start).toBeGreaterThan(plan.steps.length * 0.9);
  // Weights, moments, that gradient, and little else: backward's own values are gone when it is made.
  expect(report.boundBytes - plan.bound + table).toBeGreaterThan(report.planBytes * 0.97);
});
