import { describe, expect, test } from "vitest";
import { Graph } from "../ir/node.js";
import type { Node } from "../ir/node.js";
import type { Shape } from "../ir/shape.js";
import type { Tensor } from "../ir/tensor.js";
import { tensor } from "../ir/tensor.js";
import { drawNormal, drawUniform } from "../methods/initial.js";
import { leaf } from "../ops/leaves.js";
import { e4m3, float8Value } from "../storage/float8.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { CompiledLoops } from "../testing/c/loops.js";
import { largestDifference } from "../testing/method-bench.js";
import { runOptimizer } from "../testing/optimizer-run.js";
import type { Float8Settings } from "./float8-states.js";
import { Float8States } from "./float8-states.js";
import { makeOptimizer } from "./registry.js";

const usual: Float8Settings = { expansion: true, powerSteps: 16, statistics: "f32" };
const state = { name: "state", signed: true };

interface Quantised {
  readonly codes: readonly number[];
  readonly scale: readonly number[];
  readonly power: readonly number[];
  readonly centre: readonly number[];
  readonly decoded: readonly number[];
}

/** What states of so many values are stored as, and what is read of them; compiled, where asked. */
function quantiser(
  count: number,
  settings: Partial<Float8Settings> = {},
  compiled = false,
): (given: readonly number[]) => Quantised {
  const graph = new Graph();
  const coder = new Float8States([count], { ...usual, ...settings });
  const input = leaf(graph, { name: "values", role: "input", shape: [count], dtype: "f32" });
  const stored = coder.encode(state, coder.of(input));
  const leaves = coder
    .specs(state)
    .map((spec) => leaf(graph, { name: spec.name, role: "state", shape: spec.shape, dtype: spec.dtype }));
  const nameOf = (node: Node): string => String(node.attributes["name"]);
  const read = coder.back(coder.decode(state, Object.fromEntries(leaves.map((node) => [nameOf(node), node]))));
  const kernels = [
    ...leaves.map((node) => ({ inputs: [input], outputs: [stored[nameOf(node)]!] })),
    { inputs: leaves, outputs: [read] },
  ];
  const loops = compiled ? new CompiledLoops(kernels) : undefined;
  const run = (index: number, bound: ReadonlyMap<Node, Tensor>): Tensor =>
    loops === undefined ? evaluate(kernels[index]!.outputs, bound)[0]! : loops.evaluate(index, bound)[0]!;
  return (given) => {
    const bound = new Map([[input, tensor([count], given)]]);
    const made = new Map(leaves.map((node, index) => [node, run(index, bound)]));
    const of = (name: string): readonly number[] => [...(made.get(leaves.find((node) => nameOf(node) === name) ?? input)?.data ?? [])]; // prettier-ignore
    return {
      codes: of("state"),
      scale: of("state_scale"),
      power: of("state_power"),
      centre: of("state_centre"),
      decoded: [...run(leaves.length, made).data],
    };
  };
}

const quantise = (given: readonly number[], settings: Partial<Float8Settings> = {}, compiled = false): Quantised =>
  quantiser(given.length, settings, compiled)(given);

/** Groups of 128 whose magnitudes span 2 to `octaves`. */
const spread = (octaves: number, groups = 4): number[] =>
  [...drawNormal(octaves + 1, "sign", groups * 128)].map((value, at) =>
    Math.fround(Math.sign(value) * 1e-4 * 2 ** (octaves * drawUniform(octaves + 7, "size", groups * 128)[at]!)),
  );

