import { expect, test } from "vitest";
import { Graph } from "../ir/node.js";
import { tensor } from "../ir/tensor.js";
import { leaf } from "../ops/leaves.js";
import { randomBits } from "../ops/random.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { drawNormal, drawUniform, initialValues, inverseNormal, philox } from "./initial.js";

function words(counter: readonly number[], key: readonly [number, number]): number[] {
  const out = new Uint32Array(4);
  philox(new Uint32Array(counter), key[0], key[1], out);
  return [...out];
}

test("Philox gives the known answers of its authors (Random123, philox4x32-10)", () => {
  const ones = 0xffffffff;
  expect(words([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  expect(words([ones, ones, ones, ones], [ones, ones])).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
  const counter = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
  expect(words(counter, [0xa4093822, 0x299f31d0])).toEqual([0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
});

test("the host's bits are those of the graph's op", () => {
  const graph = new Graph();
  const word = (name: string) => leaf(graph, { name, role: "input", shape: [], dtype: "u32" });
  const [low, high, step] = [word("low"), word("high"), word("step")];
  const bits = randomBits({ low, high }, 77, step, [5]);
  const value = (number: number) => tensor([], [number], "u32");
  const bound = new Map([[low, value(123)] as const, [high, value(0xdeadbeef)] as const, [step, value(9)] as const]);
  const wanted = Array.from({ length: 5 }, (_, index) => words([index, 9, 77, 0], [123, 0xdeadbeef])[0]);
  expect([...evaluate([bits], bound)[0]!.data]).toEqual(wanted);
});

test("the normal quantile has the values of the published algorithm and of tables", () => {
  expect(inverseNormal(0.25)).toBeCloseTo(-0.6744897501960817, 15);
  expect(inverseNormal(0.001)).toBeCloseTo(-3.090232306167814, 14);
  expect(inverseNormal(1e-20)).toBeCloseTo(-9.262340089798408, 13);
  expect(inverseNormal(0.975)).toBeCloseTo(1.959963984540054, 14);
  expect(inverseNormal(0.5)).toBe(0);
});

test("draws have the moments of their distribution and depend on seed and name alone", () => {
  const values = drawNormal(4, "a", 20001);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const square = values.reduce((sum, value) => sum + value * value, 0) / values.length;
  expect(Math.abs(mean)).toBeLessThan(0.03);
  expect(square).toBeCloseTo(1, 1);
  expect(drawNormal(4, "a", 20001)).toEqual(values);
  expect(drawNormal(5, "a", 4)).not.toEqual(values.slice(0, 4));
  expect(drawNormal(4, "b", 4)).not.toEqual(values.slice(0, 4));
  expect(drawNormal(4 + 2 ** 32, "a", 4)).not.toEqual(values.slice(0, 4));
  expect(drawUniform(1, "u", 1000).every((value) => value > 0 && value < 1)).toBe(true);
});

test("a tensor without its prepared value is refused", () => {
  const base = { name: "t", shape: [3], dtype: "f32", rateFactor: 1, decay: true } as const;
  expect(() => initialValues({ ...base, initial: { kind: "prepared" } }, 1)).toThrow(/no start value/);
  expect(initialValues({ ...base, initial: { kind: "ones" } }, 1)).toEqual(new Float32Array([1, 1, 1]));
});
