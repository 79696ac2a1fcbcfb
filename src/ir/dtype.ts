/** Element types of the tensor graph. */
export type DType = "f64" | "f32" | "f16" | "bf16" | "i32" | "u32" | "u8" | "bool";

const sizes: Readonly<Record<DType, number>> = { f64: 8, f32: 4, f16: 2, bf16: 2, i32: 4, u32: 4, u8: 1, bool: 1 };

/** Bytes of one stored element. */
export function sizeOf(dtype: DType): number {
  return sizes[dtype];
}

export function isFloat(dtype: DType): boolean {
  return dtype === "f64" || dtype === "f32" || dtype === "f16" || dtype === "bf16";
}

const word = new Uint32Array(1);
const single = new Float32Array(word.buffer);

/** The bits of a bf16 nearest to `value` (ties to even, NaN kept quiet), as an integer in 0..65535. */
export function bf16Bits(value: number): number {
  single[0] = value;
  const bits = word[0] ?? 0;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function bf16FromBits(bits: number): number {
  word[0] = (bits << 16) >>> 0;
  return single[0] ?? 0;
}

/** The bits of an IEEE half nearest to `value` (ties to even), as an integer in 0..65535. */
export function f16Bits(value: number): number {
  single[0] = value;
  const bits = word[0] ?? 0;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x33000001) return sign;
  const exponent = magnitude >>> 23;
  if (exponent >= 113) return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  const shift = 126 - exponent;
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const half = 1 << (shift - 1);
  const odd = (mantissa >>> shift) & 1;
  return sign | ((mantissa + half - 1 + odd) >>> shift);
}

export function f16FromBits(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa === 0 ? sign * Infinity : NaN;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** `value` rounded to the nearest number that `dtype` holds. */
export function roundTo(dtype: DType, value: number): number {
  switch (dtype) {
    case "f64":
      return value;
    case "f32":
      return Math.fround(value);
    case "f16":
      return f16FromBits(f16Bits(value));
    case "bf16":
      return bf16FromBits(bf16Bits(value));
    case "i32":
      return value | 0;
    case "u32":
      return value >>> 0;
    case "u8":
      return value & 255;
    case "bool":
      return value === 0 ? 0 : 1;
  }
}
