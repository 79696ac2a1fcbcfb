/**
 * Transcendental functions as scalar expressions of exact operations only, so that every target computes the same
 * bits. Errors against the true function are a few units in the last place; the tests state them.
 */
import type { Scalar } from "../ir/scalar.js";
import { scalar as s } from "../ir/scalar.js";

/** Horner's rule with fused multiply-adds, coefficients from the highest power down. */
export function horner(x: Scalar, coefficients: readonly number[]): Scalar {
  const [first = 0, ...rest] = coefficients;
  return rest.reduce<Scalar>((sum, coefficient) => s.fma(sum, x, s.f32(coefficient)), s.f32(first));
}

/** 2^n for an integer-valued i32, |n| <= 127, by building the exponent field. */
function powerOfTwo(n: Scalar): Scalar {
  return s.bitcast("f32", s.shiftLeft(s.add(n, 127), 23));
}

const ln2High = 0.693145751953125;
const ln2Low = 1.42860682030941723212e-6;

/** e^x: x = n ln 2 + r, Taylor series in |r| <= 0.347, scaled in two steps so that overflow and denormals are right. */
export function exponential(x: Scalar): Scalar {
  const clamped = s.minimum(s.f32(90), s.maximum(s.f32(-105), x));
  const n = s.roundEven(s.multiply(clamped, s.f32(Math.LOG2E)));
  const r = s.fma(n, s.f32(-ln2Low), s.fma(n, s.f32(-ln2High), clamped));
  const series = horner(r, [1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1]);
  const exponent = s.convert("i32", n);
  const half = s.shiftRight(exponent, 1);
  return s.multiply(s.multiply(series, powerOfTwo(half)), powerOfTwo(s.subtract(exponent, half)));
}

/** ln x: x = 2^e m with m in [sqrt 1/2, sqrt 2), then 2 artanh((m-1)/(m+1)). ln 0 = -inf; negative gives NaN. */
export function logarithm(x: Scalar): Scalar {
  const tiny = s.less(x, s.f32(1.1754944e-38));
  const scaled = s.select(tiny, s.multiply(x, s.f32(8388608)), x);
  const bits = s.bitcast("i32", scaled);
  const shifted = s.subtract(bits, 0x3f3504f3);
  const exponent = s.shiftRight(shifted, 23);
  const mantissa = s.bitcast("f32", s.subtract(bits, s.shiftLeft(exponent, 23)));
  const e = s.subtract(s.convert("f32", exponent), s.select(tiny, s.f32(23), s.f32(0)));
  const f = s.subtract(mantissa, 1);
  const ratio = s.divide(f, s.add(mantissa, 1));
  const square = s.multiply(ratio, ratio);
  const tail = s.multiply(s.multiply(square, ratio), horner(square, [2 / 11, 2 / 9, 2 / 7, 2 / 5, 2 / 3]));
  // 2 ratio = f - f ratio keeps the leading term exact.
  const core = s.subtract(f, s.subtract(s.multiply(f, ratio), tail));
  const finite = s.fma(e, s.f32(ln2High), s.fma(e, s.f32(ln2Low), core));
  const infinite = s.less(s.f32(3.4028235e38), x);
  const atZero = s.select(s.equal(x, s.f32(0)), s.f32(-Infinity), s.f32(NaN));
  return s.select(s.less(s.f32(0), x), s.select(infinite, x, finite), atZero);
}

/** x = n pi/2 + r with |r| <= pi/4, good to |x| of about 1e5. */
function reduceAngle(x: Scalar): { r: Scalar; quadrant: Scalar } {
  const n = s.roundEven(s.multiply(x, s.f32(2 / Math.PI)));
  const parts = [1.5707962512969971, 7.5497894158615964e-8, 5.390302858158119e-15];
  const r = parts.reduce<Scalar>((rest, part) => s.fma(n, s.f32(-part), rest), x);
  return { r, quadrant: s.convert("i32", n) };
}

function sineOfQuadrant(r: Scalar, quadrant: Scalar): Scalar {
  const square = s.multiply(r, r);
  const sine = s.fma(s.multiply(r, square), horner(square, [1 / 362880, -1 / 5040, 1 / 120, -1 / 6]), r);
  const cosine = horner(square, [-1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1]);
  const value = s.select(s.equal(s.and(quadrant, 1), 0), sine, cosine);
  return s.select(s.equal(s.and(quadrant, 2), 0), value, s.negate(value));
}

export function sine(x: Scalar): Scalar {
  const { r, quadrant } = reduceAngle(x);
  return sineOfQuadrant(r, quadrant);
}

export function cosine(x: Scalar): Scalar {
  const { r, quadrant } = reduceAngle(x);
  return sineOfQuadrant(r, s.add(quadrant, 1));
}

/** tanh x: a series near 0, 1 - 2/(e^2|x| + 1) elsewhere. */
export function hyperbolicTangent(x: Scalar): Scalar {
  const size = s.absolute(x);
  const square = s.multiply(x, x);
  const series = [-1382 / 155925, 62 / 2835, -17 / 315, 2 / 15, -1 / 3];
  const near = s.fma(s.multiply(x, square), horner(square, [21844 / 6081075, ...series]), x);
  const far = s.subtract(1, s.divide(s.f32(2), s.add(exponential(s.multiply(size, 2)), 1)));
  return s.select(s.less(size, s.f32(0.4)), near, s.select(s.less(x, s.f32(0)), s.negate(far), far));
}

export function logistic(x: Scalar): Scalar {
  return s.divide(s.f32(1), s.add(exponential(s.negate(x)), 1));
}
