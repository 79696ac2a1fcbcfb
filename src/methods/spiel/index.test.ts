import { describe, expect, test } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import { must } from "../../errors.js";
import { elements } from "../../ir/shape.js";
import { weightOf } from "../../models/parameters.js";
import { planOnly } from "../../session/open.js";
import { checkTrainingBattery, trainedModel, trainingOptions } from "../../testing/method-training.js";
import { MethodBench } from "../../testing/method-bench.js";
import { checkMethodBattery } from "../../testing/methods.js";
import { tinyLlama } from "../../testing/tiny.js";
import { toyModel } from "../../testing/toy-model.js";
import { composeMethods } from "../compose.js";
import { drawSubset } from "../initial.js";
import { spielConfig, spielLayers } from "./config.js";
import { selectionAt } from "./schedule.js";

const settings = {
  ...{ density: 0.05, total_steps: 40, reselection_steps: 3, selection_accumulation_steps: 1 },
  target_modules: ["q_proj", "down_proj"],
};
const moments = { ...settings, selection_algorithm: "sm3" };

checkMethodBattery({ title: "SpIEL", selection: { id: "spiel", settings: { density: 0.2 } } });
checkMethodBattery({
  title: "SpIEL over transposed weights",
  selection: { id: "spiel", settings: { density: 0.2, dtype: "bfloat16" } },
  model: { transposed: true },
});
// The first step opens a window and selects; the second is an ordinary one; the third opens, and the fourth selects.
checkTrainingBattery({ title: "SpIEL (AG)", selection: [{ id: "spiel", settings }] });
checkTrainingBattery({
  title: "SpIEL (MA)",
  selection: [{ id: "spiel", settings: moments }],
  optimizer: { id: "sm3" },
  variants: { "one batch a step": {}, "two micro-batches a step": { accumulate: 2 }, "in bf16": { dtype: "bf16" } },
});
checkTrainingBattery({
  title: "SpIEL over NF4, with values in bf16, coded states and clipping",
  selection: [
    { id: "qlora", settings: { r: 2, target_modules: ["down_proj"] } },
    {
      id: "spiel",
      settings: { ...settings, dtype: "bfloat16", target_modules: ["q_proj", "up_proj"], num_deltas: { up_proj: 128 } },
    },
  ],
  optimizer: { states: "fp8" },
  variants: { "two micro-batches a step": { accumulate: 2, clip: 0.5 } },
});

const parsed = (given: Record<string, unknown>) => spielConfig.parse(given);

