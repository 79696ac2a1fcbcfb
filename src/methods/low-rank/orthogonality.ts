import type { Node } from "../../ir/node.js";
import { cast, equal, maximum, multiply, sqrt, subtract } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import { reduceSum, reshape } from "../../ops/layout.js";
import { iota } from "../../ops/leaves.js";

/**
 * How far the rows of a matrix [r, n] (or the columns of one [n, r]) are from orthonormal: the Frobenius norm of their
 * products with each other less the identity, f32 []. Where they are orthonormal, its gradient is taken as 0.
 */
export function fromOrthonormal(matrix: Node, of: "rows" | "columns"): Node {
  const products = dot(matrix, matrix, of === "rows" ? { transposeB: true } : { transposeA: true });
  const { graph, shape } = products;
  const identity = cast(equal(iota(graph, shape, 0), iota(graph, shape, 1)), "f32");
  const apart = subtract(products, identity);
  return sqrt(maximum(reshape(reduceSum(multiply(apart, apart), [0, 1]), []), 1e-30));
}
