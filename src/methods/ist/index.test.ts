import { describe, expect, test } from "vitest";
import { must } from "../../errors.js";
import { openSession, planOnly } from "../../session/open.js";
import type { SessionOptions } from "../../session/types.js";
import {
  checkTrainingBattery,
  randomWeights,
  runTraining,
  trainingBatch,
  trainingOptions,
} from "../../testing/method-training.js";
import { relativeDifference, tinyLlama } from "../../testing/tiny.js";
import type { MethodSelection } from "../compose.js";
import { composeMethods } from "../compose.js";
import { drawUniform, drawWeighted } from "../initial.js";
import { drawSets, moveScores, sigmoid } from "./importance.js";

const model = tinyLlama({ num_hidden_layers: 4, vocab_size: 67 });
const lora = { id: "lora", settings: { r: 4 } };
const ist = (settings: Record<string, unknown> = {}): MethodSelection => ({
  id: "ist",
  settings: { n_layers_updated: 2, update_importance_interval_steps: 2, importance_batch: 3, ...settings },
});

checkTrainingBattery({
  title: "IST over LoRA",
  selection: [lora, ist()],
  model,
  steps: 6,
  variants: { "two micro-batches a step": { accumulate: 2 }, "recomputing blocks": { saved: "block" } },
});
const once = { "one batch a step": {} };
const inBf16 = { "in bf16": { dtype: "bf16" } } as const;
const over = (method: MethodSelection) => [method, ist({ n_layers_updated: 1 })];
checkTrainingBattery({
  title: "IST over DoRA",
  selection: over({ id: "lora", settings: { r: 4, dora: true, dropout: 0.1 } }),
  model,
  steps: 4,
  variants: once,
});
checkTrainingBattery({
  title: "IST over AdaLoRA",
  selection: over({
    id: "adalora",
    settings: { target_r: 2, init_r: 4, tinit: 1, tfinal: 1, deltaT: 1, total_step: 6 },
  }),
  model,
  steps: 6,
  variants: { "two micro-batches a step": { accumulate: 2 } },
});
checkTrainingBattery({
  title: "IST over PaCA",
  selection: over({ id: "paca", settings: { r: 3 } }),
  model,
  steps: 4,
  variants: inBf16,
});
checkTrainingBattery({
  title: "IST over QLoRA, as RST",
  selection: [{ id: "qlora", settings: { r: 4 } }, ist({ sampling: "uniform" })],
  model: tinyLlama({ num_hidden_layers: 4, vocab_size: 67, hidden_size: 64, intermediate_size: 64 }),
  steps: 4,
  variants: once,
});

type Tensors = Map<string, Uint8Array>;

interface Opened {
  readonly tensors: () => Tensors;
  readonly put: (tensors: ReadonlyMap<string, Uint8Array>) => void;
  readonly step: (step: number, rate?: number) => Promise<number>;
}

const data = (index: number) => trainingBatch(index, model.vocabularySize);

/** Runs `body` with a loaded session. */
async function withSession<T>(options: SessionOptions, body: (session: Opened) => Promise<T>): Promise<T> {
  const session = await openSession(options);
  try {
    await session.load(randomWeights(options.definition));
    return await body({
      tensors: () =>
        new Map(session.tensors.flatMap(({ name, changes }) => (changes ? [[name, session.bytes(name).slice()]] : []))),
      put: (tensors) => {
        for (const [name, bytes] of tensors) session.bytes(name).set(bytes);
      },
      step: async (step, rate = 0.01) => (await session.step([data(step)], { rate, step, data })).loss,
    });
  } finally {
    session.close();
  }
}

const f32 = (bytes: Uint8Array) => new Float32Array(bytes.slice().buffer);
const blockOf = (name: string) => Number(must(/layers\.(\d+)\./.exec(name)?.[1], name));

/** The layers of a step while all scores are 0. */
const activeAt = ({ methods, seed }: SessionOptions, step: number) =>
  must(methods?.turns, "turns")
    .at(step, seed, () => new Float32Array(model.blocks))
    .map(({ block }) => block);

