import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import { Graph } from "../ir/node.js";
import { tensor } from "../ir/tensor.js";
import { add, multiply } from "../ops/arithmetic.js";
import { iota, leaf } from "../ops/leaves.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { noise } from "../testing/c/loops.js";
import { largestDifference } from "../testing/method-bench.js";
import { runOptimizer } from "../testing/optimizer-run.js";
import { oneMinusPower } from "./age.js";
import { makeOptimizer } from "./registry.js";
import type { EntryRule, EntrySupport, Optimizer } from "./types.js";

const entriesOf = (settings: Readonly<Record<string, unknown>>): EntryRule =>
  must(makeOptimizer(settings).entries, "rule for entries");

const [rows, columns, count] = [5, 7, 9];
/** Entry k stands at 4 k + 1 of a 5 x 7 matrix. */
const placeOf = (entry: number): number => 4 * entry + 1;
const support: EntrySupport = {
  rows,
  columns,
  places: (graph: Graph) => add(multiply(iota(graph, [count], 0), 4), 1),
};
const gradientsOf = (steps: number, size = count): number[][] =>
  Array.from({ length: steps }, (_, step) => noise(size, 3 * step + 1));

describe("1 - beta to the power of an age", () => {
  test("is right to f32 for ages from 1 to where it is 1", () => {
    const ages = [1, 2, 3, 10, 100, 499, 500, 501, 1000, 7000, 1e5];
    const graph = new Graph();
    const age = leaf(graph, { name: "age", role: "input", shape: [ages.length], dtype: "f32" });
    for (const beta of [0, 0.5, 0.9, 0.999, 0.9999]) {
      const [made] = evaluate([oneMinusPower(beta, age)], new Map([[age, tensor([ages.length], ages)]]));
      ages.forEach((t, index) => {
        const meant = -Math.expm1(t * Math.log(beta));
        expect(Math.abs(made!.data[index]! / meant - 1), `${beta} ^ ${t}`).toBeLessThan(5e-7);
      });
    }
  });
});

describe("rules for entries that come and go", () => {
  const start = new Array<number>(count).fill(0);

  test.each([
    { id: "adamw", weight_decay: 2 },
    { id: "sgd", momentum: 0.9 },
  ] as const)("are the plain rule where none does, for 30 steps: %o", (settings) => {
    const options = { start, gradients: gradientsOf(30), rate: 0.01 };
    const own = runOptimizer(entriesOf(settings).rule(support), options);
    const plain = runOptimizer(makeOptimizer(settings), options);
    expect(largestDifference(own.values[29]!, plain.values[29]!)).toBeLessThan(1e-6);
    expect(largestDifference(own.values[29]!, start)).toBeGreaterThan(0.01);
  });

  test("Adam's count ages in f32 and stays exact where the moments are in bf16", () => {
    const rule = entriesOf({ id: "adamw", states: "bf16", rounding: "nearest" }).rule(support);
    expect(rule.states({ shape: [count], dtype: "f32" }).map(({ dtype }) => dtype)).toEqual(["bf16", "bf16", "f32"]);
    const { states } = runOptimizer(rule, { start, gradients: gradientsOf(300), rate: 0 });
    expect(states["age"]).toEqual(new Array(count).fill(300));
  });

  test("Adam seeds moments that a steady gradient would have left, and goes on with the age after", () => {
    const n = 6;
    const steady = noise(count, 8);
    const entries = entriesOf({ id: "adamw" });
    const graph = new Graph();
    const [sum, squares, length] = ["sum", "squares", "count"].map((name) =>
      leaf(graph, { name, role: "input", shape: name === "count" ? [] : [count], dtype: "f32" }),
    );
    const seed = entries.seed({ sum: sum!, squares: squares!, count: length! });
    const [mean, square, age] = evaluate(
      [seed["mean"]!, seed["square"]!, seed["age"]!],
      new Map([
        [
          sum!,
          tensor(
            [count],
            steady.map((g) => g * n),
          ),
        ],
        [
          squares!,
          tensor(
            [count],
            steady.map((g) => g * g * n),
          ),
        ],
        [length!, tensor([], [n])],
      ]),
    ).map((value) => [...value.data]) as [number[], number[], number[]];
    const window = runOptimizer(makeOptimizer({}), { start, gradients: new Array(n).fill(steady), rate: 0 });
    expect(largestDifference(mean, window.states["mean"]!)).toBeLessThan(1e-6);
    expect(largestDifference(square, window.states["square"]!)).toBeLessThan(1e-6);
    expect(age).toEqual(new Array(count).fill(n));
    // Of other gradients than a steady one the seed is that of their mean: within (1 - b^n) of every single one.
  });

  test("SM3's numbers are those of a dense SM3 over the active entries alone", () => {
    const steps = 12;
    const sparse = runOptimizer(entriesOf({ id: "sm3" }).rule(support), {
      start,
      gradients: gradientsOf(steps),
      rate: 0.1,
    });
    const held = { rows: new Array<number>(rows).fill(0), columns: new Array<number>(columns).fill(0) };
    const values = [...start];
    for (const gradient of gradientsOf(steps)) {
      const next = { rows: [...held.rows], columns: [...held.columns] };
      gradient.forEach((given, entry) => {
        const g = Math.fround(given);
        const [i, j] = [Math.floor(placeOf(entry) / columns), placeOf(entry) % columns];
        const sum = Math.min(held.rows[i]!, held.columns[j]!) + g * g;
        values[entry]! -= (0.1 * g) / Math.sqrt(sum + 1e-8);
        next.rows[i] = Math.max(next.rows[i]!, sum);
        next.columns[j] = Math.max(next.columns[j]!, sum);
      });
      Object.assign(held, next);
    }
    expect(largestDifference(sparse.states["rows"]!, held.rows)).toBeLessThan(1e-5);
    expect(largestDifference(sparse.states["columns"]!, held.columns)).toBeLessThan(1e-5);
    expect(largestDifference(sparse.values.at(-1)!, values)).toBeLessThan(1e-5);
  });
});

