import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import {
  add,
  and,
  bitcast,
  cast,
  floor,
  lessEqual,
  maximum,
  minimum,
  multiply,
  select,
  shiftRight,
} from "../ops/arithmetic.js";
import { constant } from "../ops/leaves.js";
import { randomBits } from "../ops/random.js";
import type { RandomSource } from "./types.js";

export type Rounding = "nearest" | "stochastic";

/**
 * f32 -> bf16, up with the probability by which the value exceeds the bf16 below it, so that the expectation is the
 * value: sixteen random bits are added below bf16's last and the sum is truncated. `bits` is u32 with the random bits
 * in its low half. Values that bf16 holds, infinities and NaN are kept.
 */
export function roundStochastically(value: Node, bits: Node): Node {
  const word = (number: number): Node => constant(value.graph, number, value.shape, "u32");
  const raw = bitcast(value, "u32");
  const finite = lessEqual(and(raw, word(0x7fffffff)), word(0x7f7fffff));
  const moved = and(add(raw, and(bits, word(0xffff))), word(0xffff0000));
  return cast(bitcast(select(finite, moved, raw), "f32"), "bf16");
}

/** The bits in f32 of the smallest normal f16, 2^-14; below it, values are whole multiples of 2^-24. */
const leastNormalBits = 0x38800000;
const largestHalf = 65504;

/**
 * f32 -> f16 in the same way: thirteen random bits are added below f16's last, or to what is left of a multiple of 2^-24
 * where the value is that small. Values that round up past f16's largest are that: a weight must not become infinite.
 */
export function roundStochasticallyToHalf(value: Node, bits: Node): Node {
  const word = (number: number): Node => constant(value.graph, number, value.shape, "u32");
  const raw = bitcast(value, "u32");
  const magnitude = and(raw, word(0x7fffffff));
  const finite = lessEqual(magnitude, word(0x7f7fffff));
  const drawn = and(bits, word(0x1fff));
  const moved = bitcast(and(add(raw, drawn), word(0xffffe000)), "f32");
  const share = multiply(cast(bitcast(drawn, "i32"), "f32"), 2 ** -13);
  const small = multiply(floor(add(multiply(value, 2 ** 24), share)), 2 ** -24);
  const normal = lessEqual(word(leastNormalBits), magnitude);
  const rounded = maximum(minimum(select(normal, moved, small), largestHalf), -largestHalf);
  return cast(select(finite, rounded, value), "f16");
}

/** Hands out independent sixteen-bit draws for the tensors of one update: two from each random word. */
export class Rounder {
  #drawn = 0;

  constructor(
    readonly rounding: Rounding,
    readonly source: RandomSource | undefined,
  ) {}

  /** `value` (f32) as it is stored: in f32 as it is, in 16 bits by the chosen rounding. */
  store(value: Node, like: Node): Node {
    const half = like.dtype === "bf16" || like.dtype === "f16";
    if (!half || this.rounding === "nearest") return cast(value, like.dtype);
    const drawn = this.#draw(value);
    return like.dtype === "bf16" ? roundStochastically(value, drawn) : roundStochasticallyToHalf(value, drawn);
  }

  #draw(value: Node): Node {
    const { key, step, stream } = must(this.source, "source of random bits for stochastic rounding");
    const place = this.#drawn++;
    const bits = randomBits(key, streamAt(stream, place >> 1), step, value.shape);
    return place % 2 === 0 ? bits : shiftRight(bits, constant(value.graph, 16, value.shape, "u32"));
  }
}

function streamAt(stream: number | Node, place: number): number | Node {
  if (typeof stream === "number") return stream + place;
  return place === 0 ? stream : add(stream, constant(stream.graph, place, [], "u32"));
}
