import { describe, expect, test } from "vitest";
import { must } from "../../errors.js";
import { drawDistinct, drawNormal, drawUniform } from "../initial.js";
import { divideBudget } from "./allocation.js";
import { chooseCoordinates } from "./coordinates.js";
import { facilityLocation } from "./facility.js";
import type { Features, Metric } from "./features.js";
import { denseFeatures, meanMagnitudes, similarities } from "./features.js";
import { adamRescaled, advanceMoments, probedFeatures } from "./gradients.js";

const refuseDraw = (): never => {
  throw new Error("nothing is drawn");
};
const draw = (count: number, total: number): number[] => drawDistinct(3, "lots", count, total);
const uniform = (count: number): Float64Array => drawUniform(5, "uniform", count);

/** All columns of some features, [count, size]. */
function dense(features: Features): number[][] {
  const column = new Float64Array(features.count);
  const rows: number[][] = Array.from({ length: features.count }, () => []);
  for (let place = 0; place < features.size; place++) {
    features.column(place, column);
    column.forEach((value, example) => must(rows[example], "row").push(value));
  }
  return rows;
}

describe("dividing a budget among sources", () => {
  test("gives the page's example", () => {
    expect(divideBudget([50, 30, 8], 40, "proportional", refuseDraw)).toEqual([22, 14, 4]);
  });

  test("spends it all, and no source gets more than it has", () => {
    for (const division of ["proportional", "balanced"] as const) {
      for (let round = 0; round < 200; round++) {
        const sizes = [...drawUniform(round, "sizes", 1 + (round % 7))].map((value) => Math.floor(value * 12));
        const total = sizes.reduce((a, b) => a + b, 0);
        for (const budget of [0, 1, total >> 1, total, total + 3]) {
          const shares = divideBudget(sizes, budget, division, draw);
          expect(shares.reduce((a, b) => a + b, 0)).toBe(Math.min(budget, total));
          shares.forEach((share, source) => {
            expect(share).toBeLessThanOrEqual(must(sizes[source], "size"));
          });
        }
      }
    }
  });

  test("balanced draws among those that were rounded", () => {
    const shares = divideBudget([40, 25, 25, 10], 20, "balanced", draw);
    expect([shares[0], shares[3]]).toEqual([8, 2]);
    expect(new Set([shares[1], shares[2]])).toEqual(new Set([5]));
    const drawn = divideBudget([3, 3, 3], 4, "balanced", (count, total) => {
      expect([count, total]).toEqual([1, 3]);
      return [2];
    });
    expect(drawn).toEqual([1, 1, 2]);
  });
});

describe("choosing coordinates", () => {
  const scores = Float64Array.of(3, 1, NaN, 5, 0, 5, 2);

  test("largest and smallest, the first of equals, NaN last", () => {
    expect([...chooseCoordinates(scores, 2, "largest", refuseDraw)]).toEqual([3, 5]);
    expect([...chooseCoordinates(scores, 3, "largest", refuseDraw)]).toEqual([0, 3, 5]);
    expect([...chooseCoordinates(scores, 2, "smallest", refuseDraw)]).toEqual([1, 4]);
    expect([...chooseCoordinates(scores, 9, "largest", refuseDraw)]).toEqual([0, 1, 2, 3, 4, 5, 6]);
  });

  test("half of them the largest, the others drawn", () => {
    const many = Float64Array.from({ length: 100 }, (_, place) => place);
    const chosen = [...chooseCoordinates(many, 20, "half", uniform)];
    expect(new Set(chosen).size).toBe(20);
    expect(chosen.slice(-10)).toEqual([90, 91, 92, 93, 94, 95, 96, 97, 98, 99]);
    expect(Math.min(...chosen)).toBeLessThan(50);
  });

  test("random ones are spread evenly, proportional ones by score", () => {
    const weights = Float64Array.of(1, 2, 4, 1);
    const counts = { random: [0, 0, 0, 0], proportional: [0, 0, 0, 0] };
    const rounds = 4000;
    for (const choice of ["random", "proportional"] as const) {
      for (let round = 0; round < rounds; round++) {
        const [place = 0] = chooseCoordinates(weights, 1, choice, (count) => drawUniform(round, choice, count));
        counts[choice][place]!++;
      }
    }
    const expected = { random: [0.25, 0.25, 0.25, 0.25], proportional: [0.125, 0.25, 0.5, 0.125] };
    for (const choice of ["random", "proportional"] as const) {
      counts[choice].forEach((count, place) => {
        const share = must(expected[choice][place], "share");
        const error = Math.sqrt(rounds * share * (1 - share));
        expect(Math.abs(count - rounds * share)).toBeLessThan(4 * error);
      });
    }
  });
});

