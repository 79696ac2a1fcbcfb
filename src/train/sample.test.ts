import { describe, expect, it } from "vitest";
import { sampleToken } from "./sample.js";
import { StopText } from "./stop-text.js";

const logits = Float32Array.from([1, 3, 2, 3, -Infinity, 0]);
const plain = { temperature: 1, topP: 1, seed: 5 };

/** How often each token comes, of 4000 draws. */
function shares(settings: Parameters<typeof sampleToken>[1]): number[] {
  const counts = new Array<number>(logits.length).fill(0);
  for (let index = 0; index < 4000; index++) {
    const id = sampleToken(logits, settings, index);
    counts[id] = (counts[id] ?? 0) + 1 / 4000;
  }
  return counts;
}

function softmax(values: readonly number[]): number[] {
  const all = values.map((value) => Math.exp(value));
  return all.map((value) => value / all.reduce((sum, other) => sum + other));
}

describe("sampling", () => {
  it("draws tokens with the probabilities of the logits", () => {
    softmax([1, 3, 2, 3, -Infinity, 0]).forEach((share, id) => {
      expect(shares(plain)[id]).toBeCloseTo(share, 1);
    });
    softmax([0.5, 1.5, 1, 1.5, -Infinity, 0]).forEach((share, id) => {
      expect(Math.abs((shares({ ...plain, temperature: 2 })[id] ?? 1) - share)).toBeLessThan(0.03);
    });
  });

  it("cuts to the k likeliest and to the nucleus", () => {
    const two = shares({ ...plain, topK: 2 });
    expect(two.map((share) => share > 0)).toEqual([false, true, false, true, false, false]);
    expect(two[1]).toBeCloseTo(0.5, 1);
    const [, first = 0] = softmax([1, 3, 2, 3, -Infinity, 0]);
    const nucleus = shares({ ...plain, topP: 2 * first + 0.01 });
    expect(nucleus.map((share) => share > 0)).toEqual([false, true, true, true, false, false]);
    expect(shares({ ...plain, topP: 1e-9 })[1]).toBeCloseTo(1, 6);
  });

  it("is greedy at temperature 0, the first of equals, and the same for the same seed and place", () => {
    expect(sampleToken(logits, { ...plain, temperature: 0 }, 3)).toBe(1);
    expect(sampleToken(logits, plain, 7)).toBe(sampleToken(logits, plain, 7));
    const other = Array.from({ length: 50 }, (_, index) => sampleToken(logits, { ...plain, seed: 6 }, index));
    expect(other).not.toEqual(Array.from({ length: 50 }, (_, index) => sampleToken(logits, plain, index)));
  });

  it("refuses logits that are not numbers", () => {
    expect(() => sampleToken(Float32Array.of(1, NaN), plain, 0)).toThrow("not finite");
  });
});

describe("stop texts", () => {
  const shown = (stops: readonly string[], pieces: readonly string[]): [string[], boolean] => {
    const stop = new StopText(stops);
    const out = pieces.map((piece) => stop.push(piece));
    return [[...out, stop.flush()], stop.stopped];
  };

  it("are found across pieces, and only what may start one is held back", () => {
    expect(shown(["END"], ["abc E", "N", "x"])).toEqual([["abc ", "", "ENx", ""], false]);
    expect(shown(["END"], ["abc E", "ND more", "x"])).toEqual([["abc ", "", "", ""], true]);
    expect(shown(["aab"], ["aaa", "b!"])).toEqual([["a", "", ""], true]);
    expect(shown(["\n\n", "User:"], ["hi\n", "Us", "er"])).toEqual([["hi", "\n", "", "User"], false]);
    expect(shown([], ["a", "b"])).toEqual([["a", "b", ""], false]);
  });
});
