import { describe, expect, test } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import { must } from "../../errors.js";
import { weightOf } from "../../models/parameters.js";
import { planOnly } from "../../session/open.js";
import { checkTrainingBattery, trainedModel, trainingOptions } from "../../testing/method-training.js";
import { MethodBench } from "../../testing/method-bench.js";
import { checkMethodBattery } from "../../testing/methods.js";
import { toyModel } from "../../testing/toy-model.js";
import { composeMethods } from "../compose.js";
import type { PacaTarget } from "./config.js";
import { chooseColumns } from "./columns.js";

const selection = { id: "paca", settings: { r: 3, alpha: 5 } };

checkMethodBattery({ title: "PaCA", selection });
checkMethodBattery({ title: "PaCA over transposed weights", selection, model: { transposed: true } });
checkTrainingBattery({ title: "PaCA", selection: [{ id: "paca", settings: { r: 4, alpha: 8 } }] });

const target = (inputs: number, r: number, path = "layer"): PacaTarget =>
  ({
    spec: { path, inputs, outputs: 2 },
    columns: { name: `${path}.paca_indices`, shape: [r], dtype: "i32" },
  }) as unknown as PacaTarget;

describe("PaCA", () => {
  test("chooses different columns, evenly, by the seed and the layer alone", () => {
    const counts = new Array<number>(20).fill(0);
    for (let seed = 0; seed < 4000; seed++) {
      const columns = chooseColumns(seed, target(20, 5));
      expect(new Set(columns).size).toBe(5);
      expect(columns).toEqual([...columns].sort((a, b) => a - b));
      for (const column of columns) counts[column]!++;
    }
    const error = Math.sqrt(4000 * 0.25 * 0.75);
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(4 * error);
    expect(chooseColumns(1, target(64, 8))).toEqual(chooseColumns(1, target(64, 8)));
    expect(chooseColumns(1, target(64, 8))).not.toEqual(chooseColumns(1, target(64, 8, "other")));
  });

  test("has the columns of the dense gradient of the weight, times the scale", async () => {
    const model = toyModel();
    const bench = (await MethodBench.create(model, [selection])).scramble();
    const spec = must(model.linears[0], "layer");
    const delta = must(bench.adapters.get(`${spec.path}.paca_delta`), "delta").leaf;
    const weight = must(bench.base.get(weightOf(spec).name), "weight");
    const [own, dense] = bench.run(gradients(bench.loss, [delta, weight]), "f64");
    const columns = must(bench.values.get(`${spec.path}.paca_indices`), "columns");
    for (let row = 0; row < spec.outputs; row++) {
      columns.forEach((column, place) => {
        const expected = (5 / 3) * dense!.data[row * spec.inputs + column]!;
        expect(Math.abs(own!.data[row * 3 + place]! - expected)).toBeLessThan(1e-10);
      });
    }
  });

  test("keeps less for backward than LoRA with as many trained values", () => {
    const saved = (id: string, settings: Record<string, unknown>): number =>
      planOnly(trainingOptions({ selection: [{ id, settings }], session: { saved: "all", evaluate: false } })).report
        .composition.saved;
    expect(saved("paca", { r: 8 })).toBeLessThan(saved("lora", { r: 4 }));
  });

  test("refuses more columns than there are, and none", () => {
    const compose = (settings: Record<string, unknown>): unknown =>
      composeMethods([{ id: "paca", settings }], trainedModel);
    expect(() => compose({ r: 49 })).toThrow(expect.objectContaining({ code: "paca-columns" }));
    expect(() => compose({ r: 0 })).toThrow(expect.objectContaining({ code: "settings" }));
    expect(() => compose({ dropout: 0.1 })).toThrow(expect.objectContaining({ code: "settings-unknown" }));
  });
});
