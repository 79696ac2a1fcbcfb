import { describe, expect, it } from "vitest";
import type { Precision } from "../targets/interpret/evaluate.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { excess, trainGolden } from "../testing/golden-training.js";
import {
  goldenFamilies,
  goldenGraph,
  gradientError,
  loadGolden,
  relativeError,
  trainedError,
} from "../testing/goldens.js";

/** f32 to 1e-5; in f64 only the fixtures' own rounding to f32 remains. */
const tolerances: readonly (readonly [Precision, number])[] = [
  ["exact", 1e-5],
  ["f64", 1e-6],
];

describe.each(goldenFamilies)("%s agrees with transformers", (family) => {
  it.each(tolerances)("in logits, loss and every gradient (%s)", async (precision, tolerance) => {
    const golden = await loadGolden(family);
    const step = goldenGraph(golden);
    const names = [...step.gradients.keys()];
    const outputs = [step.logits, step.loss, ...step.gradients.values()];
    const [logits, loss, ...made] = evaluate(outputs, step.bindings, precision);
    expect(relativeError(logits!.data, golden.logits.data)).toBeLessThan(tolerance);
    expect(relativeError(loss!.data, golden.losses.slice(0, 1))).toBeLessThan(tolerance);
    const values = new Map(names.map((name, index) => [name, made[index]!.data]));
    expect(excess(golden, tolerance, (name) => gradientError(golden, name, values.get(name)!))).toEqual({});
  });

  it.each(tolerances)("over five AdamW steps (%s)", async (precision, tolerance) => {
    const golden = await loadGolden(family);
    const { losses, values } = trainGolden(goldenGraph(golden), precision);
    expect(relativeError(losses, golden.losses)).toBeLessThan(tolerance);
    const error = (name: string): number => {
      const actual = values.get(name)!.data;
      return precision === "f64"
        ? relativeError(actual, golden.trained.get(name)!.data)
        : trainedError(golden, name, actual);
    };
    expect(excess(golden, tolerance, error)).toEqual({});
  });
});

describe("bf16 activations", () => {
  it.each(goldenFamilies)("keep %s near its f32 loss", async (family) => {
    const golden = await loadGolden(family);
    const step = goldenGraph(golden, "bf16");
    const [loss, ...made] = evaluate([step.loss, ...step.gradients.values()], step.bindings);
    expect(Math.abs(loss!.data[0]! / golden.losses[0]! - 1)).toBeLessThan(0.02);
    const names = [...step.gradients.keys()];
    const values = new Map(names.map((name, index) => [name, made[index]!.data]));
    expect(excess(golden, 0.15, (name) => gradientError(golden, name, values.get(name)!))).toEqual({});
  });
});
