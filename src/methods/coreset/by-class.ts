import { must } from "../../errors.js";
import type { Division } from "./allocation.js";
import { divideBudget } from "./allocation.js";
import type { CoordinateChoice } from "./coordinates.js";
import { chooseCoordinates } from "./coordinates.js";
import { facilityLocation } from "./facility.js";
import type { Features, Metric } from "./features.js";
import { meanMagnitudes, similarities } from "./features.js";

/** How medoids are chosen class by class. */
export interface ClassChoice {
  /** Medoids in all. */
  readonly budget: number;
  readonly division: Division;
  /** Coordinates that are compared, each class its own. */
  readonly coordinates: number;
  readonly ranking: CoordinateChoice;
  readonly metric: Metric;
  /** So many numbers in (0, 1), by a name. */
  readonly uniform: (name: string, count: number) => Float64Array;
}

/** An example that stands for others of its class. */
export interface Medoid {
  readonly place: number;
  /** Examples that it stands for, itself included. */
  readonly weight: number;
}

/** Medoids of described examples, from each class its share; classes in ascending order, best medoids first. */
export function medoidsByClass(
  features: Features,
  classOf: (place: number) => number,
  choice: ClassChoice,
): readonly Medoid[] {
  const classes = new Map<number, number[]>();
  for (let place = 0; place < features.count; place++) {
    const own = classOf(place);
    classes.set(own, [...(classes.get(own) ?? []), place]);
  }
  const groups = [...classes].sort(([a], [b]) => a - b);
  const shares = divideBudget(
    groups.map(([, { length }]) => length),
    choice.budget,
    choice.division,
    (count, total) => ascending(choice.uniform("lots", total)).slice(0, count),
  );
  return groups.flatMap(([own, group], index) => medoids(features, group, must(shares[index], "share"), own, choice));
}

function medoids(
  features: Features,
  group: readonly number[],
  count: number,
  own: number,
  { coordinates, ranking, metric, uniform }: ClassChoice,
): readonly Medoid[] {
  if (count === 0) return [];
  if (count === group.length) return group.map((place) => ({ place, weight: 1 }));
  const draw = (length: number): Float64Array => uniform(`coordinates.${own}`, length);
  const compared = chooseCoordinates(meanMagnitudes(features, group), coordinates, ranking, draw);
  const { picks, weights } = facilityLocation(similarities(features, group, compared, metric), count);
  return picks.map((pick, rank) => ({ place: must(group[pick], "member"), weight: must(weights[rank], "weight") }));
}

/** Places in the order of their keys. */
function ascending(keys: Float64Array): number[] {
  return [...keys.keys()].sort((a, b) => must(keys[a], "key") - must(keys[b], "key"));
}
