import { must } from "../../errors.js";

/** Examples that stand for all: medoids, best first. */
export interface Medoids {
  /** Places in the similarity matrix. */
  readonly picks: readonly number[];
  /** By how much each pick raised the value. */
  readonly gains: readonly number[];
  /** How many of all examples each stands for, itself included; they sum to the number of examples. */
  readonly weights: readonly number[];
}

/**
 * Facility location: picks `count` of n examples one by one so that F(A) = sum over i of max(0, max over j in A of S_ij)
 * rises the most each time (Nemhauser et al. 1978: at least 1 - 1/e of the best). Lazy (Minoux 1978): gains only
 * shrink, so an example is looked at again only while its last gain is the highest. Of equal gains the first example
 * wins; gains of 0 are taken as well. `similarity` is [n, n], row by row.
 */
export function facilityLocation(similarity: Float64Array, count: number): Medoids {
  const n = Math.round(Math.sqrt(similarity.length));
  const everything = Array.from({ length: n }, (_, place) => place);
  if (count <= 0) return { picks: [], gains: [], weights: [] };
  const covered = new Float64Array(n);
  const bounds = Float64Array.from(everything, (place) => gainOf(similarity, covered, place));
  if (count >= n) return { picks: everything, gains: [...bounds], weights: everything.map(() => 1) };
  const picks: number[] = [];
  const gains: number[] = [];
  while (picks.length < count) {
    const { place, gain } = bestOf(similarity, covered, bounds);
    picks.push(place);
    gains.push(gain);
    bounds[place] = -Infinity;
    for (let i = 0; i < n; i++) covered[i] = Math.max(covered[i] ?? 0, similarity[i * n + place] ?? 0);
  }
  return { picks, gains, weights: clusterSizes(similarity, picks) };
}

/** The example of the highest gain; `bounds`, which gains never exceed, become sharper on the way. */
function bestOf(
  similarity: Float64Array,
  covered: Float64Array,
  bounds: Float64Array,
): { readonly place: number; readonly gain: number } {
  let checked = -1;
  for (;;) {
    let place = 0;
    for (let other = 1; other < bounds.length; other++) {
      if (must(bounds[other], "bound") > must(bounds[place], "bound")) place = other;
    }
    if (place === checked) return { place, gain: must(bounds[place], "gain") };
    bounds[place] = gainOf(similarity, covered, place);
    checked = place;
  }
}

/**
 * By how much example `place` would raise F, when the examples are covered so far as `covered` says. Rounded to f32, so
 * that gains that are equal but for the order of their sums (those of two examples that only cover each other) count as
 * equal; rounding keeps their order.
 */
function gainOf(similarity: Float64Array, covered: Float64Array, place: number): number {
  const n = covered.length;
  let gain = 0;
  for (let i = 0; i < n; i++) gain += Math.max(0, (similarity[i * n + place] ?? 0) - (covered[i] ?? 0));
  return Math.fround(gain);
}

/** How many examples are most like each pick; a pick is its own, and of equals the first pick wins. */
function clusterSizes(similarity: Float64Array, picks: readonly number[]): number[] {
  const n = Math.round(Math.sqrt(similarity.length));
  const sizes = picks.map(() => 0);
  for (let i = 0; i < n; i++) {
    const own = picks.indexOf(i);
    let nearest = own;
    if (own < 0) {
      nearest = 0;
      picks.forEach((pick, rank) => {
        const best = must(picks[nearest], "pick");
        if ((similarity[i * n + pick] ?? 0) > (similarity[i * n + best] ?? 0)) nearest = rank;
      });
    }
    sizes[nearest] = must(sizes[nearest], "size") + 1;
  }
  return sizes;
}
