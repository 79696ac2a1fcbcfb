import { expect, test } from "vitest";
import { largestDifference } from "../testing/method-bench.js";
import { drawNormal } from "./initial.js";
import type { Dense, LeadingSvd } from "./linalg.js";
import { exactSvd, randomisedSvd } from "./linalg.js";

/** A matrix with falling singular values, like a trained weight's. */
function falling(rows: number, columns: number): Dense {
  const data = new Float64Array(rows * columns);
  for (let part = 0; part < Math.min(rows, columns); part++) {
    const left = drawNormal(1, `left${part}`, rows);
    const right = drawNormal(2, `right${part}`, columns);
    for (let place = 0; place < data.length; place++) {
      data[place]! += 0.6 ** part * left[Math.floor(place / columns)]! * right[place % columns]!;
    }
  }
  return { rows, columns, data };
}

/** U diag(S) Vᵀ. */
function product({ left, values, right, rank }: LeadingSvd, { rows, columns }: Dense): Float64Array {
  return Float64Array.from({ length: rows * columns }, (_, place) => {
    const [row, column] = [Math.floor(place / columns), place % columns];
    let sum = 0;
    for (let inner = 0; inner < rank; inner++) {
      sum += left[row * rank + inner]! * values[inner]! * right[inner * columns + column]!;
    }
    return sum;
  });
}

test.each([
  [12, 7],
  [7, 12],
  [9, 9],
])("the full decomposition of %i x %i gives the matrix back", (rows, columns) => {
  const matrix = falling(rows, columns);
  const svd = exactSvd(matrix, Math.min(rows, columns));
  expect(largestDifference(product(svd, matrix), matrix.data)).toBeLessThan(1e-10);
  for (let place = 1; place < svd.rank; place++) expect(svd.values[place]).toBeLessThanOrEqual(svd.values[place - 1]!);
});

test.each([
  [40, 25],
  [25, 40],
])("subspace iteration on %i x %i finds the same leading part", (rows, columns) => {
  const matrix = falling(rows, columns);
  const exact = exactSvd(matrix, 4);
  const fast = randomisedSvd(matrix, 4, 4, (count) => drawNormal(3, "start", count));
  expect(largestDifference(fast.values, exact.values)).toBeLessThan(1e-8);
  expect(largestDifference(product(fast, matrix), product(exact, matrix))).toBeLessThan(1e-5);
});
