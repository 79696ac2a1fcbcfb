import { describe, expect, test } from "vitest";
import { must } from "../../errors.js";
import { openSession, planOnly } from "../../session/open.js";
import {
  checkTrainingBattery,
  randomWeights,
  runTraining,
  trainedModel,
  trainingBatch,
  trainingOptions,
} from "../../testing/method-training.js";
import { tinyLlama } from "../../testing/tiny.js";
import { composeMethods } from "../compose.js";
import { drawBlocks, turnsOf } from "./turns.js";

const model = tinyLlama({ num_hidden_layers: 4, vocab_size: 67 });
const selection = [{ id: "lisa", settings: { activated_layers: 2, interval_steps: 2 } }];

checkTrainingBattery({ title: "LISA", selection, model, steps: 5 });
checkTrainingBattery({
  title: "LISA over adapters",
  selection: [
    { id: "lisa", settings: { activated_layers: 1, interval_steps: 2 } },
    { id: "lora", settings: { r: 4 } },
  ],
  model,
  steps: 5,
  variants: { "one batch a step": {}, "in bf16": { dtype: "bf16" } },
});
checkTrainingBattery({
  title: "LISA with masters",
  selection,
  model,
  optimizer: { id: "adamw", master: true },
  steps: 5,
  variants: { "in bf16": { dtype: "bf16" } },
});

describe("LISA", () => {
  test("draws every block equally often, and the same ones again", () => {
    const counts = new Array<number>(8).fill(0);
    const periods = 10_000;
    for (let period = 0; period < periods; period++) {
      const drawn = drawBlocks(8, 3, period, 5);
      expect(new Set(drawn).size).toBe(3);
      for (const block of drawn) counts[block]!++;
    }
    const share = 3 / 8;
    const error = Math.sqrt(periods * share * (1 - share));
    for (const count of counts) expect(Math.abs(count - periods * share)).toBeLessThan(4 * error);
    expect(drawBlocks(8, 3, 7, 5)).toEqual(drawBlocks(8, 3, 7, 5));
    expect(drawBlocks(8, 3, 7, 5)).not.toEqual(drawBlocks(8, 3, 7, 6));
  });

  test("keeps the turn of a block that is drawn again, and starts the others at the switch", () => {
    const periods = [
      [0, 1],
      [1, 2],
      [3, 1],
      [0, 2],
    ];
    let draws = 0;
    const at = turnsOf((period) => {
      draws++;
      return must(periods[period], "period");
    }, 10);
    expect(at(9)).toEqual([
      { block: 0, since: 0 },
      { block: 1, since: 0 },
    ]);
    expect(at(10)).toEqual([
      { block: 2, since: 10 },
      { block: 1, since: 0 },
    ]);
    expect(at(29)).toEqual([
      { block: 3, since: 20 },
      { block: 1, since: 0 },
    ]);
    expect(at(30)).toEqual([
      { block: 0, since: 30 },
      { block: 2, since: 30 },
    ]);
    // One step after the other draws each period once; an earlier one starts over.
    expect(draws).toBe(4);
    expect(at(29)).toEqual([
      { block: 3, since: 20 },
      { block: 1, since: 0 },
    ]);
  });

  test("with all blocks in turn is full tuning", async () => {
    const all = [{ id: "lisa", settings: { activated_layers: 4, interval_steps: 2 } }];
    const turned = await runTraining(trainingOptions({ selection: all, model }), { to: 5 });
    const full = await runTraining(trainingOptions({ selection: [{ id: "full", settings: {} }], model }), { to: 5 });
    expect(turned.losses).toEqual(full.losses);
    for (const { name } of model.parameters) expect(turned.tensors.get(name)).toEqual(full.tensors.get(name));
  });

  test("changes the active blocks and what always trains, nothing else, with accumulation too", async () => {
    for (const accumulate of [1, 4]) {
      const options = trainingOptions({ selection, model, session: { accumulate } });
      const session = await openSession(options);
      try {
        await session.load(randomWeights(model));
        for (let step = 0; step < 8; step++) {
          const before = new Map(model.parameters.map(({ name }) => [name, session.bytes(name).slice()]));
          const micro = Array.from({ length: accumulate }, (_, index) => trainingBatch(step * accumulate + index));
          await session.step(micro, { rate: 0.01, step });
          const active = must(options.methods?.turns, "turns")
            .at(step, options.seed, () => new Float32Array(0))
            .map(({ block }) => block);
          for (const { name, block } of model.parameters) {
            const same = Buffer.compare(session.bytes(name), must(before.get(name), name)) === 0;
            expect(same, `${name} in step ${step}`).toBe(block !== undefined && !active.includes(block));
          }
        }
      } finally {
        session.close();
      }
    }
  });

  test("keeps states for so many blocks, however long it runs, and no inputs of frozen layers", async () => {
    const composition = (id: string, settings: Record<string, unknown>) =>
      planOnly(trainingOptions({ selection: [{ id, settings }], model, session: { saved: "all" } })).report.composition;
    const block = model.parameters.reduce(
      (sum, spec) => sum + (spec.block === 0 ? spec.shape.reduce((a, b) => a * b, 1) : 0),
      0,
    );
    const [one, three] = [1, 3].map((count) => composition("lisa", { activated_layers: count }));
    const grown = three!.states - one!.states;
    expect(grown).toBeGreaterThanOrEqual(2 * 2 * block * 4);
    expect(grown).toBeLessThan(1.1 * 2 * 2 * block * 4);
    expect(one!.saved).toBeLessThan(composition("full", {}).saved);
    const many = await runTraining(
      trainingOptions({ selection: [{ id: "lisa", settings: { activated_layers: 1, interval_steps: 1 } }], model }),
      { to: 50 },
    );
    expect(many.arenaBytes).toBe(many.planBytes);
  });

  test("refuses more blocks than there are, none, a budget, and full tuning beside it", () => {
    const compose = (settings: Record<string, unknown>): unknown =>
      composeMethods([{ id: "lisa", settings }], trainedModel);
    expect(() => compose({ activated_layers: 3 })).toThrow(expect.objectContaining({ code: "lisa-layers" }));
    expect(() => compose({ activated_layers: 0 })).toThrow(expect.objectContaining({ code: "settings" }));
    expect(() => compose({ interval_steps: 0 })).toThrow(expect.objectContaining({ code: "settings" }));
    const budget = { bytes: "min", overheadBytes: 0, allowLossy: false } as const;
    expect(() => planOnly(trainingOptions({ selection, model, session: { budget } }))).toThrow(
      expect.objectContaining({ code: "budget-turns" }),
    );
  });
});