describe("what trains", () => {
  test("with all layers in turn it is the wrapped method to the bit, probes or not", async () => {
    const selections = [[lora], [lora, ist({ n_layers_updated: 4 })]];
    const [whole, turned] = await Promise.all(
      selections.map((selection) => runTraining(trainingOptions({ selection, model }), { to: 6 })),
    );
    expect(turned!.losses).toEqual(whole!.losses);
    expect(turned!.evaluation).toBe(whole!.evaluation);
    for (const [name, bytes] of whole!.tensors) expect(turned!.tensors.get(name), name).toEqual(bytes);
    // The probes did run: the scores moved, while the scales that they dimmed are as before.
    expect(f32(must(turned!.tensors.get("ist.scores"), "scores")).some((score) => score !== 0)).toBe(true);
  });

  test("layers in turn get what full LoRA gives them at that point, the others keep every bit", async () => {
    const full = trainingOptions({ selection: [lora], model });
    const start = await withSession(full, async ({ step, tensors }) => {
      for (const number of [0, 1, 2]) await step(number);
      return tensors();
    });
    const expected = await withSession(full, async ({ put, step, tensors }) => {
      put(start);
      await step(3);
      return tensors();
    });
    const options = trainingOptions({ selection: [lora, ist({ update_importance_interval_steps: 100 })], model });
    const counts = new Uint8Array(Int32Array.of(3, 3, 3, 3).buffer);
    const found = await withSession(options, async ({ put, step, tensors }) => {
      put(new Map([...start, ["turns.steps", counts]]));
      await step(3);
      return tensors();
    });
    const active = activeAt(options, 3);
    expect(active).toHaveLength(2);
    for (const [name, bytes] of expected) {
      const [before, after] = [must(start.get(name), name), must(found.get(name), name)];
      if (!active.includes(blockOf(name))) expect(after, name).toEqual(before);
      else {
        expect(after, name).not.toEqual(before);
        expect(relativeDifference(f32(after), f32(bytes)), name).toBeLessThan(1e-6);
      }
    }
    const counted = new Int32Array(must(found.get("turns.steps"), "counts").slice().buffer);
    expect([...counted]).toEqual([0, 1, 2, 3].map((block) => (active.includes(block) ? 4 : 3)));
  });

  test("a layer counts its own steps: its first update is one with first-step corrections", async () => {
    const options = trainingOptions({ selection: [lora, ist({ n_layers_updated: 1 })], model });
    const late = Array.from({ length: 40 }, (_, step) => step).find(
      (step) => step > 0 && activeAt(options, step)[0] !== activeAt(options, 0)[0],
    );
    const step = must(late, "a step in which another layer trains");
    const [block] = activeAt(options, step);
    const name = `model.layers.${block}.mlp.down_proj.lora_B.weight`;
    const after = await withSession(options, async (session) => {
      await session.step(step, 0.01);
      return f32(must(session.tensors().get(name), name));
    });
    // AdamW's first step moves every value by the rate, whatever its gradient, if it counts from 1.
    const largest = after.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    expect(largest).toBeGreaterThan(0.0099);
    expect(largest).toBeLessThan(0.0101);
  });

  test("one set serves all micro-batches of a step", async () => {
    const options = trainingOptions({ selection: [lora, ist()], model, session: { accumulate: 2 } });
    const session = await openSession(options);
    try {
      await session.load(randomWeights(model));
      for (const step of [0, 1]) {
        const before = new Map(session.tensors.map(({ name }) => [name, session.bytes(name).slice()]));
        await session.step([data(2 * step), data(2 * step + 1)], { rate: 0.01, step, data });
        const changed = composeMethods([lora], model).adapters.filter(
          ({ name }) => Buffer.compare(session.bytes(name), must(before.get(name), name)) !== 0,
        );
        expect([...new Set(changed.map(({ block }) => block))]).toEqual(activeAt(options, step));
      }
    } finally {
      session.close();
    }
  });

  test("MeZO moves the layers in turn alone, and goes on as one run", async () => {
    const selection = [lora, ist(), { id: "mezo", settings: {} }];
    const options = trainingOptions({ selection, model, optimizer: { id: "sgd" } });
    const whole = await runTraining(options, { to: 5, poison: true });
    expect(whole.arenaBytes).toBe(whole.planBytes);
    const first = await runTraining(options, { to: 3 });
    const second = await runTraining(options, { from: 3, to: 5, tensors: first.tensors });
    expect(second.tensors).toEqual(whole.tensors);
    await withSession(options, async ({ tensors, step }) => {
      for (const number of [0, 1]) {
        const before = tensors();
        await step(number);
        const after = tensors();
        const changed = [...after].filter(
          ([name, bytes]) => name.includes("lora") && Buffer.compare(bytes, must(before.get(name), name)) !== 0,
        );
        expect([...new Set(changed.map(([name]) => blockOf(name)))]).toEqual(activeAt(options, number));
      }
    });
  });

  test("with AdaLoRA triplets of layers that stand still are masked too", async () => {
    const settings = { target_r: 1, init_r: 4, tinit: 1, tfinal: 1, deltaT: 1, total_step: 4 };
    const selection = [{ id: "adalora", settings }, ist({ n_layers_updated: 1, sampling: "uniform" })];
    const { tensors } = await runTraining(trainingOptions({ selection, model }), { to: 4 });
    const lambdas = [...tensors].filter(([name]) => name.endsWith("lora_E"));
    const kept = lambdas.reduce((sum, [, bytes]) => sum + f32(bytes).filter((value) => value !== 0).length, 0);
    expect(lambdas).toHaveLength(4 * 7);
    expect(kept).toBeLessThanOrEqual(lambdas.length);
    const masked = [...tensors].filter(([name]) => name.endsWith("lora_E.masked"));
    expect(masked.map(([name]) => blockOf(name))).toEqual(lambdas.map(([name]) => blockOf(name)));
  });
});