describe("SpIEL", () => {
  test("has the entries of the dense gradient of the weight", async () => {
    const model = toyModel();
    const bench = (await MethodBench.create(model, [{ id: "spiel", settings: { density: 0.3 } }])).scramble();
    for (const spec of model.linears) {
      const delta = must(bench.adapters.get(`${spec.path}.spiel_delta`), "delta").leaf;
      const weight = must(bench.base.get(weightOf(spec).name), "weight");
      const [own, dense] = bench.run(gradients(bench.loss, [delta, weight]), "f64");
      const places = must(bench.values.get(`${spec.path}.spiel_indices`), "places");
      expect(places.length).toBe(own!.data.length);
      places.forEach((place, entry) => {
        expect(Math.abs(own!.data[entry]! - dense!.data[place]!)).toBeLessThan(1e-10);
      });
    }
  });

  test("draws every set of places alike, by the seed and the layer alone", () => {
    const counts = new Array<number>(20).fill(0);
    for (let seed = 0; seed < 4000; seed++) {
      const drawn = drawSubset(seed, "layer", 5, 20);
      expect(new Set(drawn).size).toBe(5);
      expect([...drawn]).toEqual([...drawn].sort((a, b) => a - b));
      for (const place of drawn) counts[place]!++;
    }
    const error = Math.sqrt(4000 * 0.25 * 0.75);
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(4 * error);
    expect([...drawSubset(3, "layer", 6, 6)]).toEqual([0, 1, 2, 3, 4, 5]);
    expect(drawSubset(1, "one", 9, 500)).not.toEqual(drawSubset(1, "other", 9, 500));
  });

  test("opens windows and selects when the reference does", () => {
    const of = (given: Record<string, unknown>, steps: number): string[] =>
      Array.from({ length: steps }, (_, step) => {
        const { window, share } = selectionAt(parsed(given), step);
        return `${window === undefined ? "" : String(window)}${share === 0 ? "" : `:${share.toFixed(3)}`}`;
      });
    const usual = of({ total_steps: 100 }, 50);
    expect(usual.slice(0, 6)).toEqual(["0", "1", "2", "3", "4:1.000", ""]);
    // c = 19 opens, c = 25 selects: six steps, and p = 0.2 (1 - 25 / 100).
    expect(usual.slice(18, 26)).toEqual(["", "0", "1", "2", "3", "4", "5:0.150", ""]);
    expect(usual.slice(38, 46)).toEqual(["", "0", "1", "2", "3", "4", "5:0.110", ""]);
    expect(of({ total_steps: 24 }, 30).slice(5).join("")).toBe("");
    expect(of({}, 46)[44]).toBe("5:0.200");
    const cosine = selectionAt(parsed({ total_steps: 100, reselection_rate_policy: "cosine" }), 24).share;
    expect(cosine).toBeCloseTo(0.1 * (1 + Math.cos(Math.PI / 4)), 12);
    // The last window of a run of a = S - 1 opens right after the selection.
    expect(of({ reselection_steps: 3, selection_accumulation_steps: 2 }, 6)).toEqual([
      "0",
      "1:1.000",
      "0",
      "1",
      "2:0.200",
      "0",
    ]);
  });

  test("spreads the entries over layers by their sizes", () => {
    const specs = trainedModel.linears.filter(({ role }) => role !== "head");
    const adapted = specs.reduce((sum, { inputs, outputs }) => sum + inputs * outputs, 0);
    const parameters = trainedModel.parameters.reduce((sum, { shape }) => sum + elements(shape), 0);
    const counts = (given: Record<string, unknown>): number[] =>
      spielLayers(parsed(given), trainedModel).map(({ count }) => count);
    const sizes = specs.map(({ inputs, outputs }) => inputs * outputs);
    expect(counts({})).toEqual(sizes.map((size) => Math.floor((Math.floor(0.01 * parameters) * size) / adapted)));
    expect(counts({ num_tunable_weights: 1000 })).toEqual(sizes.map((size) => Math.floor((1000 * size) / adapted)));
    const own = counts({ num_deltas: { up_proj: 17 } });
    expect(specs.filter((spec, index) => spec.path.endsWith("up_proj") && own[index] === 17)).toHaveLength(2);
  });

  test("refuses what cannot be", () => {
    const compose = (given: Record<string, unknown>): unknown =>
      composeMethods([{ id: "spiel", settings: given }], trainedModel);
    for (const [given, code] of [
      [{ density: 0 }, "settings"],
      [{ density: 1.5 }, "settings"],
      [{ density: 1 }, "sparse-density"],
      [{ density: 0.1, num_tunable_weights: 5 }, "sparse-density"],
      [{ num_tunable_weights: 1e9 }, "sparse-density"],
      [{ num_tunable_weights: 14 }, "sparse-count"],
      [{ num_deltas: { up_proj: 1e6 } }, "sparse-count"],
      [{ num_deltas: { unknown_proj: 3 } }, "sparse-deltas"],
      [{ num_deltas: { up_proj: 3 }, target_modules: ["q_proj"] }, "sparse-deltas"],
      [{ reselection_steps: 5, selection_accumulation_steps: 5 }, "spiel-steps"],
      [{ target_modules: ["norm"] }, "targets-none"],
      [{ target_modules: ["embed_tokens"] }, "targets-none"],
      [{ selection_algorithm: "random" }, "settings"],
    ] as const) {
      expect(() => compose(given), JSON.stringify(given)).toThrow(expect.objectContaining({ code }));
    }
    const plan = (): unknown => planOnly(trainingOptions({ selection: [{ id: "spiel", settings: moments }] }));
    expect(plan).toThrow(expect.objectContaining({ code: "sparse-optimizer" }));
  });

  test("goes with other methods on other layers, and says why not", () => {
    const together = (id: string, other: Record<string, unknown> = {}, own: Record<string, unknown> = {}): unknown =>
      composeMethods(
        [
          { id: "spiel", settings: own },
          { id, settings: other },
        ],
        trainedModel,
      );
    for (const id of ["lora", "paca", "full", "lisa", "mezo", "meft"]) {
      expect(() => together(id), id).toThrow(expect.objectContaining({ code: "methods-conflict" }));
    }
    expect(() => together("colm")).not.toThrow();
    const elsewhere = { total_step: 9, target_modules: ["up_proj"] };
    expect(() => together("adalora", elsewhere, { target_modules: ["q_proj"] })).toThrow("do not go together");
    expect(() => together("mezo", {}, { selection_algorithm: "none" })).not.toThrow();
    const layers = [
      { id: "spiel", settings: { target_modules: ["q_proj", "v_proj"] } },
      { id: "lora", settings: { target_modules: ["up_proj"] } },
    ];
    expect(composeMethods(layers, trainedModel).adapters).toHaveLength(8);
  });
});

