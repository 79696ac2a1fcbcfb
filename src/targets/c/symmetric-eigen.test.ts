import { describe, expect, it } from "vitest";
import { Graph } from "../../ir/node.js";
import { leaf } from "../../ops/leaves.js";
import { symmetricEigen } from "../../ops/symmetric-eigen.js";
import { Kernels, Memory } from "../../testing/c/harness.js";
import { noise } from "../../testing/c/loops.js";
import { evaluate } from "../interpret/evaluate.js";
import { eigenWords, eigenWorkspace, renderSymmetricEigen } from "./symmetric-eigen.js";

const library = new Kernels([renderSymmetricEigen().source]);

/** A Gram matrix of noise [size, rank], whose eigenvalues fall off like a gradient's. */
function gram(size: number, rank: number): Float32Array {
  const factors = noise(size * rank, size + rank).map((value, place) => value / (1 + (place % rank)));
  return Float32Array.from({ length: size * size }, (_, place) => {
    const [row, column] = [Math.floor(place / size), place % size];
    let sum = 0;
    for (let k = 0; k < rank; k++) sum += factors[row * rank + k]! * factors[column * rank + k]!;
    return sum;
  });
}

function decompose(matrix: Float32Array, size: number, threads: number): { values: Float32Array; rows: Float32Array } {
  const input = new Memory(matrix.byteLength);
  input.data.set(new Uint8Array(matrix.buffer));
  const values = new Memory(size * 4);
  const vectors = new Memory(size * size * 4);
  const workspace = new Memory(eigenWorkspace(size));
  const [a, b, c, d] = [input, values, vectors, workspace].map(({ address }) => address) as [
    bigint,
    bigint,
    bigint,
    bigint,
  ];
  const words = eigenWords<bigint | number>({ matrix: a, values: b, vectors: c, workspace: d, size });
  library.run(renderSymmetricEigen().name, words, threads);
  const found = { values: new Float32Array(values.read().buffer), rows: new Float32Array(vectors.read().buffer) };
  for (const memory of [input, values, vectors, workspace]) {
    expect(memory.intact()).toBe(true);
    memory.free();
  }
  return found;
}

describe("symmetricEigen in C", () => {
  for (const [size, rank] of [
    [1, 1],
    [2, 2],
    [9, 9],
    [40, 12],
    [129, 140],
  ] as const) {
    it(`gives orthonormal vectors that make the matrix again, of ${size} rows and rank ${rank}`, () => {
      const matrix = gram(size, rank);
      const { values, rows } = decompose(matrix, size, 2);
      const largest = Math.abs(values[0] ?? 0);
      for (let i = 0; i < size; i++) {
        if (i > 0) expect(values[i]).toBeLessThanOrEqual(values[i - 1]!);
        for (let j = 0; j < size; j++) {
          let product = 0;
          let made = 0;
          for (let k = 0; k < size; k++) {
            product += rows[i * size + k]! * rows[j * size + k]!;
            made += values[k]! * rows[k * size + i]! * rows[k * size + j]!;
          }
          expect(Math.abs(product - (i === j ? 1 : 0))).toBeLessThan(1e-6);
          expect(Math.abs(made - matrix[i * size + j]!)).toBeLessThan(1e-6 * largest);
        }
      }
    });
  }

  it("equals the interpreter and is the same to the bit on any number of threads", () => {
    const size = 40;
    const matrix = gram(size, size);
    const graph = new Graph();
    const x = leaf(graph, { name: "x", role: "input", shape: [size, size], dtype: "f32" });
    const { values, vectors } = symmetricEigen(x);
    const bindings = new Map([[x, { shape: [size, size], dtype: "f32" as const, data: matrix }]]);
    const [expectedValues, expectedRows] = evaluate([values, vectors], bindings).map(({ data }) => data);
    const alone = decompose(matrix, size, 1);
    for (const threads of [2, 3, 5]) expect(decompose(matrix, size, threads)).toEqual(alone);
    alone.values.forEach((value, place) => {
      expect(Math.abs(value - expectedValues![place]!)).toBeLessThan(1e-6 * alone.values[0]!);
    });
    // Vectors of small eigenvalues are determined by rounding alone; those of the leading ones are not.
    for (let place = 0; place < 8 * size; place++) {
      expect(Math.abs(alone.rows[place]! - expectedRows![place]!)).toBeLessThan(1e-5);
    }
  });

  it("takes diagonal matrices and zeros, and gives NaN for what is not finite", () => {
    const diagonal = Float32Array.from({ length: 9 }, (_, place) => (place % 4 === 0 ? place - 4 : 0));
    expect([...decompose(diagonal, 3, 2).values]).toEqual([4, 0, -4]);
    expect([...decompose(new Float32Array(16), 4, 2).values]).toEqual([0, 0, 0, 0]);
    const broken = gram(5, 5);
    broken[7] = NaN;
    broken[11] = NaN;
    expect(decompose(broken, 5, 2).values.every(Number.isNaN)).toBe(true);
  });
});
