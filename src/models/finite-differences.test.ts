import { describe, expect, it } from "vitest";
import { evaluate } from "../targets/interpret/evaluate.js";
import { goldenGraph, loadGolden } from "../testing/goldens.js";

const step = 1e-4;

describe("gradients of whole models agree with finite differences in f64", () => {
  it.each(["gemma3", "gpt2"] as const)("%s", async (family) => {
    const { loss, parameters, gradients, bindings } = goldenGraph(await loadGolden(family));
    const names = [...parameters.keys()];
    const made = evaluate([...gradients.values()], bindings, "f64");
    const lossWith = (name: string, index: number, change: number): number => {
      const leaf = parameters.get(name)!;
      const value = bindings.get(leaf)!;
      const data = Float64Array.from(value.data);
      data[index] = data[index]! + change;
      return evaluate([loss], new Map([...bindings, [leaf, { ...value, data }]]), "f64")[0]!.data[0]!;
    };
    names.forEach((name, position) => {
      const gradient = made[position]!.data;
      // The largest element, and one elsewhere.
      let largest = 0;
      gradient.forEach((value, index) => {
        if (Math.abs(value) > Math.abs(gradient[largest]!)) largest = index;
      });
      for (const index of [largest, (largest + 17 * (position + 1)) % gradient.length]) {
        const difference = (lossWith(name, index, step) - lossWith(name, index, -step)) / (2 * step);
        const error = Math.abs(gradient[index]! - difference) / Math.abs(gradient[largest]!);
        expect(error, `${name}[${index}]: ${gradient[index]!} and ${difference}`).toBeLessThan(1e-5);
      }
    });
  });
});
