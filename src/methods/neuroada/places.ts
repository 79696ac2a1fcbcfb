import { drawUniform } from "../initial.js";
import type { SparseLayer } from "../sparse/layer.js";

export const selections = ["magnitude", "reverse", "random"] as const;

export interface PlaceChoice {
  readonly selection: (typeof selections)[number];
  readonly seed: number;
}

/**
 * k different connections of every row of a layer, by flat place (output * inputs + input), row after row and ascending
 * within each; of equal weights the one of the lower input. `weight` is as stored.
 */
export function rowPlaces(
  { spec, count, places }: SparseLayer,
  weight: Float32Array,
  { selection, seed }: PlaceChoice,
): Int32Array {
  const { inputs, outputs, transposed, path } = spec;
  const each = count / outputs;
  const drawn = selection === "random" ? drawUniform(seed, places.name, inputs * outputs) : undefined;
  const found = new Int32Array(count);
  const scores = new Float64Array(inputs);
  for (let row = 0; row < outputs; row++) {
    for (let column = 0; column < inputs; column++) {
      const at = transposed ? column * outputs + row : row * inputs + column;
      const size = Math.abs(weight[at] ?? NaN);
      scores[column] = drawn?.[row * inputs + column] ?? (selection === "reverse" ? -size : size);
    }
    const kept = largest(scores, each, path);
    for (let entry = 0; entry < each; entry++) found[row * each + entry] = row * inputs + (kept[entry] ?? 0);
  }
  return found;
}

/** The places of the `count` largest scores, ascending; of equal ones the lower places. */
function largest(scores: Float64Array, count: number, path: string): Int32Array {
  const sorted = Float64Array.from(scores).sort();
  const least = sorted[scores.length - count] ?? NaN;
  if (Number.isNaN(least)) throw new RangeError(`${path} holds values that are not numbers`);
  const above = scores.reduce((sum, score) => (score > least ? sum + 1 : sum), 0);
  const kept = new Int32Array(count);
  let [taken, equal] = [0, count - above];
  scores.forEach((score, place) => {
    if (score > least || (score === least && equal-- > 0)) kept[taken++] = place;
  });
  return kept;
}
