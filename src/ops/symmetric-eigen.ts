import { EigenvalueDecomposition, Matrix } from "ml-matrix";
import { must, ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import { result } from "./leaves.js";

/**
 * Eigenvalues f32 [n], largest first, and eigenvectors f32 [n, n] (one a row, of length 1) of a symmetric matrix f32
 * [n, n], of which the lower triangle is read; computed in f64. The entry of largest magnitude of each vector is
 * positive, the first of equals, so that results can be compared. A matrix with NaN or infinities gives NaN.
 */
export const symmetricEigenOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "symmetricEigen",
  cost: "compute",
  infer: (inputs) => {
    const { shape, dtype } = must(inputs[0], "operand");
    const [rows = 0, columns = 0] = shape;
    if (shape.length !== 2 || rows !== columns || dtype !== "f32") {
      throw new ThimbleError("shape", "symmetricEigen takes a square matrix of f32", {
        given: `${dtype} [${shape.join(", ")}]`,
      });
    }
    return [
      { shape: [rows], dtype: "f32" },
      { shape, dtype: "f32" },
    ];
  },
  lowering: { kind: "kernel" },
  evaluate: (inputs, _attributes, types) => {
    const { shape, data } = must(inputs[0], "operand");
    const size = must(shape[0], "size");
    const { values, vectors } = decompose(size, data);
    return [
      { ...must(types[0], "type"), data: values },
      { ...must(types[1], "type"), data: vectors },
    ];
  },
  gradient: () => {
    throw new ThimbleError("no-gradient", "symmetricEigen is for projections and has no gradient rule");
  },
});

function decompose(size: number, data: ArrayLike<number>): { values: Float64Array; vectors: Float64Array } {
  const values = new Float64Array(size).fill(NaN);
  const vectors = new Float64Array(size * size).fill(NaN);
  const at = (row: number, column: number): number => data[Math.max(row, column) * size + Math.min(row, column)] ?? 0;
  for (let place = 0; place < size * size; place++) {
    if (!Number.isFinite(at(Math.floor(place / size), place % size))) return { values, vectors };
  }
  const matrix = Matrix.zeros(size, size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) matrix.set(row, column, at(row, column));
  }
  const found = new EigenvalueDecomposition(matrix, { assumeSymmetric: true });
  const order = found.realEigenvalues.map((_, place) => place);
  order.sort((a, b) => (found.realEigenvalues[b] ?? 0) - (found.realEigenvalues[a] ?? 0) || a - b);
  order.forEach((source, rank) => {
    values[rank] = found.realEigenvalues[source] ?? 0;
    const vector = found.eigenvectorMatrix.getColumn(source);
    const sign = signOf(vector);
    vector.forEach((value, place) => {
      vectors[rank * size + place] = value * sign;
    });
  });
  return { values, vectors };
}

function signOf(vector: readonly number[]): number {
  let largest = 0;
  for (const value of vector) if (Math.abs(value) > Math.abs(largest)) largest = value;
  return largest < 0 ? -1 : 1;
}

/** See {@link symmetricEigenOp}. */
export function symmetricEigen(matrix: Node): { readonly values: Node; readonly vectors: Node } {
  const node = matrix.graph.add(symmetricEigenOp, [matrix]);
  return { values: result(node, 0), vectors: result(node, 1) };
}
