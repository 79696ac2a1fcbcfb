import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { Graph } from "../ir/node.js";
import { drawNormal } from "../methods/initial.js";
import { tensor } from "../ir/tensor.js";
import { add, multiply, subtract } from "../ops/arithmetic.js";
import { leaf } from "../ops/leaves.js";
import { dynamicLevels, unsignedDynamicLevels } from "../storage/dynamic-map.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { noise } from "../testing/c/loops.js";
import { largestDifference } from "../testing/method-bench.js";
import type { OptimizerRun } from "../testing/optimizer-run.js";
import { runOptimizer } from "../testing/optimizer-run.js";
import { Blocks, eightBitStates } from "./eight-bit.js";
import { makeOptimizer } from "./registry.js";

type Stored = Record<"value" | "mean" | "square" | "mean_scale" | "square_scale", string>;

const fixture = JSON.parse(readFileSync(new URL("fixtures/eight-bit.json", import.meta.url), "utf8")) as {
  unsigned: string;
  codes: { map: string; count: number; codes: string; absmax: string }[];
  library: Stored;
  page: Stored;
};
const bytes = (text: string): number[] => [...Buffer.from(text, "base64")];
const floats = (text: string): Float32Array => new Float32Array(Uint8Array.from(bytes(text)).buffer);

/** The numbers that the fixture was made of. */
function values(count: number, seed: number): number[] {
  let state = seed;
  const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0);
  return Array.from({ length: count }, (_, index) => {
    const uniform = next() / 2 ** 31 - 1;
    const second = next();
    const tiny = second % 5 === 0 ? 1e-5 : 1;
    return second % 29 === 0 ? 0 : Math.fround(uniform ** 3 * (1 + (Math.floor(index / 96) % 7)) * tiny);
  });
}

interface Quantised {
  readonly codes: number[];
  readonly scales: Float32Array;
  readonly decoded: Float32Array;
}

/** What a state of these values is stored as, and what is read of it. */
function quantise(given: readonly number[], signed: boolean): Quantised {
  const graph = new Graph();
  const state = { name: "state", signed };
  const shape = [given.length];
  const blocks = new Blocks(shape);
  const input = leaf(graph, { name: "values", role: "input", shape, dtype: "f32" });
  const made = blocks.encode(state, blocks.of(input));
  const [codes, scales] = evaluate([made["state"]!, made["state_scale"]!], new Map([[input, tensor(shape, given)]]));
  const stored = eightBitStates(state, shape).map((spec) =>
    leaf(graph, { name: spec.name, role: "state", shape: spec.shape, dtype: spec.dtype }),
  );
  const read = blocks.back(blocks.decode(state, { state: stored[0]!, state_scale: stored[1]! }));
  const bound = new Map([
    [stored[0]!, codes!],
    [stored[1]!, scales!],
  ]);
  const [decoded] = evaluate([read], bound);
  return {
    codes: [...codes!.data],
    scales: Float32Array.from(scales!.data),
    decoded: Float32Array.from(decoded!.data),
  };
}

const largest = (list: ArrayLike<number>): number =>
  Array.from(list).reduce((most, x) => Math.max(most, Math.abs(x)), 0);