describe("importance", () => {
  test("scores move as computed by hand", () => {
    const scores = Float32Array.of(0, 1, -1, 0.5);
    const sets = [
      [0, 1],
      [1, 2],
      [0, 3],
    ];
    const advantages = moveScores(scores, sets, [1, 1.2, 1.4], 10);
    // exp(-1), exp(-1.2), exp(-1.4) less their mean 0.3052236.
    [0.0626558, -0.0040294, -0.0586266].forEach((value, place) => {
      expect(advantages[place]).toBeCloseTo(value, 5);
    });
    // q (1 - q): 0.25, 0.1966119, 0.1966119, 0.2350037.
    const expected = [
      (0.0626558 - 0.0586266) * 0.25 * 10,
      1 + (0.0626558 - 0.0040294) * 0.1966119 * 10,
      -1 - 0.0040294 * 0.1966119 * 10,
      0.5 - 0.0586266 * 0.2350037 * 10,
    ];
    expected.forEach((value, place) => {
      expect(scores[place]).toBeCloseTo(value, 4);
    });
  });

  test("draws without replacement follow the weights among those that are left", () => {
    const weights = [0.1, 0.4, 0.2, 0.3];
    const draws = 20_000;
    const pairs = new Map<string, number>();
    for (let number = 0; number < draws; number++) {
      const key = drawWeighted(weights, drawUniform(3, `draw.${number}`, 2)).join();
      pairs.set(key, (pairs.get(key) ?? 0) + 1);
    }
    weights.forEach((first, i) => {
      weights.forEach((second, j) => {
        if (i === j) return;
        const share = (first * second) / (1 - first);
        const error = Math.sqrt(draws * share * (1 - share));
        expect(Math.abs((pairs.get(`${i},${j}`) ?? 0) - draws * share), `${i},${j}`).toBeLessThan(3 * error);
      });
    });
    expect(pairs.has("1,1")).toBe(false);
  });

  test("probes dim different sets, even where scores are at their limits", () => {
    const uniform = (name: string, count: number) => drawUniform(1, name, count);
    for (const scores of [new Float32Array(4), Float32Array.of(90, 90, -90, -90)]) {
      const sets = drawSets({ suppressed: 2, probes: 6 }, scores, uniform);
      expect(new Set(sets.map((set) => set.join())).size).toBe(6);
      for (const set of sets) expect(new Set(set).size).toBe(2);
    }
  });

  test("a layer whose adapter does harm is found within 200 probes", async () => {
    const settings = { update_importance_interval_steps: 1, n_layers_updated: 1, importance_batch: 2, rl_step: 4 };
    const trained = await runTraining(trainingOptions({ selection: [lora], model }), { to: 30, rate: 0.02 });
    const options = trainingOptions({ selection: [lora, ist(settings)], model });
    const scores = await withSession(options, async ({ put, step, tensors }) => {
      put(trained.tensors);
      const harmful = composeMethods([lora], model).adapters.filter(
        ({ name, block }) => block === 2 && name.includes("lora_B"),
      );
      put(
        new Map(
          harmful.map(({ name, shape }) => {
            const count = shape.reduce((a, b) => a * b, 1);
            return [name, new Uint8Array(Float32Array.from(drawUniform(1, name, count), (u) => 4 * u - 2).buffer)];
          }),
        ),
      );
      for (let number = 0; number <= 40; number++) await step(number, 0);
      return f32(must(tensors().get("ist.scores"), "scores"));
    });
    const others = [0, 1, 3].map((layer) => must(scores[layer], "score"));
    expect(scores[2]).toBeGreaterThan(Math.max(...others));
    expect(sigmoid(-must(scores[2], "score"))).toBeLessThan(0.5);
  });
});

