/** What describes an example, coordinate by coordinate: nothing of the size examples x coordinates need exist. */
export interface Features {
  /** Examples that they describe. */
  readonly count: number;
  /** Coordinates of each. */
  readonly size: number;
  /** Coordinate number `place` of every example, written to `into` (of length `count`). */
  column(place: number, into: Float64Array): void;
}

/** Features that are there already: `values` is [count, size], row by row. */
export function denseFeatures(values: ArrayLike<number>, count: number): Features {
  const size = count === 0 ? 0 : values.length / count;
  return {
    count,
    size,
    column: (place, into) => {
      for (let example = 0; example < count; example++) into[example] = values[example * size + place] ?? 0;
    },
  };
}

/** The mean of each coordinate over some of the examples, without its sign: what coordinates are ranked by. */
export function meanMagnitudes(features: Features, members: readonly number[]): Float64Array {
  const column = new Float64Array(features.count);
  return Float64Array.from({ length: features.size }, (_, place) => {
    features.column(place, column);
    let sum = 0;
    for (const member of members) sum += column[member] ?? 0;
    return Math.abs(sum / members.length);
  });
}

export type Metric = "l1" | "euclidean" | "cosine";

/** What a similarity that is not a number counts as (the reference's value). */
const unknownSimilarity = -0.95;

/**
 * How alike some of the examples are over some coordinates, [n, n] in the order of `members`: the largest distance less
 * the distance, or the cosine of the angle. Sums go coordinate by coordinate, so that it takes n * n numbers and no
 * more.
 */
export function similarities(
  features: Features,
  members: readonly number[],
  coordinates: ArrayLike<number>,
  metric: Metric,
): Float64Array {
  const sums = pairSums(features, members, coordinates, metric);
  const n = members.length;
  if (metric === "cosine") return cosines(sums, n);
  if (metric === "euclidean") sums.forEach((sum, pair) => (sums[pair] = Math.sqrt(sum)));
  let largest = 0;
  for (const distance of sums) if (distance > largest) largest = distance;
  return sums.map((distance) => known(largest - distance));
}

function known(similarity: number): number {
  return Number.isNaN(similarity) ? unknownSimilarity : similarity;
}

/** Sums over the coordinates of |a - b|, (a - b)^2 or a b, for each pair. */
function pairSums(
  features: Features,
  members: readonly number[],
  coordinates: ArrayLike<number>,
  metric: Metric,
): Float64Array {
  const n = members.length;
  const sums = new Float64Array(n * n);
  const [all, own] = [new Float64Array(features.count), new Float64Array(n)];
  for (let index = 0; index < coordinates.length; index++) {
    features.column(coordinates[index] ?? 0, all);
    members.forEach((member, place) => (own[place] = all[member] ?? 0));
    for (let i = 0; i < n; i++) {
      const a = own[i] ?? 0;
      for (let j = i; j < n; j++) {
        const b = own[j] ?? 0;
        const term = metric === "cosine" ? a * b : metric === "l1" ? Math.abs(a - b) : (a - b) * (a - b);
        sums[i * n + j] = (sums[i * n + j] ?? 0) + term;
      }
    }
  }
  for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) sums[i * n + j] = sums[j * n + i] ?? 0;
  return sums;
}

function cosines(products: Float64Array, n: number): Float64Array {
  const lengths = Float64Array.from({ length: n }, (_, place) => Math.sqrt(products[place * n + place] ?? 0));
  return products.map((product, pair) => {
    const [row, column] = [Math.floor(pair / n), pair % n];
    return known(product / ((lengths[row] ?? 0) * (lengths[column] ?? 0)));
  });
}