describe("8-bit states", () => {
  test("have 256 strictly increasing levels, those of bitsandbytes", () => {
    for (const levels of [dynamicLevels, unsignedDynamicLevels]) {
      expect(levels).toHaveLength(256);
      expect(levels.every((level, code) => code === 0 || level > levels[code - 1]!)).toBe(true);
    }
    expect(Float32Array.from(unsignedDynamicLevels)).toEqual(floats(fixture.unsigned));
    expect([0, 127, 128, 255].map((code) => dynamicLevels[code])).toEqual(
      [-0.99296875, 0, 5.5e-7, 1].map((level) => expect.closeTo(level, 7) as number),
    );
    expect([0, 1, 254, 255].map((code) => unsignedDynamicLevels[code])).toEqual(
      [0, 3.25e-7, 0.996484375, 1].map((level) => expect.closeTo(level, 7) as number),
    );
  });

  test.each(fixture.codes)(
    "of $count values by the $map map are bitsandbytes' bytes",
    ({ map, count, codes, absmax }) => {
      const given = values(count, count);
      const made = quantise(map === "signed" ? given : given.map(Math.abs), map === "signed");
      expect(made.codes).toEqual(bytes(codes));
      expect(made.scales).toEqual(floats(absmax));
    },
  );

  test.each([true, false])("take the nearest level, of every level and midpoint (signed: %s)", (signed) => {
    const levels = signed ? dynamicLevels : unsignedDynamicLevels;
    const between = levels
      .slice(1)
      .flatMap((level, code) => [0.499, 0.501].map((t) => levels[code]! + t * (level - levels[code]!)));
    const given = [...levels, ...between].flatMap((value, index) => (index % 255 === 0 ? [1, value] : [value]));
    const { decoded } = quantise(given, signed);
    given.forEach((value, index) => {
      const distance = Math.min(...levels.map((level) => Math.abs(level - value)));
      const guard = signed && value < 0 && value > dynamicLevels[126]! ? 6e-7 : 1e-12;
      expect(Math.abs(decoded[index]! - value), String(value)).toBeLessThanOrEqual(distance * (1 + 1e-5) + guard);
    });
  });

  test("have the errors of their maps: the largest, and the mean on normal blocks", () => {
    const normal = [...drawNormal(3, "states", 16384)];
    const blocks = Array.from({ length: 64 }, (_, block) => largest(normal.slice(block * 256, block * 256 + 256)));
    for (const [signed, bound] of [
      [true, 0.0071],
      [false, 0.0036],
    ] as const) {
      const given = signed ? normal : normal.map(Math.abs);
      const { decoded } = quantise(given, signed);
      const squares = (of: (index: number) => number): number =>
        given.reduce((sum, _, index) => sum + of(index) ** 2, 0);
      const mean = Math.sqrt(squares((index) => decoded[index]! - given[index]!) / squares((index) => given[index]!));
      expect(mean).toBeCloseTo(signed ? 0.011 : 0.0055, 3);
      given.forEach((value, index) => {
        const error = Math.abs(decoded[index]! - Math.fround(value)) / blocks[index >> 8]!;
        expect(error).toBeLessThanOrEqual(bound);
      });
    }
  });

  test("keep the sign of a negative number, and zeros", () => {
    const given = [1, -1e-12, 1e-12, 0, ...new Array<number>(252).fill(-0.5), ...new Array<number>(256).fill(0)];
    const { codes, scales } = quantise(given, true);
    expect(codes.slice(0, 4)).toEqual([255, 126, 127, 127]);
    expect(codes.slice(256)).toEqual(new Array<number>(256).fill(127));
    expect([...scales]).toEqual([1, 0]);
  });
});

describe("ten steps of AdamW with 8-bit states", () => {
  const count = 4500;
  const run = (gradientAt: (step: number) => number[]): OptimizerRun =>
    runOptimizer(makeOptimizer({ id: "adamw", states: "8bit", weight_decay: 0.1 }), {
      start: values(count, 1),
      gradients: Array.from({ length: 10 }, (_, step) => gradientAt(step)),
      rate: 0.01,
      shape: [45, 100],
    });

  test("are those of bitsandbytes' rule with midpoints and the guard of signs", () => {
    const made = run((step) => values(count, 101 + step));
    for (const name of ["mean", "square"] as const) {
      const wanted = bytes(fixture.page[name]);
      const others = made.states[name]!.filter((code, index) => code !== wanted[index]);
      // Sums in another order of rounding: a value at a midpoint may fall on the other side.
      expect(others.length).toBeLessThan(count / 500);
      expect(largestDifference(made.states[`${name}_scale`]!, floats(fixture.page[`${name}_scale`]))).toBeLessThan(
        1e-6,
      );
    }
    expect(largestDifference(made.values[9]!, floats(fixture.page.value))).toBeLessThan(1e-3);
  });

  test("stay beside its CPU kernel, whose grid rounds some codes to a neighbour", () => {
    const made = run((step) =>
      values(count, 101 + step).map((x) => (x < 0 ? -1 : 1) * (Math.min(1, Math.abs(x)) + 0.5)),
    );
    const wanted = floats(fixture.library.value);
    const differences = made.values[9]!.map((value, index) => Math.abs(value - wanted[index]!));
    // Of a path of 0.1.
    expect(differences.reduce((sum, one) => sum + one, 0) / count).toBeLessThan(1e-5);
    expect(Math.max(...differences)).toBeLessThan(3e-3);
    const theirs = bytes(fixture.library.square);
    const neighbours = made.states["square"]!.map((code, index) => Math.abs(code - theirs[index]!));
    expect(Math.max(...neighbours)).toBeLessThanOrEqual(1);
  });
});

