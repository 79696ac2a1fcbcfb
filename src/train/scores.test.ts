import { describe, expect, it } from "vitest";
import type { SessionBatch } from "../session/types.js";
import { Scorer } from "./scores.js";

function batch(labels: readonly number[], weights: readonly number[], targets?: readonly number[]): SessionBatch {
  const none = new Int32Array(0);
  return {
    ids: none,
    positions: none,
    segments: none,
    labels: Int32Array.from(labels),
    weights: Float32Array.from(weights),
    ...(targets === undefined ? {} : { targets: Float32Array.from(targets) }),
  };
}

describe("scores", () => {
  it("of two classes are scikit-learn's", () => {
    const scorer = new Scorer();
    // True: 1 1 1 0 0, told: 1 1 0 0 1; the last row has no weight.
    scorer.add(batch([1, 1, 1], [1, 1, 1]), Float32Array.of(0, 1, -1, 2, 3, 1));
    scorer.add(batch([0, 0, 1], [1, 1, 0]), Float32Array.of(5, 1, 0, 0.5, 9, 0));
    const { accuracy, f1, matthews } = scorer.scores();
    expect(accuracy).toBeCloseTo(0.6, 12);
    expect(f1).toBeCloseTo(2 / 3, 12);
    expect(matthews).toBeCloseTo(1 / 6, 12);
  });

  it("of three classes are means over them", () => {
    const scorer = new Scorer();
    // True: 0 1 2 2, told: 0 2 2 1.
    const logits = Float32Array.of(1, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0);
    scorer.add(batch([0, 1, 2, 2], [1, 1, 1, 1]), logits);
    const { accuracy, f1, matthews } = scorer.scores();
    expect(accuracy).toBeCloseTo(0.5, 12);
    expect(f1).toBeCloseTo(0.5, 12);
    expect(matthews).toBeCloseTo(0.2, 12);
  });

  it("are 0 where a class alone is told", () => {
    const scorer = new Scorer();
    scorer.add(batch([1, 0], [1, 1]), Float32Array.of(1, 0, 1, 0));
    expect(scorer.scores()).toEqual({ accuracy: 0.5, f1: 0, matthews: 0 });
  });

  it("of numbers are Pearson's correlation", () => {
    const scorer = new Scorer();
    scorer.add(batch([0, 0, 0, 0], [1, 1, 1, 0], [1, 2, 4, 9]), Float32Array.of(2, 1, 5, 100));
    // Covariance 5.333... of deviations (-4/3, -1/3, 5/3) and (-2/3, -5/3, 7/3).
    expect(scorer.scores()["pearson"]).toBeCloseTo(16 / 3 / Math.sqrt((14 / 3) * (26 / 3)), 6);
    const constant = new Scorer();
    constant.add(batch([0, 0], [1, 1], [1, 2]), Float32Array.of(3, 3));
    expect(constant.scores()).toEqual({ pearson: 0 });
  });
});
