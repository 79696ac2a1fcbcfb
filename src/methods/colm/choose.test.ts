import { describe, expect, test } from "vitest";
import { must } from "../../errors.js";
import { gathered } from "../../session/choice.js";
import type { SessionBatch } from "../../session/types.js";
import { chooseWith } from "../../testing/choice.js";
import { adapterBytes, batchOf, drawOf, length, optionsOf, probed, rows, start, table } from "../../testing/colm.js";
import type { Settings } from "../../testing/colm.js";
import { trainingBatch } from "../../testing/method-training.js";
import { sequence } from "../../testing/tiny.js";
import { drawUniform } from "../initial.js";
import { keptSources } from "./choose.js";
import { colmConfig } from "./config.js";

describe("a step", () => {
  test("with a ratio of 1 is that of the whole batch", async () => {
    const [all, plain] = [await start({ small_batch_ratio: 1 }), await start(undefined)];
    for (let step = 0; step < 2; step++) {
      const one = await all.step([batchOf(step)], { rate: 0.01, step, sources: table });
      const other = await plain.step([batchOf(step)], { rate: 0.01, step });
      expect(one.loss).toBe(other.loss);
    }
    expect(adapterBytes(all)).toEqual(adapterBytes(plain));
  });

  test.each([1, 2])("is that of the chosen rows, in %i micro-batches", async (accumulate) => {
    const [session, plain] = [await start({}, { accumulate }), await start(undefined, { accumulate })];
    for (let step = 0; step < 2; step++) {
      const drawn = drawOf(step, 2 * accumulate);
      const one = await session.step(drawn, { rate: 0.01, step, sources: table });
      const chosen = must(one.chosen, "chosen");
      expect(new Set(chosen).size).toBe(rows * accumulate);
      const { batches } = gathered(drawn, { rows: chosen }, { batch: rows, accumulate });
      const other = await plain.step(batches, { rate: 0.01, step });
      expect(one.loss).toBe(other.loss);
    }
    expect(adapterBytes(session)).toEqual(adapterBytes(plain));
  });

  test("is the same where batches are run in parts", async () => {
    const settings = { mezo_optim: "sgd", mezo_eps: 0.05 };
    const [session, parts] = [await start(settings), await start(settings, { split: 2 })];
    for (let step = 0; step < 2; step++) {
      const one = await session.step(drawOf(step), { rate: 0.01, step, sources: table });
      const other = await parts.step(drawOf(step), { rate: 0.01, step, sources: table });
      expect(other.chosen).toEqual(one.chosen);
      expect(other.loss).toBeCloseTo(one.loss, 5);
    }
  });

  test("weighted counts each row as often as it stands for others", async () => {
    const session = await start({ weighted: true, keep_sources: ["tiny"] });
    const plain = await start({ weighted: false, keep_sources: ["tiny"] });
    const drawn = drawOf(0);
    const one = await session.step(drawn, { rate: 0.01, step: 0, sources: table });
    const other = await plain.step(drawn, { rate: 0.01, step: 0, sources: table });
    expect(one.chosen).toEqual(other.chosen);
    expect(one.loss).not.toBe(other.loss);
    const { batches, total } = gathered(drawn, { rows: [5, 0, 2], factors: [2, 0.5, 1] }, { batch: 4, accumulate: 1 });
    const [batch] = batches;
    const weights = (from: SessionBatch, row: number): number[] => [
      ...from.weights.subarray(row * length, (row + 1) * length),
    ];
    const plainRows = [weights(drawn[1]!, 1), weights(drawn[0]!, 0), weights(drawn[0]!, 2)];
    expect(total).toBe(plainRows.flat().reduce((a, b) => a + b));
    expect(weights(batch!, 0)).toEqual(plainRows[0]!.map((weight) => 2 * weight));
    expect(weights(batch!, 1)).toEqual(plainRows[1]!.map((weight) => 0.5 * weight));
    expect(weights(batch!, 3)).toEqual(new Array(length).fill(0));
    expect([...batch!.sources!]).toEqual([1, 0, 0, 0]);
  });

  test("keeps every row of the small sources", async () => {
    for (const keep of ["auto", [1, 2], ["tiny"]] as const) {
      const session = await start({ keep_sources: keep });
      for (let step = 0; step < 3; step++) {
        const sources = drawUniform(step, "sources", 8).map((draw) => (draw < 0.7 ? 0 : draw < 0.85 ? 1 : 2));
        const drawn = [0, 1].map((index) => batchOf(step * 2 + index, [...sources.subarray(index * 4, index * 4 + 4)]));
        const { chosen } = await session.step(drawn, { rate: 0.01, step, sources: table });
        const small = keep === "auto" ? [1, 2] : keep.map((one) => (one === "tiny" ? 2 : one));
        const kept = [...sources].flatMap((source, row) => (small.includes(source) ? [row] : []));
        expect(chosen?.slice(0, kept.length)).toEqual(kept.slice(0, rows));
      }
    }
    const crowded = await start({ keep_sources: [0] });
    const drawn = [batchOf(0, [0, 0, 0, 1]), batchOf(1, [0, 0, 0, 0])];
    expect((await crowded.step(drawn, { rate: 0, step: 0, sources: table })).chosen).toEqual([0, 1, 2, 4]);
  });

  test("leaves out rows that have nothing to learn, and is filled up with rows that do not count", async () => {
    const session = await start({ source_wise_selection: "none" });
    const empty = (batch: SessionBatch, kept: readonly number[]): SessionBatch => ({
      ...batch,
      weights: batch.weights.map((weight, at) => (kept.includes(Math.floor(at / length)) ? weight : 0)),
    });
    const drawn = [empty(batchOf(0), [1]), empty(batchOf(1), [0, 3])];
    const done = await session.step(drawn, { rate: 0.01, step: 0 });
    expect(new Set(done.chosen)).toEqual(new Set([1, 4, 7]));
    expect(done.logged).toEqual({ "colm.kept": 0, "colm.dropped": 5 });
    expect(Number.isFinite(done.loss)).toBe(true);
  });

  test("of rows that cannot be told apart is an ordinary one", async () => {
    const session = await start({ keep_sources: [] });
    session.bytes(probed.replace("lora_B", "lora_A")).fill(0);
    const { chosen } = await session.step(drawOf(0), { rate: 0.01, step: 0, sources: table });
    expect(chosen).toEqual([0, 1, 2, 3]);
  });

  test.each([
    { data_selection_unit: "rep", facility_similarity: "cosine" },
    { data_selection_unit: "masked_grad" },
    { data_selection_unit: "masked_grad", mezo_optim: "sgd", zo_dim: 20, mezo_topk: "half" },
    { data_selection_unit: "completion_length", facility_similarity: "euclidean" },
    { data_selection_unit: "length_loss_weighted", source_wise_selection: "balanced" },
    { probes: 3, resample: "step", mezo_selection: "weight_grad", mezo_topk: "proportional", zo_dim: 20 },
    { mezo_topk: "random", zo_dim: 7 },
    { mezo_topk: "smallest", zo_dim: 7 },
  ])("chooses as many rows by %o, the same ones again", async (settings) => {
    const [session, again] = [await start(settings), await start(settings)];
    for (let step = 0; step < 2; step++) {
      const { chosen } = await session.step(drawOf(step), { rate: 0.01, step, sources: table });
      expect(new Set(chosen).size).toBe(rows);
      expect((await again.step(drawOf(step), { rate: 0.01, step, sources: table })).chosen).toEqual(chosen);
    }
  });

  test.each([false, true])(
    "of true gradients is closer to the batch's than random rows, weighted: %s",
    async (weighted) => {
      const given = {
        data_selection_unit: "masked_grad",
        mezo_optim: "sgd",
        facility_similarity: "euclidean",
        weighted,
      };
      const settings = { ...given, source_wise_selection: "none", keep_sources: [] };
      const options = optionsOf(settings, { accumulate: 2 });
      const session = await start(settings, { accumulate: 2 });
      const gradientOf = async (batches: readonly SessionBatch[], total: number): Promise<Float64Array> => {
        const sum = new Float64Array(64);
        for (const batch of batches) {
          const { gradient } = await session.run("colm.probe", batch, { step: 0 });
          gradient?.forEach((one, k) => (sum[k]! += one / total));
        }
        return sum;
      };
      const errors = { chosen: 0, random: 0 };
      for (let step = 0; step < 20; step++) {
        const drawn = Array.from({ length: 4 }, (_, index) => clustered(step, index));
        const all = await gradientOf(drawn, 16 * length);
        const keys = [...drawUniform(step, "random", 16)].map((key, row) => ({ key, row }));
        const random = { rows: keys.sort((a, b) => a.key - b.key).slice(0, 8).map(({ row }) => row) }; // prettier-ignore
        const choices = { chosen: await chooseWith(session, options, drawn, { step }), random };
        for (const name of ["chosen", "random"] as const) {
          const { batches, total } = gathered(drawn, choices[name], options);
          const own = await gradientOf(batches, total);
          errors[name] += Math.sqrt(own.reduce((sum, one, k) => sum + (one - all[k]!) ** 2, 0));
        }
      }
      expect(errors.chosen).toBeLessThan(weighted ? 0.7 * errors.random : errors.random);
    },
  );
});

