import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ThimbleError } from "../errors.js";
import { bf16Bits, bf16FromBits } from "../ir/dtype.js";
import { Graph } from "../ir/node.js";
import { tensor } from "../ir/tensor.js";
import { leaf } from "../ops/leaves.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { largestDifference } from "../testing/method-bench.js";
import { runOptimizer } from "../testing/optimizer-run.js";
import { clipGlobalNorm } from "./clip.js";
import { makeOptimizer } from "./registry.js";
import { roundStochastically, roundStochasticallyToHalf } from "./rounding.js";

interface Fixture {
  readonly parameter: number[];
  readonly gradients: number[][];
  readonly rules: Record<string, { values: number[][]; states: Record<string, number[]> }>;
  readonly clip: { gradients: number[][]; limit: number; norm: number; clipped: number[][] };
}

const fixture = JSON.parse(readFileSync(new URL("fixtures/optim.json", import.meta.url), "utf8")) as Fixture;

describe("five steps equal torch's", () => {
  test.each([
    ["adamw", 0.02, { id: "adamw", beta2: 0.99, weight_decay: 0.1 }, { mean: "exp_avg", square: "exp_avg_sq" }],
    ["adamw-plain", 0.02, {}, { mean: "exp_avg", square: "exp_avg_sq" }],
    ["sgd", 0.1, { id: "sgd", weight_decay: 0.05 }, {}],
    ["sgd-momentum", 0.1, { id: "sgd", momentum: 0.9, weight_decay: 0.05 }, { momentum: "momentum_buffer" }],
    ["sgd-nesterov", 0.1, { id: "sgd", momentum: 0.9, nesterov: true }, { momentum: "momentum_buffer" }],
  ])("%s", (name, rate, settings, states: Record<string, string>) => {
    const wanted = fixture.rules[name]!;
    const made = runOptimizer(makeOptimizer(settings), {
      start: fixture.parameter,
      gradients: fixture.gradients,
      rate,
    });
    made.values.forEach((values, step) => {
      expect(largestDifference(values, wanted.values[step]!), `step ${step}`).toBeLessThan(3e-7);
    });
    for (const [ours, theirs] of Object.entries(states)) {
      expect(largestDifference(made.states[ours]!, wanted.states[theirs]!), ours).toBeLessThan(1e-7);
    }
  });

  test("weight decay spares what does not decay", () => {
    const options = { start: fixture.parameter, gradients: fixture.gradients, rate: 0.02, decay: false };
    const made = runOptimizer(makeOptimizer({ weight_decay: 0.1 }), options);
    expect(largestDifference(made.values[4]!, fixture.rules["adamw-plain"]!.values[4]!)).toBeLessThan(3e-7);
  });

  test("epsilon is added after the bias correction: a first tiny gradient moves by rate g / (|g| + epsilon)", () => {
    const made = runOptimizer(makeOptimizer({}), { start: [0], gradients: [[1e-8]], rate: 1 });
    expect(made.values[0]![0]).toBeCloseTo(-0.5, 5);
  });
});

describe("clipping by the global norm", () => {
  const clip = (gradients: readonly (readonly number[])[], limit: number): number[] => {
    const graph = new Graph();
    const leaves = gradients.map((values, index) =>
      leaf(graph, { name: `g${index}`, role: "input", shape: [values.length], dtype: "f32" }),
    );
    const bound = new Map(leaves.map((node, index) => [node, tensor(node.shape, gradients[index]!)]));
    const { norm, scale } = clipGlobalNorm(leaves, limit);
    return evaluate([norm, scale], bound).map(({ data }) => data[0]!);
  };

  test("equals torch's clip_grad_norm_", () => {
    const { gradients, limit, norm, clipped } = fixture.clip;
    const [made, scale] = clip(gradients, limit);
    expect(made).toBeCloseTo(norm, 5);
    gradients.forEach((values, index) => {
      const scaled = values.map((value) => value * scale!);
      expect(largestDifference(scaled, clipped[index]!)).toBeLessThan(1e-6);
    });
  });

  test("small gradients are left alone; a NaN stays visible", () => {
    expect(clip([[0.3, 0.4]], 1)).toEqual([expect.closeTo(0.5, 6), 1]);
    expect(clip([[NaN, 1]], 1)).toEqual([NaN, NaN]);
  });
});

