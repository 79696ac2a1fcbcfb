import { describe, expect, test } from "vitest";
import { must } from "../../errors.js";
import { nodesOf } from "../../ir/program.js";
import { drawnBatches } from "../../session/draw.js";
import { openSession, planOnly } from "../../session/open.js";
import type { Settings } from "../../testing/colm.js";
import {
  adapterBytes,
  batchOf,
  drawOf,
  length,
  open,
  optionsOf,
  probed,
  rows,
  start,
  table,
} from "../../testing/colm.js";
import { checkTrainingBattery, randomWeights, trainedModel, trainingOptions } from "../../testing/method-training.js";
import { checkMethodBattery } from "../../testing/methods.js";
import { relativeDifference, tinyLlama } from "../../testing/tiny.js";
import { composeMethods } from "../compose.js";
import { probedFeatures } from "../coreset/gradients.js";
import type { TwoPointProbe } from "../coreset/probes.js";
import { probeDirection } from "../coreset/probes.js";
import { drawNormal, drawUniform } from "../initial.js";

checkMethodBattery({
  title: "CoLM",
  selection: { id: "colm", settings: { probe: "model.layers.1.self_attn.q_proj" } },
});
// Adam makes slopes of one sign all but equal, so that rounding would decide which rows two targets choose.
const robust = { mezo_optim: "sgd", mezo_eps: 0.05 };
checkTrainingBattery({
  title: "CoLM",
  selection: [{ id: "colm", settings: robust }],
  variants: { "one batch a step": {}, "two micro-batches a step": { accumulate: 2 }, "in bf16": { dtype: "bf16" } },
});
describe("the probe", () => {
  const probe: TwoPointProbe = {
    tensor: { name: probed, shape: [16, 4] },
    epsilon: 0.1,
    directions: 2,
    resample: "run",
  };

  test("computes what full passes of the moved model do, and shares all but the last block", async () => {
    const settings = { probes: 2, mezo_eps: probe.epsilon };
    const session = await start(settings);
    const plain = await start({ data_selection_unit: "length_loss_weighted" });
    const outputs = await session.run("colm.probe", batchOf(0), { step: 3 });
    const held = new Float32Array(plain.bytes(probed).slice().buffer);
    for (const use of [0, 1]) {
      const z = probeDirection(probe, { seed: 7, step: 3 }, use);
      const losses: Float32Array[] = [];
      for (const [name, sign] of [
        ["above", 1],
        ["below", -1],
      ] as const) {
        const moved = held.map((one, place) =>
          Math.fround(one + Math.fround(must(z[place], "z") * Math.fround(sign * 0.1))),
        );
        plain.bytes(probed).set(new Uint8Array(moved.buffer));
        const { loss } = await plain.run("colm.probe", batchOf(0), { step: 3 });
        losses.push(must(loss, "loss"));
        expect(relativeDifference(must(outputs[`${name}${use}`], name), must(loss, "loss"))).toBeLessThan(1e-6);
      }
      const slopes = (above: ArrayLike<number>, below: ArrayLike<number>): number[] =>
        Array.from({ length: rows }, (_, row) => (above[row]! - below[row]!) / 0.2);
      const expected = slopes(losses[0]!, losses[1]!);
      const found = slopes(outputs[`above${use}`]!, outputs[`below${use}`]!);
      expect(relativeDifference(found, expected)).toBeLessThan(1e-5);
    }
    const program = must(
      planOnly(optionsOf(settings)).programs.find(({ name }) => name === "colm.probe"),
      "program",
    );
    const attentions = nodesOf(program).filter(({ op }) => op.name === "attention");
    expect(attentions).toHaveLength(trainedModel.blocks - 1 + 4);
  });

  test("leaves every weight as it was, bit for bit", async () => {
    const session = await start({});
    const before = adapterBytes(session);
    await session.run("colm.probe", batchOf(0), { step: 0 });
    expect(adapterBytes(session)).toEqual(before);
    const { chosen } = await session.step(drawOf(0), { rate: 0, step: 0 });
    expect(chosen).toHaveLength(rows);
    const after = new Map([...adapterBytes(session)].filter(([name]) => !name.includes(".adamw.")));
    for (const [name, bytes] of after) expect(bytes).toEqual(before.get(name));
  });

  test("estimates without bias: the mean over drawn directions is the gradient of a quadratic", () => {
    const [size, draws, epsilon] = [12, 4000, 1e-3];
    const spread = drawUniform(3, "curvature", size);
    const theta = drawNormal(3, "theta", size);
    const lossAt = (at: ArrayLike<number>): number =>
      spread.reduce((sum, h, k) => sum + (h * (at[k] ?? 0) ** 2) / 2, 0);
    const drawn: TwoPointProbe = { tensor: { name: "theta", shape: [size] }, epsilon, directions: 1, resample: "step" };
    const [sums, squares] = [new Float64Array(size), new Float64Array(size)];
    const column = new Float64Array(1);
    for (let step = 0; step < draws; step++) {
      const z = probeDirection(drawn, { seed: 11, step }, 0);
      const moved = (sign: number): number[] => Array.from(theta, (one, k) => one + sign * epsilon * (z[k] ?? 0));
      const slope = (lossAt(moved(1)) - lossAt(moved(-1))) / (2 * epsilon);
      const features = probedFeatures({ slopes: Float64Array.of(slope), directions: [z] });
      for (let k = 0; k < size; k++) {
        features.column(k, column);
        sums[k]! += column[0]!;
        squares[k]! += column[0]! ** 2;
      }
    }
    for (let k = 0; k < size; k++) {
      const mean = sums[k]! / draws;
      const error = Math.sqrt((squares[k]! / draws - mean ** 2) / draws);
      expect(Math.abs(mean - spread[k]! * theta[k]!)).toBeLessThan(4 * error);
    }
  });

  test("draws one direction for the run, or one for each step", () => {
    const at = (resample: "run" | "step", step: number): Float32Array =>
      probeDirection({ ...probe, resample }, { seed: 7, step }, 0);
    expect(at("run", 5)).toEqual(at("run", 0));
    expect(at("step", 5)).not.toEqual(at("step", 4));
    expect(at("step", 5)).toEqual(at("step", 5));
  });
});

