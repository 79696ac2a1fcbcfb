import type { Node } from "../../ir/node.js";
import {
  add,
  cast,
  divide,
  equal,
  less,
  lessEqual,
  maximum,
  minimum,
  multiply,
  select,
  sqrt,
  subtract,
} from "../../ops/arithmetic.js";
import { cumulativeSum } from "../../ops/cumulative-sum.js";
import { gather } from "../../ops/gather.js";
import { expand, reduceSum, reshape } from "../../ops/layout.js";
import { constant, iota } from "../../ops/leaves.js";
import { reduceMean } from "../../ops/reduce.js";
import { take, topK } from "../../ops/top-k.js";

export interface SampleOptions {
  /** Rows to keep, fewer than there are. */
  readonly count: number;
  /** Part of the probability that all rows share alike. */
  readonly uniformShare: number;
  /** Winners among them; undefined = the number that gives the least variance. */
  readonly winners?: number | undefined;
}

export interface RowSample {
  /** [k, d] in the type of x: the winners as they are, the drawn ones scaled so that sums of products are unbiased. */
  readonly rows: Node;
  /** i32 [k]. */
  readonly ids: Node;
  /** How many of them are winners, i32 [1]. */
  readonly winners: Node;
}

const smallest = 1e-8;

/**
 * Column-row sampling with winners (Liu et al. 2023, section 3): k rows of x [n, d] of which the c* most probable are
 * taken as they are, and the others drawn from the rest with replacement by `uniform` [k], numbers in [0, 1). A row is
 * as probable as its norm is large. Rows and their probabilities are sorted once, so that a row is drawn by looking up
 * a number in the sums of the probabilities from the largest on, and is scaled by the very interval that it was hit in.
 */
export function sampleRows(x: Node, uniform: Node, options: SampleOptions): RowSample {
  const [n = 0, width = 0] = x.shape;
  const { count } = options;
  const { values, places } = topK(rowWeights(x, options.uniformShare), { count: n, by: "largest", order: "rank" });
  const sums = cumulativeSum(values);
  const total = take(sums, constant(x.graph, n - 1, [1], "i32"));
  const winners = winnerCount(sums, total, options);
  // The winners' part of the whole, and what is left to draw from.
  const won = sumBefore(sums, winners);
  const left = subtract(total, won);
  const drawn = minimum(lookUp(sums, add(won, multiply(uniform, left))), n - 1);
  const rank = iota(x.graph, [count], 0);
  const wins = less(rank, winners);
  const sorted = select(wins, rank, drawn);
  const probability = maximum(subtract(take(sums, sorted), sumBefore(sums, sorted)), 1e-37);
  const draws = cast(subtract(count, winners), "f32");
  const scale = select(wins, 1, divide(left, multiply(probability, draws)));
  const ids = take(places, sorted);
  const rows = multiply(cast(gather(x, ids), "f32"), expand(reshape(scale, [count, 1]), [count, width]));
  return { rows: cast(rows, x.dtype), ids, winners };
}

/** Norm of each row, mixed with their mean: [n], not normalised. */
function rowWeights(x: Node, uniformShare: number): Node {
  const whole = cast(x, "f32");
  const norms = add(sqrt(reduceSum(multiply(whole, whole), [1])), smallest);
  const mixed = add(multiply(norms, 1 - uniformShare), multiply(reduceMean(norms, [0]), uniformShare));
  return reshape(mixed, [x.shape[0] ?? 0]);
}

/** The c < k with the least (1 - q_c) / (k - c), where q_c is the part of the c largest; i32 [1]. */
function winnerCount(sums: Node, total: Node, { count, winners }: SampleOptions): Node {
  const { graph } = sums;
  if (winners !== undefined || count === 1) return constant(graph, winners ?? 0, [1], "i32");
  // Scores of c = 1 .. k - 1, then of c = 0, which thus must be better than all others.
  const place = iota(graph, [count], 0);
  const none = equal(place, count - 1);
  const rest = select(none, total, subtract(total, take(sums, place)));
  const budget = select(none, count, subtract(count - 1, place));
  const best = topK(divide(rest, cast(budget, "f32")), { count: 1, by: "smallest", order: "rank" }).places;
  return select(equal(best, count - 1), 0, add(best, 1));
}

/** The sum of the first `places` elements: 0 for none. */
function sumBefore(sums: Node, places: Node): Node {
  return select(less(0, places), take(sums, maximum(subtract(places, 1), 0)), 0);
}

/** For each number the first place whose sum is above it: as many as sums are not. */
function lookUp(sums: Node, numbers: Node): Node {
  const [n = 0, k = 0] = [sums.shape[0], numbers.shape[0]];
  const below = lessEqual(expand(reshape(sums, [1, n]), [k, n]), expand(reshape(numbers, [k, 1]), [k, n]));
  return cast(reshape(reduceSum(cast(below, "f32"), [1]), [k]), "i32");
}
