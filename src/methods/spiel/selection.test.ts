/** Whole steps against a transcription of the method's equations on dense gradients. */
import { describe, expect, test } from "vitest";
import { must } from "../../errors.js";
import { weightOf } from "../../models/parameters.js";
import type { LinearSpec } from "../../models/types.js";
import { openSession } from "../../session/open.js";
import type { RunningSession } from "../../session/session.js";
import type { SessionBatch } from "../../session/types.js";
import { largestDifference } from "../../testing/method-bench.js";
import { randomWeights, trainedModel, trainingBatch, trainingOptions } from "../../testing/method-training.js";
import { sequence } from "../../testing/tiny.js";

const layers = trainedModel.linears.filter(({ role }) => role === "query" || role === "down");
const target_modules = ["q_proj", "down_proj"];

const floats = (session: RunningSession, name: string): Float32Array => {
  const bytes = session.bytes(name);
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
};
const integers = (session: RunningSession, name: string): number[] => [
  ...new Int32Array(session.bytes(name).slice().buffer),
];

/** What one layer holds between steps. */
interface Held {
  readonly places: number[];
  readonly values: number[];
  readonly mean: number[];
  readonly square: number[];
  readonly age: number[];
}

function held(session: RunningSession, { path }: LinearSpec): Held {
  const of = (name: string): number[] => [...floats(session, `${path}.spiel_delta${name}`)];
  return {
    places: integers(session, `${path}.spiel_indices`),
    values: of(""),
    mean: of(".adamw.mean"),
    square: of(".adamw.square"),
    age: of(".adamw.age"),
  };
}

/** A run of the method beside a session that gives dense gradients at the weights that the run has. */
class Bench {
  private constructor(
    readonly own: RunningSession,
    private readonly dense: RunningSession,
    private readonly base: ReadonlyMap<string, Float32Array>,
  ) {}

  static async open(settings: Record<string, unknown>, accumulate = 1, optimizer = {}): Promise<Bench> {
    const selection = [{ id: "spiel", settings: { target_modules, num_tunable_weights: 500, ...settings } }];
    const own = await openSession(
      trainingOptions({ selection, optimizer, session: { accumulate, evaluate: false, threads: 1 } }),
    );
    const full = trainingOptions({
      selection: [{ id: "full", settings: {} }],
      optimizer: { id: "sgd" },
      session: { evaluate: false, threads: 1 },
    });
    const dense = await openSession(full);
    await own.load(randomWeights(trainedModel));
    await dense.load(randomWeights(trainedModel));
    const names = trainedModel.parameters.map(({ name }) => name);
    return new Bench(own, dense, new Map(names.map((name) => [name, floats(dense, name).slice()])));
  }

  close(): void {
    this.own.close();
    this.dense.close();
  }

  /** The gradients of the layers' weights at what the run has now, by path; `share` of the step's loss. */
  async gradients(batch: SessionBatch, share = 1): Promise<Map<string, number[]>> {
    for (const [name, values] of this.base) floats(this.dense, name).set(values);
    for (const spec of layers) {
      const weight = floats(this.dense, weightOf(spec).name);
      const { places, values } = held(this.own, spec);
      places.forEach((place, entry) => (weight[place]! += values[entry]!));
    }
    const before = new Map(layers.map((spec) => [spec.path, floats(this.dense, weightOf(spec).name).slice()]));
    const rate = 1000;
    await this.dense.step([batch], { rate, step: 0 });
    return new Map(
      layers.map((spec) => {
        const after = floats(this.dense, weightOf(spec).name);
        const first = must(before.get(spec.path), spec.path);
        return [spec.path, Array.from(first, (value, place) => ((value - after[place]!) / rate) * share)];
      }),
    );
  }
}

/** Numbers of values by magnitude, the largest (or the smallest) first, equal ones in their order. */
const byMagnitude = (values: readonly number[], sign: 1 | -1 = 1): number[] =>
  [...values.keys()].sort((a, b) => sign * (Math.abs(values[b]!) - Math.abs(values[a]!)) || a - b);