describe("the plan", () => {
  test("keeps half of the activations of the whole draw, and says where nothing is saved", () => {
    const report = (settings: Settings | undefined, batch: number) =>
      planOnly(optionsOf(settings, { batch, saved: "all" })).report;
    const [chosen, whole, double] = [report({}, 64), report(undefined, 128), report(undefined, 256)];
    expect(chosen.composition.saved / whole.composition.saved).toBeCloseTo(0.5, 2);
    expect(chosen.composition.saved / double.composition.saved).toBeCloseTo(0.25, 2);
    const beside = chosen.planBytes - report(undefined, 64).planBytes;
    expect(beside).toBeLessThan(0.01 * (whole.composition.saved - chosen.composition.saved));
    expect(chosen.notes.join()).toContain("64 of 128 rows");
    expect(chosen.notes.join()).not.toContain("no peak");
    const alone = planOnly(optionsOf({}, { batch: 1, accumulate: 4, saved: "all" })).report;
    const all = planOnly(optionsOf(undefined, { batch: 1, accumulate: 8, saved: "all" })).report;
    expect(alone.notes.join()).toContain("no peak memory is saved");
    expect(alone.planBytes).toBeGreaterThanOrEqual(all.planBytes);
  });

  test("takes the time of the probes into account", () => {
    const seconds = (settings: Settings | undefined): number =>
      must(planOnly(optionsOf(settings)).report.stepSeconds, "seconds");
    const [plain, lengths, probe, exact] = [
      seconds(undefined),
      seconds({ data_selection_unit: "completion_length" }),
      seconds({}),
      seconds({ data_selection_unit: "masked_grad" }),
    ];
    expect(lengths).toBeCloseTo(plain, 9);
    expect(probe).toBeGreaterThan(plain);
    expect(exact).toBeGreaterThan(probe);
  });

  test("draws whole micro-batches, or is refused", () => {
    const drawn = (ratio: number, accumulate: number): number =>
      drawnBatches(optionsOf({ small_batch_ratio: ratio }, { accumulate }));
    expect([drawn(0.5, 1), drawn(0.25, 1), drawn(0.75, 3), drawn(0.1, 1), drawn(1, 2)]).toEqual([2, 4, 4, 10, 2]);
    const uneven: unknown = expect.objectContaining({
      code: "draw-uneven",
      fix: expect.stringContaining("accumulate to 3") as string,
    });
    expect(() => drawn(0.75, 1)).toThrow(uneven);
    expect(() => planOnly(optionsOf({ small_batch_ratio: 0.75 }))).toThrow(uneven);
  });
});

