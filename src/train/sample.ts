import { ThimbleError } from "../errors.js";
import { drawUniform } from "../methods/initial.js";

export interface SampleSettings {
  readonly temperature: number;
  readonly topK?: number | undefined;
  readonly topP: number;
  readonly seed: number;
}

/**
 * Chooses a token from logits: temperature, then the k likeliest, then the nucleus (Holtzman et al. 2020). The random
 * number is a function of the seed and `index` alone, so the same text comes out everywhere.
 */
export function sampleToken(logits: Float32Array, settings: SampleSettings, index: number): number {
  const best = likeliest(logits);
  const { temperature, topK = logits.length, topP, seed } = settings;
  if (temperature === 0 || topK === 1) return best;
  const highest = logits[best] ?? 0;
  const order = rank(logits, topK, topP);
  const shares = order.map((id) => Math.exp(((logits[id] ?? 0) - highest) / temperature));
  const kept = nucleus(shares, topP);
  const draw = (drawUniform(seed, `sample.${index}`, 1)[0] ?? 0) * kept.sum;
  let sum = 0;
  for (let place = 0; place < kept.count; place++) {
    sum += shares[place] ?? 0;
    if (draw < sum) return order[place] ?? best;
  }
  return order[kept.count - 1] ?? best;
}

/** The first of the largest logits. */
function likeliest(logits: Float32Array): number {
  let best = 0;
  for (let id = 0; id < logits.length; id++) {
    const value = logits[id] ?? NaN;
    if (Number.isNaN(value) || value === Infinity) {
      throw new ThimbleError("logits-not-finite", "The model gives logits that are not finite numbers", {
        given: `${value} for token ${id}`,
        fix: "The weights or the adapter are broken; try an earlier checkpoint.",
      });
    }
    if (value > (logits[best] ?? -Infinity)) best = id;
  }
  return best;
}

/** Ids from the likeliest down, cut to k; in no order where everything stays. */
function rank(logits: Float32Array, k: number, p: number): number[] {
  const ids = Array.from(logits, (_, id) => id);
  if (k >= logits.length && p >= 1) return ids;
  ids.sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0) || a - b);
  return ids.slice(0, k);
}

/** How many of the ranked shares have the probability `p` together: at least one. */
function nucleus(shares: readonly number[], p: number): { count: number; sum: number } {
  const total = shares.reduce((sum, share) => sum + share, 0);
  if (p >= 1) return { count: shares.length, sum: total };
  let sum = 0;
  for (const [place, share] of shares.entries()) {
    sum += share;
    if (sum >= p * total) return { count: place + 1, sum };
  }
  return { count: shares.length, sum };
}