describe("memory of eight layers, two in turn", () => {
  const eight = tinyLlama({ num_hidden_layers: 8, vocab_size: 67, hidden_size: 32, intermediate_size: 64 });
  const reportOf = (selection: readonly MethodSelection[], session: Partial<SessionOptions>) =>
    planOnly(trainingOptions({ selection, model: eight, session: { evaluate: false, ...session } })).report;
  const count = (updated: number) => ist({ n_layers_updated: updated });

  test("gradients that are summed are those of two layers", () => {
    const gradients = (selection: readonly MethodSelection[]) =>
      must(
        reportOf(selection, { accumulate: 2 }).programs.find(({ name }) => name === "apply"),
        "apply",
      ).composition.gradients;
    expect(gradients([lora, count(2)]) / gradients([lora])).toBeCloseTo(2 / 8, 6);
  });

  test("operands that backward reads of adapted layers are those of two", () => {
    // The longer the rows, the less the worst case of the sets depends on anything else.
    const session = { saved: "all", batch: 4, length: 64 } as const;
    const saved = (selection: readonly MethodSelection[]) => reportOf(selection, session).composition.saved;
    const [two, four, all] = [saved([lora, count(2)]), saved([lora, count(4)]), saved([lora])];
    const layer = (all - four) / 4;
    expect(layer).toBeGreaterThan(0);
    expect((four - two) / 2 / layer).toBeCloseTo(1, 1);
  });

  test("a probe takes less than a step, and states are those of all layers", () => {
    const report = reportOf([lora, count(2)], {});
    const bytes = (wanted: string) =>
      must(
        report.programs.find(({ name }) => name === wanted),
        wanted,
      ).planBytes;
    expect(bytes("ist.probe")).toBeLessThan(bytes("train"));
    const wrapped = reportOf([lora], {}).composition.states;
    expect(report.composition.states - wrapped).toBeLessThan(1024);
    expect(report.composition.states).toBeGreaterThanOrEqual(wrapped);
  });
});

