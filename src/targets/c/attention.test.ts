import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { must } from "../../errors.js";
import type { Library } from "../../runtime/compiler.js";
import { nativeFlags } from "../../runtime/platform.js";
import { createPool, type Pool } from "../../runtime/pool.js";
import type { AttentionSpec } from "./attention.js";
import { referenceAttention } from "../../testing/attention-reference.js";
import {
  compileAttention,
  randomValues,
  referenceOf,
  runAttention,
  seedRandom,
  specOf,
  type AttentionCase,
  type Outcome,
} from "../../testing/attention-rig.js";

const cases: Readonly<Record<string, AttentionCase>> = {
  "one block": { queries: 64 },
  "one query": { queries: 1, heads: 2 },
  "two queries, causal": { queries: 2, causal: true },
  "five queries": { queries: 5, heads: 3, causal: true },
  "odd length": { batch: 2, queries: 77, heads: 2 },
  "odd length, causal": { batch: 2, queries: 131, heads: 2, causal: true },
  "grouped heads": { batch: 2, queries: 70, heads: 6, keyHeads: 2, causal: true },
  "head of 8": { queries: 100, headSize: 8, heads: 2, causal: true },
  "head of 16": { queries: 65, headSize: 16 },
  "head of 20": { queries: 90, headSize: 20, heads: 4, keyHeads: 2, causal: true },
  "head of 7": { queries: 33, headSize: 7, heads: 2, causal: true },
  "head of 80": { queries: 66, headSize: 80, causal: true },
  "head of 128": { queries: 129, headSize: 128, heads: 2, keyHeads: 1, causal: true },
  "head of 256": { queries: 70, headSize: 256, causal: true },
  window: { queries: 200, causal: true, window: 37 },
  "window of one": { queries: 70, causal: true, window: 1 },
  "window without order": { queries: 150, window: 20, heads: 2 },
  "more keys than queries": { queries: 40, keys: 170, heads: 2 },
  "more queries than keys": { queries: 170, keys: 40, causal: true },
  "rows that see nothing": { queries: 150, keys: 50, causal: true, window: 30 },
  segments: { batch: 2, queries: 190, packed: [40, 100, 33, -17], causal: true, heads: 2 },
  "segments without order": { queries: 140, packed: [64, 64, -12] },
  "long segments": { queries: 300, packed: [150, 128, -22], causal: true, heads: 2, keyHeads: 1 },
  "padding and window": { queries: 130, packed: [-30, 70, -30], window: 9 },
  "offset, prompt into a cache": { queries: 50, keys: 160, offset: 0, causal: true, heads: 2 },
  "offset, second part": { queries: 70, keys: 200, offset: 61, causal: true, heads: 4, keyHeads: 2 },
  "offset, decoding": { queries: 1, keys: 1300, offset: 1111, causal: true, heads: 6, keyHeads: 2, batch: 2 },
  "decoding three": { queries: 3, keys: 600, offset: 530, causal: true, heads: 3, keyHeads: 1, headSize: 80 },
  "decoding with a window": { queries: 1, keys: 1200, offset: 1100, causal: true, window: 100, headSize: 20 },
  "decoding at the start": { queries: 1, keys: 700, offset: 0, causal: true, heads: 2 },
  "decoding in segments": { queries: 2, keys: 90, offset: 70, causal: true, packed: [30, 60] },
  "large scores": { queries: 96, scale: 3, causal: true },
};

const types = {
  f32: { storage: "f32", compute: "f32" },
  "bf16 computed in f32": { storage: "bf16", compute: "f32" },
  "f32 computed in bf16": { storage: "f32", compute: "bf16" },
  bf16: { storage: "bf16", compute: "bf16" },
} as const;
type TypeName = keyof typeof types;

/** Named cases, for some types; those with a head of 64, and the named ones, where not all are wanted. */
function select(typeNames: readonly TypeName[], names: readonly string[]): [string, AttentionCase][] {
  const chosen = Object.entries(cases).filter(([name]) => names.includes(name));
  return typeNames.flatMap((type) =>
    chosen.map(([name, c]): [string, AttentionCase] => [`${name}, ${type}`, { ...c, ...types[type] }]),
  );
}

