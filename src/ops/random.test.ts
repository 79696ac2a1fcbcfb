import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { Graph } from "../ir/node.js";
import { tensor } from "../ir/tensor.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { normalFrom } from "./normal.js";
import { permute } from "./layout.js";
import { leaf } from "./leaves.js";
import { philox, randomBits } from "./random.js";

const key = [0x1234567, 0x89abcdef, 5, 77];

function bitsOf(shape: readonly number[], make: (bits: Node) => Node = (bits) => bits, use = 0): ArrayLike<number> {
  const graph = new Graph();
  const leaves = ["low", "high", "step", "stream"].map((name) =>
    leaf(graph, { name, role: "input", shape: [], dtype: "u32" }),
  );
  const [low, high, step, stream] = leaves as [Node, Node, Node, Node];
  const bindings = new Map(leaves.map((node, index) => [node, tensor([], [must(key[index], "word")], "u32")]));
  const made = make(randomBits({ low, high }, stream, step, shape, use));
  return must(evaluate([made], bindings)[0], "bits").data;
}

describe("random bits", () => {
  test("Philox 4x32-10 gives the published words", () => {
    // Known answers of the authors' Random123 library.
    expect(philox([0, 0, 0, 0], 0, 0)).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    const ones = 0xffffffff;
    expect(philox([ones, ones, ones, ones], ones, ones)).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    expect(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], 0xa4093822, 0x299f31d0)).toEqual([
      0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1,
    ]);
  });

  test("are a function of the element alone: shape and order do not matter", () => {
    const flat = bitsOf([210]);
    expect(bitsOf([7, 30])).toEqual(flat);
    expect(Array.from(bitsOf([61]))).toEqual(Array.from(flat).slice(0, 61));
    const turned = bitsOf([7, 30], (bits) => permute(bits, [1, 0]));
    expect(Array.from(turned, (_, at) => turned[(at % 30) * 7 + Math.floor(at / 30)])).toEqual(Array.from(flat));
    expect(bitsOf([210], undefined, 1)).not.toEqual(flat);
    expect(new Set(Array.from(flat)).size).toBe(210);
  });

  test("a million normals have the moments of the distribution", () => {
    const count = 1_000_000;
    const values = bitsOf([count], normalFrom);
    let [sum, square, cube, fourth] = [0, 0, 0, 0];
    for (let at = 0; at < count; at++) {
      const value = values[at] ?? NaN;
      sum += value;
      square += value ** 2;
      cube += value ** 3;
      fourth += value ** 4;
    }
    const error = (variance: number): number => 4 * Math.sqrt(variance / count);
    expect(Math.abs(sum / count)).toBeLessThan(error(1));
    expect(Math.abs(square / count - 1)).toBeLessThan(error(2));
    expect(Math.abs(cube / count)).toBeLessThan(error(15));
    expect(Math.abs(fourth / count - 3)).toBeLessThan(error(96));
  });

  test("normals are the quantiles of their words", () => {
    const graph = new Graph();
    const words = leaf(graph, { name: "words", role: "input", shape: [7], dtype: "u32" });
    const given = tensor([7], [0, 1, 0x40000000, 0x7fffffff, 0x80000000, 0xc0000000, 0xffffffff], "u32");
    const [made] = evaluate([normalFrom(words)], new Map([[words, given]]));
    // Quantiles of 1 - h/2 for h = (m + 1/2) 2^-31, by series in 30 digits.
    const expected = [6.33796, 6.16643, 0.67449, 0, -6.33796, -0.67449, 0];
    expected.forEach((value, at) => {
      expect(Math.abs((made?.data[at] ?? NaN) - value)).toBeLessThan(1e-4);
    });
  });
});
