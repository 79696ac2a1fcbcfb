import { Matrix, QrDecomposition, SVD } from "ml-matrix";
import { must } from "../errors.js";

/** The leading part of a singular value decomposition W ≈ U diag(S) Vᵀ, row-major in f64. */
export interface LeadingSvd {
  readonly rank: number;
  /** [rows, rank]. */
  readonly left: Float64Array;
  readonly values: Float64Array;
  /** [rank, columns]: rows are the right singular vectors. */
  readonly right: Float64Array;
}

/** A dense matrix, row-major. */
export interface Dense {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float32Array | Float64Array;
}

function toMatrix({ rows, columns, data }: Dense): Matrix {
  const matrix = Matrix.zeros(rows, columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) matrix.set(row, column, data[row * columns + column] ?? 0);
  }
  return matrix;
}

function leading(left: Matrix, values: readonly number[], right: Matrix, rank: number): LeadingSvd {
  const from = (rows: number, columns: number, value: (row: number, column: number) => number): Float64Array =>
    Float64Array.from({ length: rows * columns }, (_, place) => value(Math.floor(place / columns), place % columns));
  return {
    rank,
    left: from(left.rows, rank, (row, column) => left.get(row, column)),
    values: Float64Array.from(values.slice(0, rank)),
    right: from(rank, right.rows, (row, column) => right.get(column, row)),
  };
}

/** The `rank` leading singular triplets by a full decomposition: exact, and cubic in the smaller side. */
export function exactSvd(weight: Dense, rank: number): LeadingSvd {
  const svd = new SVD(toMatrix(weight), { autoTranspose: true });
  return leading(svd.leftSingularVectors, svd.diagonal, svd.rightSingularVectors, rank);
}

/**
 * The `rank` leading triplets by randomised subspace iteration (Halko, Martinsson and Tropp 2011, algorithms 4.4 and
 * 5.1), with an orthonormal basis kept at each of `iterations` steps. `normal(count)` gives the start: standard
 * normal values. A few more columns than asked for are carried, which sharpens the last ones.
 */
export function randomisedSvd(
  weight: Dense,
  rank: number,
  iterations: number,
  normal: (count: number) => Float64Array,
): LeadingSvd {
  const width = Math.min(rank + 8, weight.rows, weight.columns);
  let basis = orthonormal(
    timesRight(weight, { rows: weight.columns, columns: width, data: normal(weight.columns * width) }),
  );
  for (let step = 0; step < iterations; step++) {
    basis = orthonormal(timesRight(weight, orthonormal(timesLeft(weight, basis))));
  }
  // W ≈ Q (Qᵀ W), so the small matrix Wᵀ Q = V S Zᵀ gives W ≈ (Q Z) S Vᵀ.
  const small = new SVD(toMatrix(timesLeft(weight, basis)), { autoTranspose: true });
  const left = toMatrix(basis).mmul(small.rightSingularVectors);
  return leading(left, small.diagonal, small.leftSingularVectors, rank);
}

function orthonormal(dense: Dense): Dense {
  const q = new QrDecomposition(toMatrix(dense)).orthogonalMatrix;
  const { rows, columns } = dense;
  const data = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) data[row * columns + column] = q.get(row, column);
  }
  return { rows, columns, data };
}

/** W X: [rows, columns] · [columns, width]. */
function timesRight(weight: Dense, x: Dense): Dense {
  const data = new Float64Array(weight.rows * x.columns);
  for (let row = 0; row < weight.rows; row++) {
    for (let inner = 0; inner < weight.columns; inner++) {
      const value = must(weight.data[row * weight.columns + inner], "weight");
      addScaled(data, row * x.columns, x.data, inner * x.columns, value, x.columns);
    }
  }
  return { rows: weight.rows, columns: x.columns, data };
}

/** Wᵀ X: [columns, rows] · [rows, width], without a transposed copy of W. */
function timesLeft(weight: Dense, x: Dense): Dense {
  const data = new Float64Array(weight.columns * x.columns);
  for (let row = 0; row < weight.rows; row++) {
    for (let inner = 0; inner < weight.columns; inner++) {
      const value = must(weight.data[row * weight.columns + inner], "weight");
      addScaled(data, inner * x.columns, x.data, row * x.columns, value, x.columns);
    }
  }
  return { rows: weight.columns, columns: x.columns, data };
}

function addScaled(
  into: Float64Array,
  start: number,
  from: Float32Array | Float64Array,
  source: number,
  factor: number,
  count: number,
): void {
  for (let place = 0; place < count; place++) {
    into[start + place] = (into[start + place] ?? 0) + factor * (from[source + place] ?? 0);
  }
}
