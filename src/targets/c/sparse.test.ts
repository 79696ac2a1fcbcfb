import { describe, expect, it } from "vitest";
import { must } from "../../errors.js";
import { bf16Bits, bf16FromBits } from "../../ir/dtype.js";
import type { DType } from "../../ir/dtype.js";
import type { Node } from "../../ir/node.js";
import { Graph } from "../../ir/node.js";
import { scatterMaximum } from "../../ops/gather.js";
import { exchangeSlots, matchPlaces, topOuter } from "../../ops/index-set.js";
import { leaf } from "../../ops/leaves.js";
import { sampledDot, sparseDot } from "../../ops/sparse.js";
import { Kernels, Memory } from "../../testing/c/harness.js";
import { noise } from "../../testing/c/loops.js";
import { relativeDifference } from "../../testing/tiny.js";
import { evaluate } from "../interpret/evaluate.js";
import type { FixedKernel } from "../../passes/kernels.js";
import { lowerFixed } from "./lower-fixed.js";

interface Operand {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly data: readonly number[];
}

const f32 = (data: readonly number[], shape: readonly number[] = [data.length]): Operand => ({
  shape,
  dtype: "f32",
  data: data.map(Math.fround),
});
const bf16 = (data: readonly number[], shape: readonly number[]): Operand => ({
  shape,
  dtype: "bf16",
  data: data.map((value) => bf16FromBits(bf16Bits(value))),
});
const i32 = (data: readonly number[], shape: readonly number[] = [data.length]): Operand => ({
  shape,
  dtype: "i32",
  data,
});

function bytesOf({ dtype, data }: Operand): Uint8Array {
  const words =
    dtype === "f32"
      ? Float32Array.from(data)
      : dtype === "i32"
        ? Int32Array.from(data)
        : Uint16Array.from(data, bf16Bits);
  return new Uint8Array(words.buffer);
}

interface Case {
  readonly operands: readonly Operand[];
  readonly build: (...nodes: Node[]) => Node;
}

const compiled = new Map<string, Kernels>();

/** What the op's kernel computes, and what the op means. */
function both({ operands, build }: Case, threads: number): { actual: number[]; meant: number[] } {
  const graph = new Graph();
  const inputs = operands.map(({ shape, dtype }, index) =>
    leaf(graph, { name: `x${index}`, role: "input", shape, dtype }),
  );
  const node = build(...inputs);
  const kernel: FixedKernel = { kind: "fixed", node, inputs, outputs: [node] };
  const { generated, words, workspaceBytes } = lowerFixed(kernel, threads);
  const library = compiled.get(generated.name) ?? new Kernels(["#include <string.h>", generated.source]);
  compiled.set(generated.name, library);
  const held = operands.map((operand) => {
    const bytes = bytesOf(operand);
    const memory = new Memory(bytes.byteLength);
    memory.data.set(bytes);
    return memory;
  });
  const output = new Memory(4 * node.shape.reduce((a, b) => a * b, 1));
  const workspace = new Memory(workspaceBytes);
  const resolved = words.map((word) => {
    if (typeof word === "number") return word;
    if ("workspace" in word) return workspace.address;
    return "input" in word ? must(held[word.input], "operand").address : output.address;
  });
  library.run(generated.name, resolved, threads);
  const bytes = output.read();
  const actual = node.dtype === "i32" ? new Int32Array(bytes.buffer) : new Float32Array(bytes.buffer);
  for (const memory of [...held, output, workspace]) {
    expect(memory.intact()).toBe(true);
    memory.free();
  }
  const bindings = new Map(
    inputs.map((input, index) => {
      const { shape, dtype, data } = must(operands[index], "operand");
      return [input, { shape, dtype, data: dtype === "i32" ? Int32Array.from(data) : Float64Array.from(data) }];
    }),
  );
  const [meant] = evaluate([node], bindings);
  return { actual: [...actual], meant: [...must(meant, "value").data] };
}

/** Different numbers below `total`, in no order. */
function drawPlaces(count: number, total: number): number[] {
  const step = [7919, 104729].find((prime) => total % prime !== 0) ?? 1;
  return Array.from({ length: count }, (_, entry) => (entry * step + 5) % total);
}

const sizes = [
  [1, 3, 5, 4],
  [37, 19, 33, 200],
  [130, 64, 48, 700],
] as const;

