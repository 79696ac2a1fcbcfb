import { describe, expect, it } from "vitest";
import { Graph } from "../../ir/node.js";
import { cumulativeSum } from "../../ops/cumulative-sum.js";
import { leaf } from "../../ops/leaves.js";
import { Kernels, Memory } from "../../testing/c/harness.js";
import { noise } from "../../testing/c/loops.js";
import { evaluate } from "../interpret/evaluate.js";
import { cumulativeSumWords, renderCumulativeSum } from "./cumulative-sum.js";

const library = new Kernels([renderCumulativeSum().source]);

function expected(values: Float32Array, shape: readonly number[]): number[] {
  const x = leaf(new Graph(), { name: "x", role: "input", shape: [...shape], dtype: "f32" });
  const [sums] = evaluate(
    [cumulativeSum(x)],
    new Map([[x, { shape: [...shape], dtype: "f32" as const, data: values }]]),
  );
  return [...sums!.data];
}

describe("cumulative sums in C", () => {
  it("are those of the meaning to the bit, on any number of threads", () => {
    for (const [rows, length] of [
      [1, 1],
      [3, 7],
      [5, 1000],
    ] as const) {
      const values = Float32Array.from(noise(rows * length, length));
      for (const threads of [1, 2, 3]) {
        const x = new Memory(values.byteLength);
        x.data.set(new Uint8Array(values.buffer));
        const sums = new Memory(values.byteLength);
        const words = cumulativeSumWords<bigint | number>({ x: x.address, sums: sums.address, rows, length });
        library.run(renderCumulativeSum().name, words, threads);
        const found = [...new Float32Array(sums.read().buffer)];
        expect(found).toEqual(expected(values, [rows, length]));
        const row = values.subarray(0, length);
        expect(Math.abs(found[length - 1]! - row.reduce((sum, value) => sum + value, 0))).toBeLessThan(1e-3);
        for (const memory of [x, sums]) {
          expect(memory.intact()).toBe(true);
          memory.free();
        }
      }
    }
  });

  it("refuse rows of integers", () => {
    const x = leaf(new Graph(), { name: "x", role: "input", shape: [3], dtype: "i32" });
    expect(() => cumulativeSum(x)).toThrow(expect.objectContaining({ code: "shape" }));
  });
});