/** What the rounding makes of `value` under each of `draws`. */
function rounded(value: number, draws: readonly number[], round = roundStochastically): number[] {
  const graph = new Graph();
  const shape = [draws.length];
  const x = leaf(graph, { name: "x", role: "input", shape, dtype: "f32" });
  const bits = leaf(graph, { name: "bits", role: "input", shape, dtype: "u32" });
  const values = new Array<number>(draws.length).fill(value);
  const bound = new Map([
    [x, tensor(shape, values)],
    [bits, tensor(shape, draws, "u32")],
  ]);
  return [...evaluate([round(x, bits)], bound)[0]!.data];
}

describe("stochastic rounding", () => {
  const every = Array.from({ length: 65536 }, (_, draw) => (draw | 0xabcd0000) >>> 0);

  test.each([1, -1, 0, -0, 3.140625, -1e-40, 2 ** -130, 65280, Infinity, -Infinity])(
    "keeps %d, which bf16 holds",
    (value) => {
      const held = bf16FromBits(bf16Bits(value));
      expect(new Set(rounded(held, [0, 1, 32768, 65535]))).toEqual(new Set([held]));
    },
  );

  test.each([1.0009765625, -0.3, 1e-30, 12345.678])("the mean over every draw of %d is the value itself", (value) => {
    const single = Math.fround(value);
    const made = rounded(single, every);
    expect(new Set(made).size).toBe(2);
    const mean = made.reduce((sum, each) => sum + each, 0) / made.length;
    expect(Math.abs(mean / single - 1)).toBeLessThan(1e-12);
  });

  test("NaN stays NaN, also one whose payload truncation would lose", () => {
    expect(rounded(NaN, [0, 65535]).every(Number.isNaN)).toBe(true);
  });
});

describe("stochastic rounding to f16", () => {
  const every = Array.from({ length: 8192 }, (_, draw) => (draw | 0xabcd2000) >>> 0);
  const half = (value: number, draws: readonly number[]): number[] => rounded(value, draws, roundStochasticallyToHalf);

  test.each([1, -1, 0, -0, 3.140625, 65504, -65504, 2 ** -14, 2 ** -24, -5 * 2 ** -24])(
    "keeps %d, which f16 holds",
    (value) => {
      expect(new Set(half(value, [0, 1, 4096, 8191]))).toEqual(new Set([value]));
    },
  );

  test.each([1.0001, -0.3, 12345.678, 2 ** -14 + 2 ** -26, 3.3e-5, -1.1e-7])(
    "the mean over every draw of %d is the value itself",
    (value) => {
      const single = Math.fround(value);
      const made = half(single, every);
      expect(new Set(made).size).toBe(2);
      const mean = made.reduce((sum, each) => sum + each, 0) / made.length;
      // Below the normal numbers the draws are of 2^-37.
      expect(Math.abs(mean - single)).toBeLessThan(Math.max(Math.abs(single) * 1e-12, 2 ** -37));
    },
  );

  test("no number becomes infinite, and what is not finite stays so", () => {
    expect(half(65519, [8191])).toEqual([65504]);
    expect(half(1e6, [0])).toEqual([65504]);
    expect(half(Infinity, [0])).toEqual([Infinity]);
    expect(half(NaN, [5])).toEqual([NaN]);
  });
});

describe("stochastic rounding by the counter-based bits of a run", () => {
  const count = 20_000;
  const gradient = new Array<number>(count).fill(1);
  const step = (settings: Record<string, unknown>, rate: number, seed = 1) =>
    runOptimizer(makeOptimizer(settings), {
      start: new Array<number>(count).fill(1),
      gradients: [gradient],
      rate,
      seed,
      dtype: "bf16",
    });

  // Below 1, bf16 has steps of 2^-8.
  test.each([0.03, 0.25, 0.5, 0.9])("moves the mean by the step, a share of %d of a unit", (share) => {
    for (const seed of [1, 2, 3]) {
      const values = step({ id: "sgd" }, share * 2 ** -8, seed).values[0]!;
      const low = values.filter((value) => value !== 1).length / count;
      expect(new Set(values)).toEqual(new Set([1, 1 - 2 ** -8]));
      const deviation = Math.sqrt((share * (1 - share)) / count);
      expect(Math.abs(low - share)).toBeLessThan(4.5 * deviation);
    }
  });

  test("draws apart for the value and each state, from the halves of one word and from two words", () => {
    const share = 0.5;
    const made = step({ id: "adamw", states: "bf16", beta1: 1 - 0.5 * (1 + share / 128), beta2: 0.7 }, 2 ** -9);
    const up = [made.values[0]!, made.states["mean"]!, made.states["square"]!].map((values) => {
      const least = values.reduce((low, value) => Math.min(low, value), Infinity);
      return values.map((value) => (value > least ? 1 : 0));
    });
    const mean = (values: readonly number[]): number => values.reduce<number>((sum, value) => sum + value, 0) / count;
    const shares = up.map(mean);
    for (const one of shares) expect(one * (1 - one)).toBeGreaterThan(0.05);
    for (const [a, b] of [
      [0, 1],
      [0, 2],
      [1, 2],
    ] as const) {
      const both = mean(up[a]!.map((value, index) => value * up[b]![index]!));
      const [p, q] = [shares[a]!, shares[b]!];
      const correlation = (both - p * q) / Math.sqrt(p * (1 - p) * q * (1 - q));
      expect(Math.abs(correlation)).toBeLessThan(4.5 / Math.sqrt(count));
    }
  });
});