/** Section "Growth AG" of the method's description, on whole gradients: what the layer holds after a selection. */
function selected(before: Held, window: readonly (readonly number[])[], candidates: readonly number[], limit: number) {
  const n = window.length;
  const sums = candidates.map((place) => window.reduce((sum, gradient) => sum + gradient[place]!, 0));
  const squares = candidates.map((place) => window.reduce((sum, gradient) => sum + gradient[place]! ** 2, 0));
  const out = byMagnitude(before.values, -1).slice(0, limit);
  const outPlaces = new Set(out.map((slot) => before.places[slot]!));
  const active = new Set(before.places);
  const eligible = byMagnitude(sums).filter((one) => !active.has(candidates[one]!) || outPlaces.has(candidates[one]!));
  const incoming = eligible.slice(0, limit);
  const inPlaces = new Set(incoming.map((one) => candidates[one]!));
  const free = out.filter((slot) => !inPlaces.has(before.places[slot]!));
  const fresh = incoming.filter((one) => !active.has(candidates[one]!));
  const after = structuredClone(before);
  fresh.forEach((one, index) => {
    const slot = free[index]!;
    after.places[slot] = candidates[one]!;
    after.values[slot] = 0;
    after.age[slot] = n;
    after.mean[slot] = (sums[one]! / n) * (1 - 0.9 ** n);
    after.square[slot] = (squares[one]! / n) * (1 - 0.999 ** n);
  });
  return { after, fresh: fresh.length, stayed: incoming.length - fresh.length, dropped: sums.length - eligible.length };
}

describe("a selection of SpIEL by gradients (AG)", () => {
  for (const accumulate of [1, 2]) {
    test(`is that of dense gradients, with ${accumulate} micro-batches a step`, async () => {
      const settings = { reselection_steps: 5, selection_accumulation_steps: 2, initial_reselection_rate: 0.6 };
      const bench = await Bench.open({ ...settings, total_steps: 100 }, accumulate);
      try {
        const windows = new Map(layers.map(({ path }) => [path, [] as number[][]]));
        const candidates = new Map<string, number[]>();
        const random = sequence(5);
        /** One step at rate 0, whose gradients are noted; the update's own part is done on what was there before. */
        const step = async (number: number, opens: boolean): Promise<void> => {
          const batches = Array.from({ length: accumulate }, (_, micro) => trainingBatch(number * accumulate + micro));
          const parts: Map<string, number[]>[] = [];
          for (const batch of batches) parts.push(await bench.gradients(batch, 1 / accumulate));
          for (const spec of layers) {
            const own = parts.map((part) => part.get(spec.path)!);
            const whole = own[0]!.map((_, place) => own.reduce((sum, part) => sum + part[place]!, 0));
            const { places } = held(bench.own, spec);
            if (opens) {
              candidates.set(spec.path, byMagnitude(own[0]!).slice(0, places.length));
              windows.set(spec.path, []);
            }
            windows.get(spec.path)!.push(whole);
          }
          await bench.own.step(batches, { rate: 0, step: number });
        };
        const check = async (number: number, share: number): Promise<Record<string, number>> => {
          const snapshots = new Map(layers.map((spec) => [spec, held(bench.own, spec)]));
          await step(number, false);
          const totals = { fresh: 0, stayed: 0, dropped: 0 };
          for (const [spec, before] of snapshots) {
            const gradient = windows.get(spec.path)!.at(-1)!;
            before.places.forEach((place, slot) => {
              before.mean[slot]! += 0.1 * (gradient[place]! - before.mean[slot]!);
              before.square[slot] = 0.999 * before.square[slot]! + 0.001 * gradient[place]! ** 2;
              before.age[slot]! += 1;
            });
            const limit = Math.floor(share * before.places.length);
            const meant = selected(before, windows.get(spec.path)!, candidates.get(spec.path)!, limit);
            const made = held(bench.own, spec);
            expect(new Set(made.places).size).toBe(before.places.length);
            expect(made.places).toEqual(meant.after.places);
            expect(made.values).toEqual(meant.after.values);
            expect(made.age).toEqual(meant.after.age);
            expect(largestDifference(made.mean, meant.after.mean)).toBeLessThan(1e-6);
            expect(largestDifference(made.square, meant.after.square)).toBeLessThan(1e-6);
            for (const key of ["fresh", "stayed", "dropped"] as const) totals[key] += meant[key];
          }
          return totals;
        };
        await step(0, true);
        // Everything may go: what is left is the set of candidates.
        expect((await check(1, 1))["fresh"]).toBeGreaterThan(100);
        for (const spec of layers) {
          expect(new Set(held(bench.own, spec).places)).toEqual(new Set(candidates.get(spec.path)));
          const values = floats(bench.own, `${spec.path}.spiel_delta`);
          values.forEach((_, entry) => (values[entry] = 0.1 * random()));
        }
        await step(2, false);
        await step(3, false);
        await step(4, true);
        await step(5, false);
        const later = await check(6, 0.6 * (1 - 7 / 100));
        expect(later["fresh"]).toBeGreaterThan(20);
        expect(later["stayed"]).toBeGreaterThan(10);
        expect(later["dropped"]).toBeGreaterThan(10);
      } finally {
        bench.close();
      }
    });
  }
});