describe("features", () => {
  const [n, q, m] = [9, 3, 40];
  const slopes = drawNormal(1, "slopes", n * q);
  const directions = Array.from({ length: q }, (_, j) => Float32Array.from(drawNormal(2, `z${j}`, m)));
  const factor = Float32Array.from(drawNormal(4, "weights", m));
  const moments = {
    mean: Float32Array.from(drawNormal(6, "mean", m)),
    square: Float32Array.from(drawUniform(6, "square", m)),
  };
  const gradient = (i: number, k: number): number => {
    const terms = directions.map((z, j) => must(slopes[i * q + j], "slope") * must(z[k], "z"));
    return (terms.reduce((a, b) => a + b) / q) * must(factor[k], "factor");
  };
  const members = [0, 2, 3, 7, 8];

  test("factorised distances and cosines equal those of the dense matrix", () => {
    const step = 4;
    const rescaled = (i: number, k: number): number => {
      const g = gradient(i, k);
      const mean = (0.9 * must(moments.mean[k], "m") + 0.1 * g) / (1 - 0.9 ** 5);
      const square = (0.999 * must(moments.square[k], "v") + 0.001 * g * g) / (1 - 0.999 ** 5);
      return mean / (Math.sqrt(square) + 1e-8);
    };
    const features = adamRescaled(probedFeatures({ slopes, directions, factor }), moments, step);
    const matrix = Array.from({ length: n }, (_, i) => Array.from({ length: m }, (_, k) => rescaled(i, k)));
    dense(features).forEach((row, i) => {
      row.forEach((value, k) => {
        expect(value).toBeCloseTo(must(matrix[i]?.[k], "h"), 9);
      });
    });
    const places = chooseCoordinates(meanMagnitudes(features, members), 11, "largest", refuseDraw);
    const means = matrix[0]!.map((_, k) => Math.abs(members.reduce((sum, i) => sum + matrix[i]![k]!, 0) / 5));
    const threshold = [...means].sort((a, b) => b - a)[10]!;
    expect([...places]).toEqual(means.flatMap((mean, k) => (mean >= threshold ? [k] : [])));
    const rows = members.map((i) => [...places].map((k) => matrix[i]![k]!));
    const reference: Record<Metric, (a: number[], b: number[]) => number> = {
      l1: (a, b) => a.reduce((sum, value, k) => sum + Math.abs(value - b[k]!), 0),
      euclidean: (a, b) => Math.hypot(...a.map((value, k) => value - b[k]!)),
      cosine: (a, b) => a.reduce((sum, value, k) => sum + value * b[k]!, 0) / (Math.hypot(...a) * Math.hypot(...b)),
    };
    for (const metric of ["l1", "euclidean", "cosine"] as const) {
      const values = rows.flatMap((a) => rows.map((b) => reference[metric](a, b)));
      const expected = metric === "cosine" ? values : values.map((value) => Math.max(...values) - value);
      const found = similarities(features, members, places, metric);
      found.forEach((value, pair) => {
        expect(Math.abs(value - expected[pair]!)).toBeLessThan(1e-5);
      });
    }
  });

  test("one shared direction makes all features of rank one after Adam", () => {
    const one = probedFeatures({ slopes: slopes.slice(0, n), directions: directions.slice(0, 1) });
    const zero = { mean: new Float32Array(m), square: new Float32Array(m) };
    const rows = dense(adamRescaled(one, zero, 0));
    rows.forEach((row) => {
      row.forEach((value) => {
        expect(Math.abs(value)).toBeCloseTo(1, 4);
      });
    });
  });

  test("moments go on by the mean of the chosen", () => {
    const copy = { mean: moments.mean.slice(), square: moments.square.slice() };
    const features = probedFeatures({ slopes, directions, factor });
    advanceMoments(features, [], copy);
    expect(copy).toEqual(moments);
    advanceMoments(features, members, copy);
    for (let k = 0; k < m; k++) {
      const of = (value: (g: number) => number): number =>
        members.reduce((sum, i) => sum + value(gradient(i, k)), 0) / members.length;
      expect(copy.mean[k]).toBeCloseTo(
        of((g) => 0.9 * moments.mean[k]! + 0.1 * g),
        5,
      );
      expect(copy.square[k]).toBeCloseTo(
        of((g) => 0.999 * moments.square[k]! + 0.001 * g * g),
        5,
      );
    }
  });

  test("what is not a number counts as unlike", () => {
    const odd = denseFeatures([1, 0, NaN, 0, 0, 0], 3);
    const found = similarities(odd, [0, 1, 2], [0, 1], "cosine");
    expect(found[0]).toBe(1);
    expect([found[1], found[2], found[8]]).toEqual([-0.95, -0.95, -0.95]);
  });
});