describe("how values are kept", () => {
  const steps = Array.from({ length: 100 }, () => [1, 1, 1, 1, 1, 1, 1, 1]);
  const start = new Array<number>(8).fill(1);
  const run = (settings: Record<string, unknown>) =>
    runOptimizer(makeOptimizer({ id: "sgd", ...settings }), { start, gradients: steps, rate: 2 ** -10, dtype: "bf16" });

  test("bf16 with nearest rounding loses steps below half a unit; stochastic keeps them in the mean", () => {
    expect(run({ rounding: "nearest" }).values.at(-1)).toEqual(start);
    const last = run({}).values.at(-1)!;
    const mean = last.reduce((sum, value) => sum + value, 0) / last.length;
    expect(mean).toBeGreaterThan(1 - 100 / 1024 - 0.02);
    expect(mean).toBeLessThan(1 - 100 / 1024 + 0.02);
    expect(new Set(last).size).toBeGreaterThan(1);
  });

  test("a master copy keeps every step and starts from the parameter", () => {
    const made = run({ master: true });
    expect(made.states["master"]).toEqual(new Array(8).fill(1 - 100 / 1024));
    expect(made.values.at(-1)).toEqual(new Array(8).fill(bf16FromBits(bf16Bits(1 - 100 / 1024))));
  });

  test("the seed alone decides the draws", () => {
    const optimizer = makeOptimizer({ states: "bf16" });
    const options = { start: fixture.parameter, gradients: fixture.gradients, rate: 0.02 };
    const [a, b, c] = [1, 1, 2].map((seed) => runOptimizer(optimizer, { ...options, seed }));
    expect(a).toEqual(b);
    expect(c).not.toEqual(a);
  });

  test("bf16 states are stored as bf16 and stay near the f32 ones", () => {
    const optimizer = makeOptimizer({ states: "bf16" });
    const options = { start: fixture.parameter, gradients: fixture.gradients, rate: 0.02 };
    const made = runOptimizer(optimizer, options);
    const states = [...made.states["mean"]!, ...made.states["square"]!];
    expect(states.every((value) => bf16FromBits(bf16Bits(value)) === value)).toBe(true);
    expect(largestDifference(made.values[2]!, fixture.rules["adamw-plain"]!.values[2]!)).toBeLessThan(2e-3);
    expect(optimizer.states({ shape: [12], dtype: "f32" }).map(({ dtype }) => dtype)).toEqual(["bf16", "bf16"]);
  });

  test("bits are asked for only where they are used", () => {
    const f32 = { shape: [4], dtype: "f32" } as const;
    const bf16 = { shape: [4], dtype: "bf16" } as const;
    expect(makeOptimizer({}).rounds(f32)).toBe(false);
    expect(makeOptimizer({}).rounds(bf16)).toBe(true);
    expect(makeOptimizer({ master: true }).rounds(bf16)).toBe(false);
    expect(makeOptimizer({ master: true, states: "bf16" }).rounds(bf16)).toBe(true);
    expect(makeOptimizer({ id: "sgd", states: "bf16" }).rounds(f32)).toBe(false);
    expect(makeOptimizer({ states: "bf16", rounding: "nearest" }).rounds(f32)).toBe(false);
  });
});

describe("settings", () => {
  test.each([
    [{ id: "adam" }, "optimizer-unknown", "optimizer.id", 'Did you mean "adamw"?'],
    [{ beta_1: 0.9 }, "settings-unknown", "optimizer.beta_1", 'Did you mean "beta1"?'],
    [{ id: "sgd", momentum: 1 }, "settings", "optimizer.momentum", undefined],
  ])("refuses %j", (settings, code, where, fix) => {
    let caught: unknown;
    try {
      makeOptimizer(settings);
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(ThimbleError);
    expect(caught).toMatchObject({ code, where, fix });
  });
});
