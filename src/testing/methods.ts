import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import { elements } from "../ir/shape.js";
import type { PeftAdapter } from "../io/peft.js";
import { readPeft, writePeft } from "../io/peft.js";
import type { MethodSelection } from "../methods/compose.js";
import { describeMethod } from "../methods/describe.js";
import { methods } from "../methods/registry.js";
import type { PeftForm } from "../methods/types.js";
import type { ModelDefinition } from "../models/types.js";
import { weightOf } from "../models/parameters.js";
import { largestDifference, MethodBench } from "./method-bench.js";
import type { ToyOptions } from "./toy-model.js";
import { toyModel } from "./toy-model.js";

export interface Battery {
  readonly title: string;
  readonly selection: MethodSelection;
  readonly model?: ToyOptions;
  /** Largest difference from the base before training: 0 (bit for bit) unless the method says otherwise. */
  readonly startTolerance?: number;
}

/** Writes an adapter and reads it again. */
async function throughFolder(form: PeftForm, model: ModelDefinition): Promise<PeftAdapter> {
  const folder = await mkdtemp(join(tmpdir(), "thimble-adapter-"));
  try {
    await writePeft(folder, form);
    return await readPeft(folder, model);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/**
 * The checks that every method must pass: before training the model computes what the base does; gradients are those
 * of finite differences; saving and loading an adapter, and merging it, give the same outputs.
 */
export function checkMethodBattery({ title, selection, model: options = {}, startTolerance = 0 }: Battery): void {
  const model = toyModel(options);
  const create = (training = false): Promise<MethodBench> => MethodBench.create(model, [selection], { training });

  describe(title, () => {
    test("is registered and described", () => {
      const method = must(
        methods.find(({ id }) => id === selection.id),
        "method",
      );
      const described = describeMethod(method);
      expect(described.summary.length).toBeGreaterThan(20);
      for (const setting of described.settings) expect(setting.description, setting.name).not.toBe("");
    });

    test("starts as the base", async () => {
      const bench = await create();
      const [adapted, plain] = bench.run([bench.hidden, bench.plain]);
      const before = await MethodBench.create(model, [{ id: "full", settings: {} }]);
      const [base] = before.run([before.plain]);
      expect(largestDifference(must(adapted, "y").data, must(base, "base").data)).toBeLessThanOrEqual(startTolerance);
      if (startTolerance === 0) expect(must(adapted, "y").data).toEqual(must(plain, "plain").data);
    });

    test("has the gradients of finite differences", async () => {
      const bench = await create(true);
      expect(bench.scramble().gradientError()).toBeLessThan(1e-5);
    });

    test("declares the tensors that it lists", async () => {
      const bench = await create();
      const declared = [...bench.adapters.values()].flatMap(({ tensor }) => tensor ?? []);
      expect(new Set(declared)).toEqual(new Set(bench.composed.adapters));
      for (const { name, shape } of declared) expect(bench.values.get(name)?.length).toBe(elements(shape));
    });

    test("saves and loads as a PEFT adapter of the original base", async () => {
      const bench = (await create()).scramble();
      const original = (await MethodBench.create(model, [{ id: "full", settings: {} }])).values;
      const { peft } = bench.composed;
      if (peft === undefined) return;
      const read = (name: string): Promise<Float32Array> => Promise.resolve(must(original.get(name), name));
      const form = await peft(bench.values, { seed: 1, read });
      const { selection: loaded, tensors } = await throughFolder(form, model);
      const again = await MethodBench.create(model, [loaded], { weights: original });
      for (const [name, values] of tensors) again.values.set(name, values);
      const [trained, reread] = [bench.run([bench.hidden])[0], again.run([again.hidden])[0]];
      expect(largestDifference(must(trained, "a").data, must(reread, "b").data)).toBeLessThan(1e-5);
      const [plain] = again.run([again.plain]);
      expect(largestDifference(must(plain, "plain").data, must(reread, "b").data)).toBeGreaterThan(1e-3);
    });

    test("merges to the same outputs", async () => {
      const bench = (await create()).scramble();
      const merged = new Map(bench.values);
      const integers = new Map(
        bench.composed.integers.map((name) => [name, Int32Array.from(must(bench.values.get(name), name))]),
      );
      for (const spec of model.linears) {
        const { name } = weightOf(spec);
        merged.set(name, bench.composed.merge(spec, must(bench.values.get(name), name), bench.values, integers));
      }
      const [adapted] = bench.run([bench.hidden], "f64");
      bench.values.clear();
      for (const [name, values] of merged) bench.values.set(name, values);
      const [plain] = bench.run([bench.plain], "f64");
      expect(largestDifference(must(adapted, "adapted").data, must(plain, "merged").data)).toBeLessThan(1e-6);
    });
  });
}
