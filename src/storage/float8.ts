/**
 * Eight-bit floating point numbers (Micikevicius et al., FP8 Formats for Deep Learning, arXiv 2209.05433) as scalar
 * expressions: weights, optimizer states and saved values share them on every target. Rounding is to nearest, ties to
 * even, and saturates: no finite number and no infinity becomes anything larger than the largest number.
 */
import { bitsFromFloat, floatFromBits, roundHalfEven } from "../ir/exact.js";
import type { Scalar } from "../ir/scalar.js";
import { scalar as s } from "../ir/scalar.js";

export type Float8Id = "e4m3" | "e5m2";

export interface Float8Format {
  readonly id: Float8Id;
  readonly mantissaBits: number;
  /** Exponent of the smallest normal number, and of those below it. */
  readonly leastExponent: number;
  readonly largest: number;
  /** Code of infinity, where there is one; larger magnitudes are no numbers. */
  readonly infinity: number | undefined;
}

/** Of an E4M3 code only 0x7f, with either sign, is no number. */
export const e4m3: Float8Format = {
  id: "e4m3",
  mantissaBits: 3,
  leastExponent: -6,
  largest: 448,
  infinity: undefined,
};

export const e5m2: Float8Format = {
  id: "e5m2",
  mantissaBits: 2,
  leastExponent: -14,
  largest: 57344,
  infinity: 0x7c,
};

export const float8Formats: Readonly<Record<Float8Id, Float8Format>> = { e4m3, e5m2 };

const notANumber = 0x7f;
const signBit = 0x80;

/** The code (i32) of an f32: a multiple of the spacing at its exponent, counted from the smallest normal number on. */
export function encodeFloat8({ mantissaBits, leastExponent, largest }: Float8Format, value: Scalar): Scalar {
  const bits = s.bitcast("u32", value);
  const magnitude = s.and(bits, 0x7fffffff);
  const size = s.minimum(s.bitcast("f32", magnitude), s.f32(largest));
  const exponent = s.maximum(s.subtract(s.shiftRight(s.bitcast("i32", size), 23), 127), leastExponent);
  const inverse = s.bitcast("f32", s.shiftLeft(s.subtract(mantissaBits + 127, exponent), 23));
  const steps = s.convert("i32", s.roundEven(s.multiply(size, inverse)));
  const code = s.add(s.shiftLeft(s.subtract(exponent, leastExponent), mantissaBits), steps);
  const isNumber = s.lessEqual(magnitude, 0x7f800000);
  const sign = s.bitcast("i32", s.and(s.shiftRight(bits, 24), signBit));
  return s.or(s.select(isNumber, code, notANumber), sign);
}

/** The f32 of a code (i32). */
export function decodeFloat8({ mantissaBits, leastExponent, infinity }: Float8Format, code: Scalar): Scalar {
  const magnitude = s.and(code, notANumber);
  const rebased = s.add(s.shiftLeft(magnitude, 23 - mantissaBits), (leastExponent + 126) * 2 ** 23);
  const small = s.multiply(s.convert("f32", magnitude), s.f32(2 ** (leastExponent - mantissaBits)));
  const finite = s.select(s.less(magnitude, 2 ** mantissaBits), small, s.bitcast("f32", rebased));
  const first = infinity ?? notANumber;
  const special = s.select(s.equal(magnitude, infinity ?? -1), s.f32(Infinity), s.f32(NaN));
  const value = s.select(s.less(magnitude, first), finite, special);
  const sign = s.shiftLeft(s.and(code, signBit), 24);
  return s.bitcast("f32", s.or(s.bitcast("i32", value), sign));
}

/** What {@link encodeFloat8} gives, of a number on the host. */
export function float8Code({ mantissaBits, leastExponent, largest }: Float8Format, value: number): number {
  const bits = bitsFromFloat(value);
  const sign = (bits >>> 24) & signBit;
  if (Number.isNaN(value)) return sign | notANumber;
  const size = Math.min(floatFromBits((bits & 0x7fffffff) >>> 0), largest);
  const exponent = Math.max((bitsFromFloat(size) >>> 23) - 127, leastExponent);
  const steps = roundHalfEven(size * 2 ** (mantissaBits - exponent));
  return sign | (((exponent - leastExponent) << mantissaBits) + steps);
}

/** What {@link decodeFloat8} gives, of a code on the host. */
export function float8Value({ mantissaBits, leastExponent, infinity }: Float8Format, code: number): number {
  const magnitude = code & notANumber;
  const sign = (code & signBit) === 0 ? 1 : -1;
  if (magnitude === infinity) return sign * Infinity;
  if (magnitude >= (infinity ?? notANumber)) return NaN;
  const exponent = magnitude >> mantissaBits;
  const mantissa = magnitude & (2 ** mantissaBits - 1);
  const spacing = 2 ** (leastExponent - mantissaBits);
  if (exponent === 0) return sign * mantissa * spacing;
  return sign * (2 ** mantissaBits + mantissa) * spacing * 2 ** (exponent - 1);
}