const everything = Object.keys(cases);
const most = everything.filter((name) => (cases[name]?.headSize ?? 64) === 64 && name !== "large scores");
const mixed = [...most, "head of 20", "head of 7"];
const few = [
  "odd length, causal",
  "grouped heads",
  "window",
  "head of 20",
  "offset, decoding",
  "rows that see nothing",
];

const builds: readonly (readonly [string, readonly string[], [string, AttentionCase][]])[] = [
  [
    "this machine",
    nativeFlags(),
    [...select(["f32"], everything), ...select(["bf16 computed in f32", "f32 computed in bf16", "bf16"], mixed)],
  ],
  [
    "bf16 dot products",
    [...nativeFlags(), "-DTHIMBLE_BF16_DOT=1"],
    select(["f32 computed in bf16", "bf16"], [...few, "head of 7"]),
  ],
  ["portable code", ["-DTHIMBLE_GENERIC"], select(["f32", "bf16"], few)],
  ...(process.arch === "x64" ? ([["AVX2", ["-mavx2", "-mfma"], select(["f32", "bf16"], few)]] as const) : []),
  // More heads to one of keys than a task takes. Last, so that the cases above keep their random numbers.
  [
    "large groups",
    nativeFlags(),
    [["seven heads to one of keys", { batch: 3, queries: 130, heads: 7, keyHeads: 1, causal: true }]],
  ],
];

/**
 * Greatest difference over the sum of the number expected and the root mean square of its tensor. Infinities must
 * agree; NaN is never right.
 */
function errorOf(actual: Float32Array, expected: Float64Array): number {
  const finite = expected.filter(Number.isFinite);
  const size = Math.max(Math.sqrt(finite.reduce((sum, want) => sum + want * want, 0) / finite.length), 0.05);
  return expected.reduce((worst, want, index) => {
    const got = must(actual[index], "an element");
    if (got === want) return worst;
    const error = Math.abs(got - want) / (Math.abs(want) + size);
    return Number.isNaN(error) ? Infinity : Math.max(worst, error);
  }, 0);
}

/**
 * What the rounding of results (bf16 storage), of operands and of scores may do: an error in a score is a relative
 * error of its exponential. Queries are at most 3 and keys 1, uniform, so that a score is about scale * 3/4 * width at
 * the most, and its error half of the last place.
 */
function tolerance(spec: AttentionSpec, scale: number): number {
  if (spec.compute === "bf16") return 0.08;
  return spec.storage === "bf16" ? 0.03 : 2e-5 + scale * 0.75 * spec.headSize * 2 ** -23;
}

function sameBits(a: Outcome, b: Outcome): boolean {
  const keys = Object.keys(a) as (keyof Outcome)[];
  return keys.every((key) => Buffer.compare(Buffer.from(a[key].buffer), Buffer.from(b[key].buffer)) === 0);
}

let pools: Pool[] = [];
beforeAll(async () => {
  pools = await Promise.all([1, 2, 3].map((threads) => createPool(threads)));
});
afterAll(() => {
  for (const pool of pools) pool.close();
});

describe.each(builds)("attention with %s", (_build, flags, list) => {
  let library: Library;
  beforeAll(async () => {
    library = await compileAttention(
      list.map(([, c]) => specOf(c)),
      flags,
    );
  });

  it.each(list)("%s", (name, c) => {
    seedRandom(name);
    const spec = specOf(c);
    const reference = referenceOf(c);
    const gradient = randomValues(spec.storage, reference.query.length);
    const expected = referenceAttention(reference, gradient);
    const outcomes = pools.map((pool) => runAttention(library, pool, spec, reference, gradient));
    const first = must(outcomes[0], "an outcome");
    expect(outcomes.map((other) => sameBits(other, first))).toEqual([true, true, true]);
    for (const key of Object.keys(expected) as (keyof Outcome)[]) {
      expect(errorOf(first[key], expected[key]), key).toBeLessThan(tolerance(spec, reference.scale));
    }
  });
});