/** Rows of which three in four repeat one of two patterns. */
function clustered(step: number, index: number): SessionBatch {
  const batch = batchOf(index);
  const next = sequence(step * 7 + index + 1);
  const pattern = Array.from({ length: rows }, (_, row) =>
    row < 3 ? (row + index) % 2 : 2 + Math.floor((next() + 0.5) * 50),
  );
  const id = (at: number, shift: number): number =>
    (pattern[Math.floor(at / length)]! * 11 + ((at % length) + shift) * 5) % 67;
  return {
    ...batch,
    ids: batch.ids.map((_, at) => id(at, 0)),
    labels: batch.labels.map((_, at) => id(at, 1)),
    weights: batch.weights.fill(1),
  };
}

describe("sources", () => {
  const kept = (keep: unknown): Set<number> => keptSources(colmConfig.parse({ keep_sources: keep }), table);

  test("are kept whole below the mean, or by number and name", () => {
    expect(kept("auto")).toEqual(new Set([1, 2]));
    expect(kept(["small", 0])).toEqual(new Set([0, 1]));
    expect(keptSources(colmConfig.parse({}), { names: ["one"], counts: [5] })).toEqual(new Set());
    expect(() => kept([3])).toThrow(expect.objectContaining({ code: "colm-keep" }));
    expect(() => kept(["medium"])).toThrow(expect.objectContaining({ code: "colm-keep" }));
  });

  test("must be several where the settings choose by them", async () => {
    const check = (settings: Settings): readonly string[] | undefined =>
      optionsOf(settings).methods?.examples?.check({ names: ["one"], counts: [9] });
    const refused: unknown = expect.objectContaining({
      code: "colm-sources",
      fix: expect.stringContaining("--data") as string,
    });
    expect(() => check({ source_wise_selection: "proportional" })).toThrow(refused);
    expect(check({})?.[0]).toContain("one source");
    expect(optionsOf({}).methods?.examples?.check(table)[0]).toContain("small (kept whole)");
    const session = await start({ source_wise_selection: "balanced" });
    const drawn = [0, 1].map((index) => trainingBatch(index, 67, [rows, length]));
    await expect(session.step(drawn, { rate: 0, step: 0 })).rejects.toMatchObject({ code: "colm-sources" });
  });
});
