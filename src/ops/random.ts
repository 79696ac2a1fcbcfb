import { ThimbleError } from "../errors.js";
import { multiplyHigh } from "../ir/exact.js";
import type { Node } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import type { Scalar } from "../ir/scalar.js";
import { scalar as s } from "../ir/scalar.js";
import type { Shape } from "../ir/shape.js";
import { elements } from "../ir/shape.js";
import { cast, multiply, shiftRight } from "./arithmetic.js";
import { constant } from "./leaves.js";

/** Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): Philox 4x32 with ten rounds. */
export const philoxMultipliers = [0xd2511f53, 0xcd9e8d57] as const;
export const philoxWeyl = [0x9e3779b9, 0xbb67ae85] as const;
export const philoxRounds = 10;

type Words = readonly [number, number, number, number];

/** The four words of one counter under one key, all u32. */
export function philox(counter: Words, low: number, high: number): Words {
  let [c0, c1, c2, c3] = counter;
  for (let round = 0; round < philoxRounds; round++) {
    const [k0, k1] = [low + Math.imul(philoxWeyl[0], round), high + Math.imul(philoxWeyl[1], round)];
    const next: Words = [
      (multiplyHigh(c2, philoxMultipliers[1]) ^ c1 ^ k0) >>> 0,
      Math.imul(c2, philoxMultipliers[1]) >>> 0,
      (multiplyHigh(c0, philoxMultipliers[0]) ^ c3 ^ k1) >>> 0,
      Math.imul(c0, philoxMultipliers[0]) >>> 0,
    ];
    [c0, c1, c2, c3] = next;
  }
  return [c0, c1, c2, c3];
}

/**
 * Element i takes word (i / 16) % 4 of counter 16 (i / 64) + i % 16, so that sixteen counters side by side give the
 * bits of 64 neighbouring elements in order: a vector of counters serves four vectors of elements.
 */
function evaluateBits(shape: Shape, use: number, scalars: readonly number[]): Uint32Array {
  const [low = 0, high = 0, step = 0, stream = 0] = scalars;
  const data = new Uint32Array(elements(shape));
  for (let block = 0; block * 64 < data.length; block++) {
    for (let lane = 0; lane < 16; lane++) {
      const words = philox([block * 16 + lane, step, stream, use], low, high);
      words.forEach((word, place) => {
        const at = block * 64 + place * 16 + lane;
        if (at < data.length) data[at] = word;
      });
    }
  }
  return data;
}

/** The same for one element, as a scalar of (key low, key high, step, stream, use, element index). */
function bitsExpression(args: readonly Scalar[]): Scalar {
  const [low, high, step, stream, use, index] = args as [Scalar, Scalar, Scalar, Scalar, Scalar, Scalar];
  const counter = s.add(s.multiply(s.shiftRight(index, 6), 16), s.and(index, 15));
  let [c0, c1, c2, c3] = [counter, step, stream, use];
  for (let round = 0; round < philoxRounds; round++) {
    const k0 = s.add(low, Math.imul(philoxWeyl[0], round) >>> 0);
    const k1 = s.add(high, Math.imul(philoxWeyl[1], round) >>> 0);
    const [m0, m1] = [s.u32(philoxMultipliers[0]), s.u32(philoxMultipliers[1])];
    [c0, c1, c2, c3] = [
      s.xor(s.xor(s.multiplyHigh(c2, m1), c1), k0),
      s.multiply(c2, m1),
      s.xor(s.xor(s.multiplyHigh(c0, m0), c3), k1),
      s.multiply(c0, m0),
    ];
  }
  const word = s.and(s.shiftRight(index, 4), 3);
  const lower = s.select(s.equal(word, 0), c0, c1);
  return s.select(s.less(word, 2), lower, s.select(s.equal(word, 2), c2, c3));
}

/** Random words: inputs are the key (low, high), the step and the stream, u32 [] each; `use` is the last counter word. */
export const randomBitsOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "randomBits",
  cost: "free",
  infer: (inputs, attributes) => {
    if (inputs.length !== 4 || inputs.some(({ shape, dtype }) => shape.length > 0 || dtype !== "u32")) {
      throw new ThimbleError("shape", "randomBits takes a key of two words, a step and a stream, all u32 []");
    }
    return [{ shape: attributes["shape"] as Shape, dtype: "u32" }];
  },
  lowering: { kind: "random", expression: bitsExpression },
  evaluate: (inputs, attributes) => {
    const shape = attributes["shape"] as Shape;
    const scalars = inputs.map(({ data }) => (data[0] ?? 0) >>> 0);
    return [{ shape, dtype: "u32", data: evaluateBits(shape, attributes["use"] as number, scalars) }];
  },
});

/** Where random words come from: `key` is a run's, `step` its step; streams tell apart the tensors of one step. */
export interface RandomKey {
  readonly low: Node;
  readonly high: Node;
}

/**
 * Counter-based random words: a pure function of (key, stream, use, step, element index), equal on every target and
 * free of order, tiles and threads. `stream` is a number, or a u32 [] where equal kernels are to serve several streams;
 * `use` tells apart independent draws of one stream in one step. Shapes of up to 2^32 elements.
 */
export function randomBits(key: RandomKey, stream: number | Node, step: Node, shape: Shape, use = 0): Node {
  const { graph } = step;
  const place = typeof stream === "number" ? constant(graph, stream >>> 0, [], "u32") : stream;
  return graph.add(randomBitsOp, [key.low, key.high, step, place], { shape, use });
}

/** Uniform f32 in [0, 1) from the top 24 bits of each word. */
export function uniformFrom(bits: Node): Node {
  const { graph, shape } = bits;
  return multiply(cast(shiftRight(bits, constant(graph, 8, shape, "u32")), "f32"), 2 ** -24);
}
