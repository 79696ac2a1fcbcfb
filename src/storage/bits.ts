/** Scalar expressions over the bytes of a packed block that several formats share. */
import type { Scalar } from "../ir/scalar.js";
import { scalar as s } from "../ir/scalar.js";

/** A little-endian u16 at `offset`, as u32. */
export function wordAt(offset: Scalar | number, plane = 0): Scalar {
  const start = typeof offset === "number" ? s.i32(offset) : offset;
  return s.or(s.byte(start, plane), s.shiftLeft(s.byte(s.add(start, 1), plane), 8));
}

/** A little-endian u32 at `offset`. */
export function doubleWordAt(offset: Scalar | number, plane = 0): Scalar {
  const start = typeof offset === "number" ? s.i32(offset) : offset;
  return s.or(wordAt(start, plane), s.shiftLeft(wordAt(s.add(start, 2), plane), 16));
}

/** The f32 at the start of a group of a plane. */
export function floatAt(plane: number): Scalar {
  return s.bitcast("f32", doubleWordAt(0, plane));
}

/**
 * The value of an IEEE half given its bits: significand times power of two. No step needs a subnormal f32, and every
 * choice is between integers, so that compilers make vector code of it.
 */
export function halfToFloat(bits: Scalar): Scalar {
  const exponent = s.and(s.shiftRight(bits, 10), 31);
  const mantissa = s.and(bits, 0x3ff);
  const significand = s.add(mantissa, s.select(s.equal(exponent, 0), s.u32(0), s.u32(1024)));
  const power = s.shiftLeft(s.add(s.maximum(exponent, 1), 127 - 25), 23);
  const special = s.select(s.equal(mantissa, 0), s.u32(0x7f800000), s.u32(0x7fc00000));
  const scale = s.bitcast("f32", s.select(s.equal(exponent, 31), special, power));
  const magnitude = s.bitcast("u32", s.multiply(float(s.bitcast("i32", significand)), scale));
  return s.bitcast("f32", s.or(magnitude, s.shiftLeft(s.and(bits, 0x8000), 16)));
}

/** The f16 scale at `offset`, as f32. */
export function halfAt(offset: number): Scalar {
  return halfToFloat(wordAt(offset));
}

/** The byte at `offset` as a signed integer, i32. */
export function signedByteAt(offset: Scalar): Scalar {
  return s.subtract(s.xor(s.bitcast("i32", s.byte(offset)), 128), 128);
}

/** `width` bits of `value` from bit `shift` up, as i32. */
export function field(value: Scalar, shift: Scalar, width: number): Scalar {
  return s.and(s.bitcast("i32", s.shiftRight(value, s.bitcast("u32", shift))), 2 ** width - 1);
}

/** A small integer (i32) as f32. */
export function float(value: Scalar): Scalar {
  return s.convert("f32", value);
}
