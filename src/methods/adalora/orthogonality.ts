import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { add, cast, equal, maximum, multiply, sqrt, subtract } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import { reduceSum, reshape } from "../../ops/layout.js";
import { iota } from "../../ops/leaves.js";
import type { RegulariseContext } from "../types.js";
import type { AdaloraTarget } from "./config.js";

/** weight times the mean of ||Pᵀ P - I|| and ||Q Qᵀ - I|| over all layers (norms, as in PEFT, not their squares). */
export function orthogonality(context: RegulariseContext, targets: readonly AdaloraTarget[], weight: number): Node {
  const distances = targets.flatMap(({ a, b }) => {
    const [q, p] = [a, b].map(({ name }) => must(context.values.get(name), name));
    return [
      fromIdentity(dot(must(q, "Q"), must(q, "Q"), { transposeB: true })),
      fromIdentity(dot(must(p, "P"), must(p, "P"), { transposeA: true })),
    ];
  });
  const sum = distances.reduce((total, distance) => add(total, distance));
  return multiply(sum, weight / distances.length);
}

/** Frobenius norm of S - I, f32 []. Where S is I, its gradient is taken as 0. */
function fromIdentity(square: Node): Node {
  const { graph, shape } = square;
  const identity = cast(equal(iota(graph, shape, 0), iota(graph, shape, 1)), "f32");
  const apart = subtract(square, identity);
  return sqrt(maximum(reshape(reduceSum(multiply(apart, apart), [0, 1]), []), 1e-30));
}