describe("sparse matrices in C", () => {
  for (const storage of ["f32", "bf16"] as const) {
    const operand = storage === "f32" ? f32 : bf16;
    it(`multiply ${storage} by them both ways, on any number of threads`, () => {
      for (const [tokens, rows, columns, count] of sizes) {
        const places = i32(drawPlaces(count, rows * columns));
        const values = f32(noise(count, 3));
        for (const transpose of [false, true]) {
          const width = transpose ? rows : columns;
          const x = operand(noise(tokens * width, 7), [tokens, width]);
          const one = {
            operands: [x, places, values],
            build: (a: Node, b: Node, c: Node) => sparseDot(a, b, c, { rows, columns, transpose }),
          } as Case;
          const [first, ...others] = [1, 2, 3].map((threads) => both(one, threads));
          expect(relativeDifference(first!.actual, first!.meant)).toBeLessThan(1e-5);
          for (const other of others) expect(other.actual).toEqual(first!.actual);
        }
      }
    });

    it(`give single elements of a product of f32 and ${storage}, on any number of threads`, () => {
      for (const [tokens, rows, columns, count] of sizes) {
        const a = operand(noise(tokens * rows, 2), [tokens, rows]);
        const b = f32(noise(tokens * columns, 9), [tokens, columns]);
        const one = { operands: [a, b, i32(drawPlaces(count, rows * columns))], build: sampledDot } as Case;
        const [first, ...others] = [1, 2, 3].map((threads) => both(one, threads));
        expect(relativeDifference(first!.actual, first!.meant)).toBeLessThan(1e-5);
        for (const other of others) expect(other.actual).toEqual(first!.actual);
      }
    });
  }
});

describe("sets of places in C", () => {
  const agree = (one: Case): number[] => {
    const [first, second] = [1, 2].map((threads) => both(one, threads));
    expect(first!.actual).toEqual(first!.meant);
    expect(second!.actual).toEqual(first!.actual);
    return first!.actual;
  };

  it("find what two of them have in common", () => {
    expect(agree({ operands: [i32([5, 9, 2, 9]), i32([9, 1, -1, 5])], build: matchPlaces })).toEqual([1, -1, -1, 0]);
    const keys = drawPlaces(700, 5000);
    agree({ operands: [i32(keys), i32(drawPlaces(5000, 5000))], build: matchPlaces });
  });

  it("exchange slots", () => {
    const exchange = (leaving: Node, arriving: Node, slots: Node, limit: Node): Node =>
      exchangeSlots({ leaving, arriving, slots, limit });
    const of = (leaving: number[], arriving: number[], slots: number[], limit: number): number[] =>
      agree({ operands: [i32(leaving), i32(arriving), i32(slots), i32([limit], [])], build: exchange });
    // Slot 3 leaves and comes again, slot 0 holds a candidate but stays, and candidates 4 and 2 are new.
    expect(of([3, 1, 2, 0], [0, 1, 4, 2, 3], [3, 0, -1, -1, -1], 3)).toEqual([-1, 4, 2, -1]);
    expect(of([3, 1, 2, 0], [0, -1, 1, -1], [-1, -1], 4)).toEqual([-1, 1, -1, 0]);
    expect(of([1, 0], [0, 1], [-1, -1], 0)).toEqual([-1, -1]);
    expect(of([1, 0], [0, 1, 2], [-1, -1, -1], 9)).toEqual([1, 0]);
    for (const limit of [1, 17, 60, 99]) {
      const order = drawPlaces(100, 100);
      const slots = drawPlaces(100, 100).map((slot, candidate) => (candidate % 3 === 0 ? slot : -1));
      of(order, [...order].reverse(), slots, limit);
    }
  });

  it("raise rows to the largest of their updates", () => {
    expect(
      agree({
        operands: [f32([1, 5, -2], [3, 1]), i32([0, 1, 0, 9]), f32([3, 4, 2, 7], [4, 1])],
        build: scatterMaximum,
      }),
    ).toEqual([7, 5, -2]);
    agree({
      operands: [f32(noise(300, 1), [100, 3]), i32(drawPlaces(400, 100)), f32(noise(1200, 2), [400, 3])],
      build: scatterMaximum,
    });
  });

  it("find the largest products of an outer product", () => {
    const search = (rows: number[], columns: number[], taken: number[], limit: number, count: number): number[] =>
      agree({
        operands: [f32(rows), f32(columns), i32(taken), i32([limit], [])],
        build: (...[a, b, c, d]: Node[]) => topOuter({ rows: a!, columns: b!, taken: c!, limit: d! }, count),
      });
    expect(search([1, 3], [2, 0, 5], [5], 9, 4)).toEqual([3, 2, 0, -1]);
    expect(search([0, 0], [0], [0], 1, 1)).toEqual([-1]);
    expect(search([NaN, 2], [1, NaN], [], 3, 3)).toEqual([2, -1, -1]);
    const coarse = (count: number, seed: number): number[] =>
      noise(count, seed).map((value) => Math.abs(Math.round(value * 8)) / 8);
    for (const [m, n, limit, count] of [
      [17, 9, 40, 60],
      [40, 33, 1320, 1320],
      [5, 100, 7, 50],
    ] as const) {
      search(coarse(m, 4), coarse(n, 5), drawPlaces(30, m * n), limit, count);
      search(noise(m, 4).map(Math.abs), noise(n, 5).map(Math.abs), drawPlaces(30, m * n), limit, count);
    }
  });
});