describe("facility location", () => {
  const matrix = (seed: number, n: number): Float64Array => {
    const points = denseFeatures(drawNormal(seed, "points", n * 3), n);
    return similarities(
      points,
      Array.from({ length: n }, (_, i) => i),
      [0, 1, 2],
      seed % 2 === 0 ? "l1" : "cosine",
    );
  };
  const valueOf = (s: Float64Array, n: number, picks: readonly number[]): number => {
    let value = 0;
    for (let i = 0; i < n; i++) value += Math.max(0, ...picks.map((pick) => s[i * n + pick]!));
    return value;
  };

  test("lazy greedy picks what naive greedy picks, with the same gains", () => {
    for (let seed = 0; seed < 20; seed++) {
      const [n, k] = [25, 10];
      const s = matrix(seed, n);
      const { picks, gains, weights } = facilityLocation(s, k);
      const naive: number[] = [];
      for (let round = 0; round < k; round++) {
        const before = valueOf(s, n, naive);
        const rises = Array.from({ length: n }, (_, place) =>
          naive.includes(place) ? -1 : valueOf(s, n, [...naive, place]) - before,
        );
        const best = Math.max(...rises);
        expect(rises[must(picks[round], "pick")]).toBeCloseTo(best, 3);
        expect(gains[round]).toBeCloseTo(best, 3);
        naive.push(must(picks[round], "pick"));
      }
      expect(new Set(picks).size).toBe(k);
      expect(weights.reduce((a, b) => a + b)).toBe(n);
      expect(Math.min(...weights)).toBeGreaterThanOrEqual(1);
    }
  });

  test("is within 1 - 1/e of the best of all subsets", () => {
    for (let seed = 0; seed < 6; seed++) {
      const [n, k] = [12, 4];
      const s = matrix(seed, n);
      let best = 0;
      for (let set = 0; set < 1 << n; set++) {
        const picks = Array.from({ length: n }, (_, i) => i).filter((i) => ((set >> i) & 1) === 1);
        if (picks.length === k) best = Math.max(best, valueOf(s, n, picks));
      }
      expect(valueOf(s, n, facilityLocation(s, k).picks)).toBeGreaterThanOrEqual((1 - 1 / Math.E) * best);
    }
  });

  test("of two that only cover each other takes the first, whatever the rounding", () => {
    for (let seed = 0; seed < 50; seed++) {
      const [x, y, far] = drawUniform(seed, "line", 3);
      const points = denseFeatures([x! / 10, y! / 10, 5 + far!, 5 + far! / 2], 4);
      const { picks } = facilityLocation(similarities(points, [0, 1, 2, 3], [0], "l1"), 2);
      expect(picks.filter((pick) => pick < 2)).toHaveLength(1);
      // The second pick is one of a pair of equals, so it is the first of them.
      expect(picks[1]).toBe(must(picks[0], "pick") < 2 ? 2 : 0);
    }
  });

  test("takes none, all, and never stops early", () => {
    const s = matrix(2, 5);
    expect(facilityLocation(s, 0)).toEqual({ picks: [], gains: [], weights: [] });
    expect(facilityLocation(s, 5).picks).toEqual([0, 1, 2, 3, 4]);
    expect(facilityLocation(s, 7).weights).toEqual([1, 1, 1, 1, 1]);
    const alike = new Float64Array(16).fill(2);
    expect(facilityLocation(alike, 3)).toEqual({ picks: [0, 1, 2], gains: [8, 0, 0], weights: [2, 1, 1] });
  });
});
