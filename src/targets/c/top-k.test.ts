import { describe, expect, it } from "vitest";
import { Graph } from "../../ir/node.js";
import { leaf } from "../../ops/leaves.js";
import type { TopKOptions } from "../../ops/top-k.js";
import { topK } from "../../ops/top-k.js";
import { Kernels, Memory } from "../../testing/c/harness.js";
import { noise } from "../../testing/c/loops.js";
import { evaluate } from "../interpret/evaluate.js";
import { renderTopK, topKWords, topKWorkspace } from "./top-k.js";

const kinds = (["largest", "smallest", "magnitude"] as const).flatMap((by) =>
  (["rank", "index"] as const).map((order) => ({ by, order })),
);
const library = new Kernels(kinds.map((kind) => renderTopK(kind).source));

function expected(values: Float32Array, rows: number, options: TopKOptions): number[][] {
  const graph = new Graph();
  const shape = [rows, values.length / rows];
  const x = leaf(graph, { name: "x", role: "input", shape, dtype: "f32" });
  const { values: best, places } = topK(x, options);
  return evaluate([best, places], new Map([[x, { shape, dtype: "f32" as const, data: values }]])).map(({ data }) => [
    ...data,
  ]);
}

function actual(values: Float32Array, rows: number, options: TopKOptions, threads: number): number[][] {
  const { count } = options;
  const x = new Memory(values.byteLength);
  x.data.set(new Uint8Array(values.buffer));
  const best = new Memory(rows * count * 4);
  const places = new Memory(rows * count * 4);
  const workspace = new Memory(topKWorkspace(count, threads));
  const words = topKWords<bigint | number>({
    x: x.address,
    values: best.address,
    places: places.address,
    workspace: workspace.address,
    rows,
    length: values.length / rows,
    count,
  });
  library.run(renderTopK(options).name, words, threads);
  const found = [[...new Float32Array(best.read().buffer)], [...new Int32Array(places.read().buffer)]];
  for (const memory of [x, best, places, workspace]) {
    expect(memory.intact()).toBe(true);
    memory.free();
  }
  return found;
}

describe("top-k in C", () => {
  for (const kind of kinds) {
    it(`takes the ${kind.by} in order of ${kind.order}, on any number of threads`, () => {
      for (const [rows, length, count] of [
        [1, 1, 1],
        [3, 17, 5],
        [5, 64, 64],
        [2, 5000, 37],
      ] as const) {
        const values = Float32Array.from(noise(rows * length, length), (value) => Math.round(value * 40) / 40);
        const options = { ...kind, count };
        for (const threads of [1, 2, 3]) {
          expect(actual(values, rows, options, threads)).toEqual(expected(values, rows, options));
        }
      }
    });
  }

  it("puts NaN last, zeros of both signs together, and infinities at the ends", () => {
    const values = Float32Array.of(NaN, -0, 3, Infinity, 0, -Infinity, -3, NaN, 1e-40);
    for (const kind of kinds) {
      for (const count of [1, 4, 7, 9]) {
        const options = { ...kind, count };
        expect(actual(values, 1, options, 2)).toEqual(expected(values, 1, options));
      }
    }
  });
});