test("tensors below 4096 elements keep f32 states, larger ones take 2 + 8 / 256 bytes an element", () => {
  const states = (count: number): [string, string, number][] =>
    makeOptimizer({ id: "adamw", states: "8bit" })
      .states({ shape: [count], dtype: "f32" })
      .map(({ name, dtype, shape }) => [name, dtype, shape[0]!]);
  expect(states(4095).map(([, dtype]) => dtype)).toEqual(["f32", "f32"]);
  expect(states(65536)).toEqual([
    ["mean", "u8", 65536],
    ["mean_scale", "f32", 256],
    ["square", "u8", 65536],
    ["square_scale", "f32", 256],
  ]);
});

test.each([4096, 4500])(
  "where the gradient is not finite, states become 0 and the parameter stays (%i elements)",
  (count) => {
    const gradients = [
      values(count, 5),
      values(count, 6).map((x, index) => (index % 50 === 0 ? Infinity : index % 50 === 1 ? NaN : x)),
    ];
    const run = runOptimizer(makeOptimizer({ id: "adamw", states: "8bit", weight_decay: 0.1 }), {
      start: values(count, 1),
      gradients,
      rate: 0.01,
    });
    for (let index = 0; index < count; index += 50) {
      for (const place of [index, index + 1]) {
        expect(run.values[1]![place]).toBe(run.values[0]![place]);
        expect([run.states["mean"]![place], run.states["square"]![place]]).toEqual([127, 0]);
      }
    }
    expect(run.values[1]!.every(Number.isFinite)).toBe(true);
    expect(run.values[1]![2]).not.toBe(run.values[0]![2]);
  },
);

test("a noisy quadratic ends within 2 % of the loss with f32 states", () => {
  const count = 4096;
  const shape = [count];
  const graph = new Graph();
  const input = (name: string, at: number[] = shape) => leaf(graph, { name, role: "input", shape: at, dtype: "f32" });
  const [parameter, noisy, rate, correction1, correction2] = [
    input("p"),
    input("noise"),
    ...["r", "a", "b"].map((name) => input(name, [])),
  ];
  const target = input("target");
  const gradient = add(subtract(parameter, target), multiply(noisy, 0.3));
  const noises = Array.from({ length: 20 }, (_, index) => tensor(shape, noise(count, 40 + index)));
  const loss = (states: string): number => {
    const rule = makeOptimizer({ id: "adamw", states });
    const leaves = rule.states({ shape, dtype: "f32" }).map((spec) => ({
      spec,
      node: leaf(graph, { name: `${states}.${spec.name}`, role: "state", shape: spec.shape, dtype: spec.dtype }),
    }));
    const updated = rule.update({
      parameter: parameter,
      gradient,
      states: Object.fromEntries(leaves.map(({ spec, node }) => [spec.name, node])),
      rate: rate!,
      scalars: { correction1: correction1!, correction2: correction2! },
      decay: false,
    });
    const wanted = noise(count, 2);
    let held = [
      tensor(shape, new Array<number>(count).fill(0)),
      ...leaves.map(({ spec }) => tensor(spec.shape, [], spec.dtype)),
    ];
    for (let step = 0; step < 100; step++) {
      const scalars = rule.scalars(step + 1);
      const bound = new Map([
        [noisy, noises[(step * 7) % 20]!],
        [target, tensor(shape, wanted)],
        [rate!, tensor([], [0.02])],
        [correction1!, tensor([], [scalars["correction1"]!])],
        [correction2!, tensor([], [scalars["correction2"]!])],
        ...[parameter, ...leaves.map(({ node }) => node)].map((node, place) => [node, held[place]!] as const),
      ]);
      held = evaluate([updated.value, ...leaves.map(({ spec }) => updated.states[spec.name]!)], bound);
    }
    return wanted.reduce((sum, value, index) => sum + (held[0]!.data[index]! - value) ** 2 + 0.09, 0);
  };
  const [full, coded] = [loss("f32"), loss("8bit")];
  expect(Math.abs(coded / full - 1)).toBeLessThan(0.02);
}, 120_000);