describe("SpIEL's memory on a weight of 4096 x 4096", () => {
  const side = 4096;
  const weight = side * side;
  const count = Math.floor(weight / 100);
  const model = tinyLlama({
    ...{ hidden_size: side, intermediate_size: side, num_hidden_layers: 1, num_attention_heads: 32 },
    ...{ num_key_value_heads: 8, vocab_size: 64 },
  });
  const planOf = (algorithm: string, optimizer: string) =>
    planOnly(
      trainingOptions({
        model,
        selection: [
          {
            id: "spiel",
            settings: {
              ...{ selection_algorithm: algorithm, target_modules: ["q_proj", "o_proj"] },
              num_deltas: { q_proj: count, o_proj: count },
            },
          },
        ],
        optimizer: { id: optimizer },
        session: { batch: 1, length: 32, evaluate: false, saved: "all" },
      }),
    );
  const bytesOf = (plan: ReturnType<typeof planOf>, part: RegExp): number =>
    [...plan.layout.buffers.entries()]
      .filter(([name]) => name.includes("q_proj.spiel") && part.test(name))
      .reduce((sum, [, { bytes }]) => sum + bytes, 0);
  const rounded = (bytes: number): number => Math.ceil(bytes / 64) * 64;
  const dense = (plan: ReturnType<typeof planOf>, program: string): number[] =>
    must(
      plan.plans.find(({ name }) => name === program),
      program,
    )
      .buffers.filter(({ bytes }) => bytes >= 2 * weight)
      .map(({ bytes }) => bytes);

  test("is 24 bytes an entry for AG, and 12 more where a window is open", () => {
    const plan = planOf("rigl", "adamw");
    // Indices, values and Adam's three; the gradient is the sixth, which is not kept from step to step.
    expect(bytesOf(plan, /indices|delta$|mean|square$|age/)).toBeCloseTo(5 * rounded(4 * count), -3);
    expect(bytesOf(plan, /candidate/)).toBeCloseTo(3 * rounded(4 * count), -3);
    expect(plan.report.composition.gradients).toBeLessThanOrEqual(2 * 4 * count + 4096);
    expect(24 * count).toBe(4026528);
    // In one step of a window the gradient of one weight at a time is there.
    expect(dense(plan, "train")).toEqual([]);
    expect(dense(plan, "train@window")).toEqual([]);
    expect(dense(plan, "train@open")).toEqual([4 * weight, 4 * weight]);
    const { buffers } = must(
      plan.plans.find(({ name }) => name === "train@open"),
      "plan",
    );
    const [first, second] = buffers.filter(({ bytes }) => bytes >= 2 * weight);
    expect(first!.end < second!.start || second!.end < first!.start).toBe(true);
  });

  test("is 12 bytes an entry for MA, and a number a row and a column", () => {
    const plan = planOf("sm3", "sm3");
    expect(bytesOf(plan, /indices|delta$/)).toBeCloseTo(2 * rounded(4 * count), -3);
    expect(bytesOf(plan, /rows|columns/)).toBe(4 * 2 * side);
    for (const program of ["train", "train@select"]) expect(dense(plan, program)).toEqual([]);
  });
});
