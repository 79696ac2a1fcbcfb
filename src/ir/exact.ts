/** Exactly rounded arithmetic that JavaScript lacks: what the scalar language's operations mean on numbers. */

const double = new Float64Array(1);
/** Low and high word of `double`: every engine that runs this is little-endian. */
const doubleWords = new Uint32Array(double.buffer);
const single = new Float32Array(1);
const singleWord = new Uint32Array(single.buffer);

/**
 * a * b + c of f32 values, rounded once to f32. The product is exact in f64; the sum is rounded to odd there, after
 * which rounding to f32 is the only rounding (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums:
 * proved algorithms using rounding to odd", 2008).
 */
export function fusedMultiplyAdd(a: number, b: number, c: number): number {
  const product = a * b;
  const sum = product + c;
  const shifted = sum - product;
  const error = product - (sum - shifted) + (c - shifted);
  if (error === 0 || error - error !== 0) return Math.fround(sum);
  double[0] = sum;
  const low = doubleWords[0] ?? 0;
  if ((low & 1) === 0) {
    const away = error > 0 === sum > 0;
    if (!away && low === 0) doubleWords[1] = (doubleWords[1] ?? 0) - 1;
    doubleWords[0] = away ? low + 1 : low - 1;
  }
  return Math.fround(double[0]);
}

/** `value` rounded to the nearest integer, ties to even, the sign of zero kept. */
export function roundHalfEven(value: number): number {
  const magnitude = Math.abs(value);
  if (!(magnitude < 4503599627370496)) return value;
  const rounded = magnitude + 4503599627370496 - 4503599627370496;
  return value < 0 || Object.is(value, -0) ? -rounded : rounded;
}

/** High 32 bits of the product of two u32. */
export function multiplyHigh(a: number, b: number): number {
  const aHigh = a >>> 16;
  const aLow = a & 0xffff;
  const bHigh = b >>> 16;
  const bLow = b & 0xffff;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + (middle >>> 16) + (carry >>> 16)) >>> 0;
}

/** The f32 with these 32 bits. */
export function floatFromBits(bits: number): number {
  singleWord[0] = bits;
  return single[0] ?? 0;
}

/** The 32 bits of an f32, as u32. */
export function bitsFromFloat(value: number): number {
  single[0] = value;
  return singleWord[0] ?? 0;
}
