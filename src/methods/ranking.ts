import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { cast, less, select } from "../ops/arithmetic.js";
import { concatenate } from "../ops/concatenate.js";
import { scatterWrite } from "../ops/gather.js";
import { reshape, slice } from "../ops/layout.js";
import { constant, iota } from "../ops/leaves.js";
import { topK } from "../ops/top-k.js";

/**
 * Ranks the scores of several groups, f32 [n_i] each, against each other: by group, f32 [n_i], 0 for the `budget`
 * (f32 []) largest of all and 1 for the others. Of equal scores the first counts as larger; NaN is the least.
 */
export function maskAllBut(budget: Node, scores: readonly Node[]): Node[] {
  const { graph } = budget;
  const line = concatenate(scores);
  const count = must(line.shape[0], "scores");
  const { places } = topK(line, { count, by: "largest", order: "rank" });
  const rank = cast(iota(graph, [count, 1], 0), "f32");
  const losing = select(less(rank, budget), constant(graph, 0, [count, 1]), 1);
  const masked = reshape(scatterWrite(constant(graph, 0, [count, 1]), places, losing), [count]);
  let start = 0;
  return scores.map(({ shape }) => {
    const own = slice(masked, [start], shape);
    start += must(shape[0], "scores");
    return own;
  });
}