describe("states in FP8", () => {
  for (const compiled of [false, true]) {
    test(`come back within 1.08 of half a step over the power (${compiled ? "compiled" : "interpreter"})`, () => {
      const quantised = quantiser(512, {}, compiled);
      for (const octaves of [0.5, 3, 10, 16, 24, 33]) {
        const given = spread(octaves);
        const { codes, power, decoded } = quantised(given);
        const checked = given.filter((value, at) => {
          const k = power[at >> 7]!;
          if (k < 0.5 || (codes[at]! & 127) < 8) return false;
          expect(Math.abs(decoded[at]! - value) / Math.abs(value)).toBeLessThanOrEqual((1.08 * 2 ** -4) / k);
          return true;
        });
        expect(checked.length).toBeGreaterThan(400);
        expect(decoded.map(Math.sign)).toEqual(given.map(Math.sign));
        // Whole multiples of 1/16, as large as the span allows.
        for (const k of power) expect(k * 16).toBe(Math.round(k * 16));
        expect(power[0]).toBeCloseTo(Math.min(8, 16.61 / octaves), octaves < 10 ? -0.5 : 0.5);
      }
    });
  }

  test("use the whole range of the format: the largest of a group has the largest code, the smallest the least", () => {
    const { codes } = quantise(spread(4));
    const sizes = codes.map((code) => float8Value(e4m3, code & 127));
    expect(Math.max(...sizes.slice(0, 128))).toBe(448);
    expect(Math.min(...sizes.slice(0, 128))).toBeLessThan(0.02);
    expect(Math.min(...quantise(spread(4), { expansion: false }).codes.map((code) => float8Value(e4m3, code & 127)))).toBeGreaterThan(20); // prettier-ignore
  });

  test.each([true, false])("are finite for groups without a span, and keep zeros (compiled: %s)", (compiled) => {
    const zeros = new Array<number>(128).fill(0);
    const one = [0, 0, -3e-5, ...zeros.slice(3)];
    const equal = zeros.map((_, at) => (at % 2 === 0 ? 0.7 : -0.7));
    const wide = zeros.map((_, at) => (at === 5 ? 0 : 10 ** (-28 + at / 2)));
    const given = [...zeros, ...one, ...equal, ...wide, 0.25];
    const { codes, scale, power, centre, decoded } = quantise(given, {}, compiled);
    expect([scale[0], power[0], centre[0], ...new Set(codes.slice(0, 128))]).toEqual([0, 1, 1, 0]);
    expect(power.slice(1)).toEqual([8, 8, expect.closeTo(0.0625, 3), 8]);
    given.forEach((value, at) => {
      if (value === 0) expect(decoded[at]).toBe(0);
      else expect(Math.sign(decoded[at]!)).toBe(Math.sign(value));
      if (value !== 0 && at < 384) expect(decoded[at]! / value).toBeCloseTo(1, 5);
    });
    expect(decoded.at(-1)).toBeCloseTo(0.25, 5);
    expect([...scale, ...power, ...centre, ...decoded].every(Number.isFinite)).toBe(true);
  });

  test("take other steps of the power, bf16 statistics, or none but the scale", () => {
    const given = spread(4);
    const error = (settings: Partial<Float8Settings>): number =>
      Math.sqrt(quantise(given, settings).decoded.reduce((sum, x, at) => sum + (x / given[at]! - 1) ** 2, 0) / given.length); // prettier-ignore
    expect(quantise(given, { powerSteps: 2 }).power.map((k) => k % 0.5)).toEqual([0, 0, 0, 0]);
    const [both, narrow, none] = [{}, { statistics: "bf16" as const }, { expansion: false }].map(error); // prettier-ignore
    expect(narrow!).toBeLessThan(1.1 * both!);
    expect(none!).toBeGreaterThan(1.4 * both!);
    expect(quantise(given, { statistics: "bf16" }).scale.every((s) => (new Uint32Array(Float32Array.of(s).buffer)[0]! & 0xffff) === 0)).toBe(true); // prettier-ignore
  });

  test("take 2.1875 bytes an element of two moments, and one short group a tensor at most", () => {
    const bytes = (shape: Shape, settings: Record<string, unknown> = {}): number =>
      makeOptimizer({ id: "adamw", states: "fp8", ...settings })
        .states({ shape, dtype: "f32" })
        .reduce((sum, { dtype, shape: [count = 0] }) => sum + count * { u8: 1, f32: 4, bf16: 2 }[dtype as "u8"], 0);
    expect(bytes([256, 4096])).toBe(2.1875 * 256 * 4096);
    expect(bytes([256, 4096], { state_statistics: "bf16" })).toBe(2.09375 * 256 * 4096);
    expect(bytes([256, 4096], { state_expansion: false })).toBe(2.0625 * 256 * 4096);
    expect((8 * 256 * 4096) / bytes([256, 4096])).toBeCloseTo(3.657, 3);
    expect(bytes([5, 77])).toBe(2 * 385 + 2 * 12 * 4);
    expect(bytes([3])).toBe(6 + 24);
  });

  test("refuse statistics that are those of another parameter", () => {
    const graph = new Graph();
    const coder = new Float8States([300], usual);
    const wrong = new Float8States([200], usual).specs(state).map(
      (spec, index) =>
      leaf(graph, { name: spec.name, role: "state", shape: index === 0 ? [300] : spec.shape, dtype: spec.dtype }), // prettier-ignore
    );
    const states = Object.fromEntries(wrong.map((node) => [String(node.attributes["name"]), node]));
    expect(() => coder.decode(state, states)).toThrow(expect.objectContaining({ code: "optimizer-state-groups" }));
  });

  test("cannot be made of states in 8 bits", () => {
    const settings = { states: "fp8", state_expansion: true, state_power_steps: 16, state_statistics: "f32" } as const;
    expect(() => makeOptimizer({ states: "8bit" }).withStates(settings)).toThrow(
      expect.objectContaining({ code: "optimizer-states" }),
    );
    expect(() => makeOptimizer({ beta2: 1 })).toThrow(expect.objectContaining({ code: "settings" }));
  });
});