describe("learning", () => {
  const heads = { num_attention_heads: 3, num_key_value_heads: 3 };
  const wide = tinyLlama({ num_hidden_layers: 4, vocab_size: 67, hidden_size: 48, intermediate_size: 96, ...heads });
  /** Half of the labels are noise, so that losses come to rest well above 0. */
  const noisy = (index: number) => {
    const batch = trainingBatch(index, 67, [4, 19]);
    const draws = drawUniform(9, `noise.${index}`, 2 * batch.labels.length);
    const labels = batch.labels.map((label, place) =>
      must(draws[2 * place], "draw") < 0.5 ? label : Math.floor(67 * must(draws[2 * place + 1], "draw")),
    );
    return { ...batch, labels };
  };

  /** Loss of data that was not trained on, after so many steps. */
  async function learned(selection: readonly MethodSelection[], seed: number, steps: number): Promise<number> {
    const session = await openSession(trainingOptions({ selection, model: wide, session: { seed, batch: 4 } }));
    try {
      await session.load(randomWeights(wide));
      for (let step = 0; step < steps; step++) {
        const rate = 0.01 * (1 - step / steps);
        await session.step([noisy(step)], { rate, step, data: (index) => noisy(index % 1000) });
      }
      const losses: number[] = [];
      for (const index of [5000, 5001, 5002, 5003]) {
        const { lossSum, weightSum } = await session.evaluate(noisy(index));
        losses.push(lossSum / weightSum);
      }
      return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
    } finally {
      session.close();
    }
  }

  const wrapped = { id: "lora", settings: { r: 8 } };
  const quarter = { n_layers_updated: 1, update_importance_interval_steps: 5, importance_batch: 16, rl_lr: 30 };

  test("of a quarter of the layers a step comes within 5 % of full LoRA in as many steps", async () => {
    const full = await learned([wrapped], 1, 240);
    expect(full).toBeLessThan(0.8 * Math.log(67));
    expect(await learned([wrapped, ist(quarter)], 1, 240)).toBeLessThan(1.05 * full);
  });

  test("is not worse than drawing layers evenly, over three seeds", async () => {
    const mean = async (settings: Record<string, unknown>): Promise<number> => {
      let sum = 0;
      for (const seed of [1, 2, 3]) sum += await learned([wrapped, ist(settings)], seed, 80);
      return sum / 3;
    };
    expect(await mean(quarter)).toBeLessThan(1.01 * (await mean({ ...quarter, sampling: "uniform" })));
  });
});

describe("IST", () => {
  test("brings LoRA where nothing else trains, and none of its own tensors into the adapter", () => {
    const composed = composeMethods([{ id: "ist", settings: {} }], model);
    expect(composed.methods.map(({ id }) => id)).toEqual(["lora", "ist"]);
    expect(composed.saves).toBe("adapter");
    expect(composed.peft).toBeDefined();
  });

  test("as RST has no probes", () => {
    const composed = composeMethods([lora, ist({ sampling: "uniform" })], model);
    expect(composed.programs).toEqual([]);
    expect(composed.events).toEqual([]);
    expect(composed.states).toEqual([]);
  });

  test("draws among the layers that have adapters alone", () => {
    const some = { id: "lora", settings: { r: 4, target_modules: ["q_proj"], layers_to_transform: [1, 3] } };
    const { turns } = composeMethods([some, ist({ n_layers_updated: 1, n_layers_suppressed: 1, rl_step: 2 })], model);
    const drawn = Array.from({ length: 20 }, (_, step) => must(turns, "turns").at(step, 7, () => new Float32Array(2)));
    expect(new Set(drawn.flatMap((all) => all.map(({ block }) => block)))).toEqual(new Set([1, 3]));
  });

  const failing = (selection: readonly MethodSelection[]) => {
    try {
      composeMethods(selection, model);
    } catch (error) {
      return (error as { code: string }).code;
    }
    return undefined;
  };

  test.each([
    [{ n_layers_updated: 0 }, "settings"],
    [{ n_layers_updated: 5 }, "ist-layers"],
    [{ n_layers_suppressed: 4 }, "ist-layers"],
    [{ rl_step: 1 }, "settings"],
    [{ rl_step: 7 }, "ist-layers"],
    [{ response_suppression_factor: 1 }, "settings"],
    [{ response_suppression_factor: -0.1 }, "settings"],
    [{ update_importance_interval_steps: 0 }, "settings"],
  ])("refuses %j", (settings, code) => {
    expect(failing([lora, ist(settings)])).toBe(code);
  });

  test("refuses what cannot be dimmed, and another sampler", () => {
    expect(failing([{ id: "full", settings: {} }, ist()])).toBe("ist-scale");
    expect(failing([lora, ist(), { id: "lisa", settings: {} }])).toBe("methods-conflict");
    expect(failing([{ id: "peqa", settings: {} }, ist()])).toBe("ist-scale");
    expect(failing([lora, ist({ rl_step: 6 })])).toBeUndefined();
  });
});
