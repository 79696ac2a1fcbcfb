import { must } from "../../errors.js";

export const coordinateChoices = ["largest", "smallest", "random", "proportional", "half"] as const;

/** Which coordinates are kept, by a score: see {@link chooseCoordinates}. */
export type CoordinateChoice = (typeof coordinateChoices)[number];

/**
 * `count` different places of `scores` >= 0: those of the largest or smallest scores, drawn evenly, drawn in
 * proportion to the score without replacement, or half of them the largest and the others drawn evenly. `uniform`
 * gives so many numbers in (0, 1). Of equal scores the first place is taken.
 */
export function chooseCoordinates(
  scores: Float64Array,
  count: number,
  choice: CoordinateChoice,
  uniform: (count: number) => Float64Array,
): Int32Array {
  if (count >= scores.length) return Int32Array.from(scores, (_, place) => place);
  switch (choice) {
    case "largest":
      return leading(scores, count);
    case "smallest":
      return leading(
        scores.map((score) => -score),
        count,
      );
    case "random":
      return leading(uniform(scores.length), count);
    case "proportional":
      return leading(raceKeys(scores, uniform(scores.length)), count);
    case "half": {
      const first = leading(scores, Math.ceil(count / 2));
      const keys = uniform(scores.length);
      for (const place of first) keys[place] = -Infinity;
      return Int32Array.of(...first, ...leading(keys, count - first.length)).sort();
    }
  }
}

/** Keys whose largest are a draw without replacement in proportion to the scores (Efraimidis and Spirakis 2006). */
function raceKeys(scores: Float64Array, uniform: Float64Array): Float64Array {
  return scores.map((score, place) => (score > 0 ? Math.log(must(uniform[place], "draw")) / score : -Infinity));
}

/** Places of the `count` largest keys, in ascending order; NaN counts as smallest. */
function leading(keys: Float64Array, count: number): Int32Array {
  const rank = keys.map((key) => (Number.isNaN(key) ? -Infinity : key));
  const order = Int32Array.from(rank, (_, place) => place);
  order.sort((a, b) => {
    const [first, second] = [rank[a] ?? 0, rank[b] ?? 0];
    return first === second ? a - b : first > second ? -1 : 1;
  });
  return order.slice(0, count).sort();
}
