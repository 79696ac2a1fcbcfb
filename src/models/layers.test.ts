import { describe, expect, it } from "vitest";
import type { Node } from "../ir/node.js";
import { Graph } from "../ir/node.js";
import { tensor } from "../ir/tensor.js";
import { leaf } from "../ops/leaves.js";
import { erfOf } from "../ops/erf.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { activate, layerNorm, rmsNorm } from "./layers.js";
import { applyRotary, rotaryTables } from "./rotary.js";
import type { Rotary } from "./types.js";

/** A graph of f32 (or, for positions, i32) inputs, evaluated in f64. */
function run(
  inputs: readonly (readonly [number[], number[], "f32" | "i32"])[],
  build: (...x: Node[]) => Node,
): number[] {
  const graph = new Graph();
  const leaves = inputs.map(([shape, , dtype], index) =>
    leaf(graph, { name: `x${index}`, role: "input", shape, dtype }),
  );
  const values = inputs.map(([shape, data, dtype]) => tensor(shape, data, dtype === "i32" ? "i32" : "f64"));
  const bindings = new Map(leaves.map((node, index) => [node, values[index]!]));
  return Array.from(evaluate([build(...leaves)], bindings, "f64")[0]!.data);
}

function expectClose(actual: readonly number[], expected: readonly number[]): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((value, index) => {
    expect(value).toBeCloseTo(expected[index]!, 11);
  });
}

describe("rotary positions", () => {
  const [tokens, heads, width] = [3, 2, 8];
  const x = Array.from({ length: tokens * heads * width }, (_, index) => Math.sin(index * 1.7) + index * 0.01);
  const positions = [0, 5, 11];

  /** Values i and i + half of each head turned as a complex number: the definition. */
  function byDefinition(turning: number, frequency: (pair: number) => number): number[] {
    const out = [...x];
    const half = turning / 2;
    for (let row = 0; row < tokens * heads; row++) {
      for (let pair = 0; pair < half; pair++) {
        const [a, b] = [row * width + pair, row * width + pair + half];
        const angle = positions[Math.floor(row / heads)]! * frequency(pair);
        out[a] = x[a]! * Math.cos(angle) - x[b]! * Math.sin(angle);
        out[b] = x[b]! * Math.cos(angle) + x[a]! * Math.sin(angle);
      }
    }
    return out;
  }

  function turned(rotary: Rotary): number[] {
    return run(
      [
        [[tokens, heads, width], x, "f32"],
        [[tokens], positions, "i32"],
      ],
      (node, place) => applyRotary(node, rotaryTables(place, rotary)),
    );
  }

  it.each([8, 4, 2])("turn the first %i of 8 values of each head", (turning) => {
    const actual = turned({ theta: 100, width: turning, scaling: { kind: "none" } });
    const expected = byDefinition(turning, (pair) => 100 ** ((-2 * pair) / turning));
    expectClose(actual, expected);
  });

  it("turn more slowly with linear scaling", () => {
    const actual = turned({ theta: 100, width, scaling: { kind: "linear", factor: 4 } });
    const expected = byDefinition(width, (pair) => 100 ** ((-2 * pair) / width) / 4);
    expectClose(actual, expected);
  });

  it("slow only long wavelengths with Llama 3's scaling", () => {
    const [factor, low, high, original] = [8, 1, 4, 100];
    const scaling = {
      kind: "llama3",
      ...{ factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContext: original },
    } as const;
    const kinds = new Set<string>();
    const expected = byDefinition(width, (pair) => {
      const plain = 1000 ** ((-2 * pair) / width);
      const wavelength = (2 * Math.PI) / plain;
      const kind = wavelength < original / high ? "kept" : wavelength > original / low ? "slowed" : "blended";
      kinds.add(kind);
      const smooth = (original / wavelength - low) / (high - low);
      if (kind === "blended") return (1 - smooth) * (plain / factor) + smooth * plain;
      return kind === "kept" ? plain : plain / factor;
    });
    expect(kinds.size).toBe(3);
    expectClose(turned({ theta: 1000, width, scaling }), expected);
  });
});

describe("norms", () => {
  const rows = [
    [1, -2, 3, 0.5],
    [0.1, 0.2, -0.3, 4],
  ];
  const gain = [0.5, 2, -1, 1.5];
  const shift = [0.1, -0.2, 0.3, 0];
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

  it.each([false, true])("rmsNorm, plus one: %s", (plusOne) => {
    const actual = run(
      [
        [[2, 4], rows.flat(), "f32"],
        [[4], gain, "f32"],
      ],
      (x, weight) => rmsNorm(x, weight, 1e-3, { plusOne }),
    );
    const expected = rows.flatMap((row) => {
      const size = Math.sqrt(mean(row.map((value) => value * value)) + 1e-3);
      return row.map((value, index) => (value / size) * (gain[index]! + (plusOne ? 1 : 0)));
    });
    expectClose(actual, expected);
  });

  it("layerNorm", () => {
    const actual = run(
      [
        [[2, 4], rows.flat(), "f32"],
        [[4], gain, "f32"],
        [[4], shift, "f32"],
      ],
      (x, weight, bias) => layerNorm(x, weight, bias, 1e-3),
    );
    const expected = rows.flatMap((row) => {
      const centre = mean(row);
      const size = Math.sqrt(mean(row.map((value) => (value - centre) ** 2)) + 1e-3);
      return row.map((value, index) => ((value - centre) / size) * gain[index]! + shift[index]!);
    });
    expectClose(actual, expected);
  });
});

describe("activation functions", () => {
  const x = [-6, -1.5, -0.2, 0, 0.3, 1, 5];
  it.each([
    ["silu", (value: number) => value / (1 + Math.exp(-value))],
    ["gelu", (value: number) => 0.5 * value * (1 + erfOf(value / Math.SQRT2))],
    [
      "gelu-tanh",
      (value: number) => 0.5 * value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3))),
    ],
  ] as const)("%s", (kind, meaning) => {
    expectClose(
      run([[[x.length], x, "f32"]], (node) => activate(kind, node)),
      x.map(meaning),
    );
  });
});