describe("SM3", () => {
  const dense = (shape: readonly number[], steps: number) =>
    runOptimizer(makeOptimizer({ id: "sm3" }), {
      start: new Array<number>(shape.reduce((a, b) => a * b, 1)).fill(0),
      gradients: gradientsOf(
        steps,
        shape.reduce((a, b) => a * b, 1),
      ),
      rate: 0.1,
      shape,
    });

  test("of a matrix keeps a number a row and a column, as algorithm SM3-II of its paper", () => {
    const [m, n, steps] = [3, 4, 8];
    const { states, values } = dense([m, n], steps);
    const [down, right] = [new Array<number>(m).fill(0), new Array<number>(n).fill(0)];
    const expected = new Array<number>(m * n).fill(0);
    for (const gradient of gradientsOf(steps, m * n)) {
      const sums = gradient.map((g, at) => Math.min(down[Math.floor(at / n)]!, right[at % n]!) + g * g);
      sums.forEach((sum, at) => (expected[at]! -= (0.1 * gradient[at]!) / Math.sqrt(sum + 1e-8)));
      for (let i = 0; i < m; i++) down[i] = Math.max(...sums.slice(i * n, (i + 1) * n));
      for (let j = 0; j < n; j++) right[j] = Math.max(...sums.filter((_, at) => at % n === j));
    }
    expect(largestDifference(states["rows"]!, down)).toBeLessThan(1e-5);
    expect(largestDifference(states["columns"]!, right)).toBeLessThan(1e-5);
    expect(largestDifference(values.at(-1)!, expected)).toBeLessThan(1e-5);
  });

  test("of a vector is Adagrad", () => {
    const { values } = dense([6], 5);
    const sums = new Array<number>(6).fill(0);
    const expected = new Array<number>(6).fill(0);
    for (const gradient of gradientsOf(5, 6)) {
      gradient.forEach((g, at) => {
        sums[at]! += g * g;
        expected[at]! -= (0.1 * g) / Math.sqrt(sums[at]! + 1e-8);
      });
    }
    expect(largestDifference(values.at(-1)!, expected)).toBeLessThan(1e-5);
  });

  test("decays weights apart from the gradient, and takes no coded states", () => {
    const rule: Optimizer = makeOptimizer({ id: "sm3", weight_decay: 0.5 });
    const { values } = runOptimizer(rule, { start: [2, -4], gradients: [[0, 0]], rate: 0.1, shape: [1, 2] });
    expect(largestDifference(values[0]!, [1.9, -3.8])).toBeLessThan(1e-6);
    expect(() => makeOptimizer({ id: "sm3", states: "8bit" })).toThrow(expect.objectContaining({ code: "settings" }));
  });
});

test("what was revised is what is stored, in the shape of the parameter, whatever the states are stored in", () => {
  const size = 5000;
  for (const states of ["f32", "bf16", "8bit", "fp8"]) {
    const base = entriesOf({ id: "adamw", states, rounding: "nearest" }).rule(support);
    const rule: Optimizer = {
      ...base,
      update: (args) =>
        base.update({
          ...args,
          revise: (made) => {
            expect(made.value.shape).toEqual([size]);
            for (const state of Object.values(made.states)) expect(state.shape).toEqual([size]);
            const { age, ...others } = made.states;
            return { value: multiply(made.value, 2), states: { ...others, age: add(must(age, "age"), 10) } };
          },
        }),
    };
    const options = { start: new Array<number>(size).fill(1), gradients: gradientsOf(1, size), rate: 0.1 };
    const [made, plain] = [runOptimizer(rule, options), runOptimizer(base, options)];
    expect(made.states["age"]).toEqual(new Array(size).fill(11));
    expect(
      largestDifference(
        made.values[0]!,
        plain.values[0]!.map((value) => 2 * value),
      ),
    ).toBeLessThan(1e-6);
  }
});
