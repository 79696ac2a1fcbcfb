import { describe, expect, it } from "vitest";
import { Graph } from "../ir/node.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { rowsAndColumns } from "./index-set.js";
import { leaf } from "./leaves.js";
import { entriesOf, withEntries } from "./sparse.js";

describe("rows and columns of places", () => {
  it("are exact for every width up to the last place that fits", () => {
    for (const width of [1, 2, 3, 5, 7, 576, 641, 1000, 1024, 4096, 14336, 65537, 2 ** 24 - 1, 2 ** 30, 2 ** 31 - 1]) {
      const last = 2 ** 31 - 1;
      const near = [0, 1, 2, 1e6, 2 ** 24 + 1, last - 1, last].flatMap((at) => {
        const row = Math.floor(at / width) * width;
        return [at, row, row - 1, row + width - 1].filter((place) => place >= 0 && place <= last);
      });
      const graph = new Graph();
      const places = leaf(graph, { name: "places", role: "input", shape: [near.length], dtype: "i32" });
      const { rows, columns } = rowsAndColumns(places, width);
      const bound = new Map([[places, { shape: [near.length], dtype: "i32" as const, data: Int32Array.from(near) }]]);
      const [down, right] = evaluate([rows, columns], bound).map(({ data }) => [...data]);
      expect(down, String(width)).toEqual(near.map((place) => Math.floor(place / width)));
      expect(right, String(width)).toEqual(near.map((place) => place % width));
    }
  });
});

describe("single entries of a matrix", () => {
  it("are read, replaced and added to", () => {
    const graph = new Graph();
    const input = (name: string, shape: number[], dtype: "f32" | "i32") =>
      leaf(graph, { name, role: "input", shape, dtype });
    const [matrix, places, values] = [
      input("matrix", [2, 3], "f32"),
      input("places", [2], "i32"),
      input("values", [2], "f32"),
    ];
    const made = evaluate(
      [
        entriesOf(matrix, places),
        withEntries(matrix, places, values, "write"),
        withEntries(matrix, places, values, "add"),
      ],
      new Map([
        [matrix, { shape: [2, 3], dtype: "f32" as const, data: Float64Array.of(1, 2, 3, 4, 5, 6) }],
        [places, { shape: [2], dtype: "i32" as const, data: Int32Array.of(4, 0) }],
        [values, { shape: [2], dtype: "f32" as const, data: Float64Array.of(10, 20) }],
      ]),
    ).map(({ data }) => [...data]);
    expect(made).toEqual([
      [5, 1],
      [20, 2, 3, 4, 10, 6],
      [21, 2, 3, 4, 15, 6],
    ]);
  });
});