const values = (count: number, seed: number): number[] => [...drawNormal(seed, "values", count)].map(Math.fround);

describe("AdamW with states in FP8", () => {
  const adamw = (settings: Record<string, unknown>) =>
    makeOptimizer({ id: "adamw", weight_decay: 0.1, beta2: 0.95, ...settings });

  test("takes the first step of f32 states", () => {
    const gradients = [values(300, 2).map((x, at) => x * 10 ** -(at % 7))];
    const run = (states: string) =>
      runOptimizer(adamw({ states }), { start: values(300, 1), gradients, rate: 0.01, shape: [3, 100] }).values[0]!;
    expect(largestDifference(run("fp8"), run("f32"))).toBeLessThan(1e-6);
  });

  test("moves by the moments before they are coded, later on too", () => {
    const gradients = [values(128, 2), values(128, 3)];
    const two = runOptimizer(adamw({ states: "fp8" }), { start: values(128, 1), gradients, rate: 0.01 });
    const one = runOptimizer(adamw({ states: "fp8" }), { start: values(128, 1), gradients: gradients.slice(0, 1), rate: 0.01 }); // prettier-ignore
    const decode = (name: "mean" | "square"): number[] =>
      one.states[name]!.map((code, at) => {
        const [s, k, c] = ["scale", "power", "centre"].map((part) => one.states[`${name}_${part}`]![at >> 7]!);
        const q = float8Value(e4m3, code);
        return Math.sign(q) * (Math.abs(q) * s!) ** (1 / k!) * c!;
      });
    const [mean, square] = [decode("mean"), decode("square")];
    two.values[1]!.forEach((value, at) => {
      const g = gradients[1]![at]!;
      const m = 0.9 * mean[at]! + 0.1 * g;
      const v = 0.95 * square[at]! + 0.05 * g * g;
      const denominator = (Math.sqrt(v) / Math.sqrt(1 - 0.95 ** 2) + 1e-8) * (1 - 0.9 ** 2);
      const before = two.values[0]![at]!;
      expect(value).toBeCloseTo(before - 0.01 * (m / denominator + 0.1 * before), 5);
    });
  });

  test("keeps where the gradient is no number", () => {
    const gradients = [values(200, 2), values(200, 3).map((x, at) => (at % 50 === 0 ? NaN : at % 50 === 1 ? Infinity : x))]; // prettier-ignore
    const run = runOptimizer(adamw({ states: "fp8" }), { start: values(200, 1), gradients, rate: 0.01 });
    for (const at of [0, 1, 50, 51, 150, 151]) expect(run.values[1]![at]).toBe(run.values[0]![at]);
    expect(run.values[1]!.every(Number.isFinite)).toBe(true);
    expect(Object.values(run.states).flat().every(Number.isFinite)).toBe(true);
  });

  test("SGD's momentum as well", () => {
    const gradients = Array.from({ length: 6 }, (_, step) => values(300, 2 + step));
    const run = (states: string) =>
      runOptimizer(makeOptimizer({ id: "sgd", momentum: 0.9, states }), { start: values(300, 1), gradients, rate: 0.01 }).values[5]!; // prettier-ignore
    const [full, coded] = [run("f32"), run("fp8")];
    const moved = full.map((value, at) => value - values(300, 1)[at]!);
    const off = coded.map((value, at) => value - full[at]!);
    expect(Math.hypot(...off) / Math.hypot(...moved)).toBeLessThan(0.03);
    expect(Math.hypot(...off)).toBeGreaterThan(0);
  });
});
