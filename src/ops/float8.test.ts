import { describe, expect, test } from "vitest";
import { Graph } from "../ir/node.js";
import type { Node } from "../ir/node.js";
import type { Tensor } from "../ir/tensor.js";
import { tensor } from "../ir/tensor.js";
import { drawNormal, drawUniform } from "../methods/initial.js";
import { e4m3, e5m2, float8Code, float8Value } from "../storage/float8.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { CompiledLoops } from "../testing/c/loops.js";
import { cast } from "./arithmetic.js";
import { fromFloat8, toFloat8 } from "./float8.js";
import { leaf } from "./leaves.js";

const formats = [e4m3, e5m2] as const;
const everyCode = Array.from({ length: 256 }, (_, code) => code);
/** Normal and uniform numbers of all magnitudes: where nothing is rounded to, between, below and above all codes. */
const random = [...drawNormal(1, "size", 50000)].map((value, at) => value * 2 ** ((at % 44) - 26)).concat([...drawUniform(2, "near", 50000)].map((value, at) => (value - 0.5) * 4 * (1 + (at % 500)))); // prettier-ignore

/** Runs an element-wise expression on both targets. */
function run(given: Tensor, build: (input: Node) => Node): { readonly meant: Tensor; readonly compiled: Tensor } {
  const graph = new Graph();
  const input = leaf(graph, { name: "given", role: "input", shape: given.shape, dtype: given.dtype });
  const output = build(input);
  const bound = new Map([[input, given]]);
  const loops = new CompiledLoops([{ inputs: [input], outputs: [output] }]);
  return { meant: evaluate([output], bound)[0]!, compiled: loops.evaluate(0, bound)[0]! };
}

const encoded = (format: (typeof formats)[number], values: readonly number[]) =>
  run(tensor([values.length], values), (input) => cast(toFloat8(format.id, input), "u8"));

describe.each(formats)("$id", (format) => {
  const sizes = everyCode.slice(0, 128).map((code) => float8Value(format, code));
  const finite = sizes.filter(Number.isFinite);

  test("has the values of the format's table", () => {
    const { meant, compiled } = run(tensor([256], everyCode, "u8"), (codes) =>
      fromFloat8(format.id, cast(codes, "i32")),
    );
    const bits = format.mantissaBits;
    everyCode.forEach((code) => {
      const [exponent, mantissa] = [(code & 127) >> bits, code % 2 ** bits];
      const special = exponent === (format.id === "e4m3" ? 15 : 31) && (format.id === "e5m2" || mantissa === 7);
      const bias = format.id === "e4m3" ? 7 : 15;
      const size =
        exponent === 0 ? mantissa * 2 ** (1 - bias - bits) : (1 + mantissa * 2 ** -bits) * 2 ** (exponent - bias);
      const wanted = special ? (format.id === "e5m2" && mantissa === 0 ? Infinity : NaN) : size;
      expect(meant.data[code]).toBe(code < 128 ? wanted : -wanted);
      expect(compiled.data[code]).toBe(code < 128 ? wanted : -wanted);
    });
    expect(finite.at(-1)).toBe(format.largest);
  });

  test("gives every code back that stands for a number", () => {
    const codes = everyCode.filter((code) => Number.isFinite(float8Value(format, code)));
    const { meant, compiled } = encoded(
      format,
      codes.map((code) => float8Value(format, code)),
    );
    expect([...meant.data]).toEqual(codes);
    expect([...compiled.data]).toEqual(codes);
  });

  test("takes the nearest of all codes, of two the even one, for 100,000 numbers and what lies between two codes", () => {
    const between = finite.slice(1).flatMap((size, at) => [0.5, 0.49, 0.51].map((t) => finite[at]! + t * (size - finite[at]!))); // prettier-ignore
    const values = [...random, ...between, ...between.map((value) => -value)].map(Math.fround);
    const { meant, compiled } = encoded(format, values);
    expect(compiled.data).toEqual(meant.data);
    const wrong = values.filter((value, at) => {
      const distance = (code: number): number => Math.abs(finite[code]! - Math.abs(value));
      let best = 0;
      for (let code = 1; code < finite.length; code++) {
        if (distance(code) < distance(best) || (distance(code) === distance(best) && code % 2 === 0)) best = code;
      }
      return meant.data[at] !== best + (value < 0 || Object.is(value, -0) ? 128 : 0);
    });
    expect(wrong).toEqual([]);
  });

  test("saturates, keeps the sign of zero, and shows what is no number", () => {
    const given = [format.largest * 1.003, 1e9, Infinity, -1e38, -Infinity, 0, -0, NaN, 1e-40];
    const { meant, compiled } = encoded(format, given);
    const top = finite.length - 1;
    expect([...compiled.data]).toEqual([top, top, top, top + 128, top + 128, 0, 128, 127, 0]);
    expect(meant.data).toEqual(compiled.data);
  });
});

test("the numbers of the page", () => {
  const value = (format: (typeof formats)[number], given: number): number =>
    float8Value(format, float8Code(format, given));
  expect([449, 1e9, 2 ** -10, 1.5 * 2 ** -9].map((given) => value(e4m3, given))).toEqual([448, 448, 0, 2 ** -8]);
  expect(value(e5m2, 1e9)).toBe(57344);
});