test("a fixed support trains as dense Adam with a mask, for 30 steps", async () => {
  const bench = await Bench.open({ selection_algorithm: "none" }, 1, { epsilon: 1e-4, weight_decay: 3 });
  try {
    const states = new Map(layers.map((spec) => [spec, held(bench.own, spec)]));
    for (let step = 0; step < 30; step++) {
      const batch = trainingBatch(step);
      const dense = await bench.gradients(batch);
      await bench.own.step([batch], { rate: 1e-3, step });
      for (const [spec, state] of states) {
        const gradient = must(dense.get(spec.path), spec.path);
        state.places.forEach((place, slot) => {
          const g = gradient[place]!;
          state.mean[slot] = 0.9 * state.mean[slot]! + 0.1 * g;
          state.square[slot] = 0.999 * state.square[slot]! + 0.001 * g * g;
          const [m, v] = [state.mean[slot] / (1 - 0.9 ** (step + 1)), state.square[slot] / (1 - 0.999 ** (step + 1))];
          state.values[slot] = state.values[slot]! * (1 - 3e-3) - (1e-3 * m) / (Math.sqrt(v) + 1e-4);
        });
      }
    }
    for (const [spec, state] of states) {
      const made = held(bench.own, spec);
      expect(made.places).toEqual(state.places);
      expect(largestDifference(made.values, state.values)).toBeLessThan(1e-6);
      expect(largestDifference(made.values, new Array(made.values.length).fill(0))).toBeGreaterThan(5e-3);
    }
  } finally {
    bench.close();
  }
});

describe("a selection of SpIEL by moments (MA)", () => {
  test("takes the largest products of rows and columns that are not active", async () => {
    const settings = {
      selection_algorithm: "sm3",
      reselection_steps: 3,
      selection_accumulation_steps: 1,
      total_steps: 50,
    };
    const bench = await Bench.open({ ...settings, initial_reselection_rate: 0.4 }, 1, { id: "sm3" });
    const sm3 = ({ path }: LinearSpec, name: string): Float32Array =>
      floats(bench.own, `${path}.spiel_delta.sm3.${name}`);
    try {
      for (const [step, share] of [0, 1, 2, 3].map((one) => [
        one,
        one === 0 ? 1 : one === 3 ? 0.4 * (1 - 4 / 50) : 0,
      ])) {
        const before = new Map(layers.map((spec) => [spec, integers(bench.own, `${spec.path}.spiel_indices`)]));
        await bench.own.step([trainingBatch(step!)], { rate: 1e-3, step: step! });
        for (const [spec, places] of before) {
          const [rows, columns] = [sm3(spec, "rows"), sm3(spec, "columns")];
          const made = integers(bench.own, `${spec.path}.spiel_indices`);
          const active = new Set(places);
          const scores = Array.from({ length: rows.length * columns.length }, (_, place) => ({
            place,
            score: Math.fround(rows[Math.floor(place / columns.length)]! * columns[place % columns.length]!),
          })).filter(({ place, score }) => score > 0 && !active.has(place));
          const limit = Math.floor(share! * places.length);
          const best = scores.sort((a, b) => b.score - a.score).slice(0, limit);
          const grown = made.filter((place) => !active.has(place));
          expect(new Set(made).size).toBe(places.length);
          expect(grown).toHaveLength(limit);
          expect(new Set(grown)).toEqual(new Set(best.map(({ place }) => place)));
          const values = floats(bench.own, `${spec.path}.spiel_delta`);
          made.forEach((place, slot) => {
            if (!active.has(place)) expect(values[slot]).toBe(0);
          });
        }
      }
    } finally {
      bench.close();
    }
  });
});