describe("CoLM refuses", () => {
  const compose = (settings: Settings, ...others: string[]): unknown =>
    composeMethods([...others.map((id) => ({ id, settings: {} })), { id: "colm", settings }], trainedModel);
  const code = (name: string): unknown => expect.objectContaining({ code: name });

  test("settings out of range", () => {
    expect(() => compose({ small_batch_ratio: 0 })).toThrow(code("settings"));
    expect(() => compose({ small_batch_ratio: 1.5 })).toThrow(code("settings"));
    expect(() => compose({ zo_dim: 257 })).toThrow(code("colm-dimension"));
    expect(() => compose({ zo_dim: 256 })).not.toThrow();
    expect(() => compose({ probe: "layers.1.self_attn.v_proj" })).toThrow(code("probe-layer"));
  });

  test("gradients that need no backward pass, and methods that leave the probed layer alone", () => {
    expect(() => compose({}, "lora", "mezo")).toThrow(code("methods-conflict"));
    const selection = [
      { id: "lora", settings: { target_modules: ["q_proj"] } },
      { id: "colm", settings: {} },
    ];
    expect(() => composeMethods(selection, trainedModel)).toThrow(code("probe-layer"));
    for (const settings of [
      { data_selection_unit: "completion_length" },
      { probe: "model.layers.0.self_attn.q_proj" },
      { probe: "model.layers.1.self_attn.q_proj.lora_A.weight" },
    ]) {
      expect(() => composeMethods([...selection.slice(0, 1), { id: "colm", settings }], trainedModel)).not.toThrow();
    }
  });

  test("to rescale true gradients without AdamW's moments", async () => {
    const { optimizer } = trainingOptions({ selection: [{ id: "lora", settings: {} }], optimizer: { id: "sgd" } });
    const session = await start({ data_selection_unit: "masked_grad" }, { optimizer });
    await expect(session.step(drawOf(0), { rate: 0, step: 0 })).rejects.toMatchObject({ code: "rows-moments" });
  });
});

describe("beside other methods", () => {
  test.each([
    "full",
    "qlora",
    "adalora",
    "peqa",
    "paca",
    "lisa",
    "galore",
    "ist",
    "wta-crs",
    "spiel",
    "coat",
    "lora+lisa",
  ])("%s: two steps, and the plan is what is taken", async (names) => {
    const ids = names.split("+");
    const small: Readonly<Record<string, Settings>> = {
      lisa: { activated_layers: 1, interval_steps: 1 },
      galore: { rank: 4 },
      ist: { rl_step: 2, importance_batch: 4 },
      adalora: { total_step: 10, tinit: 1, tfinal: 1 },
    };
    const options = trainingOptions({
      selection: [...ids, "colm"].map((id) => ({ id, settings: small[id] ?? {} })),
      model: tinyLlama({ hidden_size: 32, intermediate_size: 64, vocab_size: 67 }),
      session: { batch: rows, length, segments: false },
    });
    const session = await openSession(options);
    open.push(session);
    await session.load(randomWeights(options.definition));
    for (let step = 0; step < 2; step++) {
      const { loss } = await session.step(drawOf(step), {
        rate: 1e-3,
        step,
        sources: table,
        data: (index) => batchOf(index % 97),
      });
      expect(Number.isFinite(loss)).toBe(true);
    }
    expect(session.arenaBytes).toBe(session.report.planBytes);
  });
});
