/** Uniform quantisation of a group of weights to integers, by a search for the best range. */
export interface QuantiseSettings {
  readonly bits: number;
  /** Zero point in the middle, and a range of equal sides. */
  readonly symmetric: boolean;
}

/** Shares of the whole range that are tried: 1.00, 0.99, ..., 0.21. */
const shrinkings = Array.from({ length: 80 }, (_, index) => (100 - index) / 100);

/** Adding and subtracting it rounds a double below 2^51 to an integer, half to even. */
const rounder = 1.5 * 2 ** 52;
const roundEven = (value: number): number => value + rounder - rounder;
const clamp = (value: number, most: number): number => (value < 0 ? 0 : value > most ? most : value);

export interface Range {
  /** f32. */
  readonly scale: number;
  readonly zero: number;
}

/** Scale and zero point of values from `low` <= 0 to `high` >= 0. */
function rangeOf(low: number, high: number, { bits, symmetric }: QuantiseSettings): Range {
  const most = 2 ** bits - 1;
  if (symmetric) {
    const zero = 2 ** (bits - 1);
    return { scale: Math.fround(Math.max(-low, high) / (zero - 1)), zero };
  }
  const scale = Math.fround((high - low) / most);
  return { scale, zero: clamp(roundEven(-low / scale), most) };
}

/** Sum of the squares of what quantisation in a range changes. */
export function errorOf(values: Float32Array, { scale, zero }: Range, bits: number): number {
  const most = 2 ** bits - 1;
  const inverse = 1 / scale;
  let sum = 0;
  for (const value of values) {
    const code = clamp(roundEven(value * inverse) + zero, most);
    const error = value - scale * (code - zero);
    sum += error * error;
  }
  return sum;
}

/** The range of the least error among the candidates, the first of equals; `tries` is how many there are. */
export function findRange(values: Float32Array, settings: QuantiseSettings, tries = shrinkings.length): Range {
  let [low, high] = [0, 0];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const empty = { scale: 1, zero: 0 };
  let best = empty;
  let least = Infinity;
  for (const share of shrinkings.slice(0, tries)) {
    const range = rangeOf(low * share, high * share, settings);
    // A range too small for f32 is one of zeros.
    if (!(range.scale > 1e-37)) continue;
    const error = errorOf(values, range, settings.bits);
    if (error < least) [best, least] = [range, error];
  }
  return best;
}

export interface Quantised {
  /** u - z, of the matrix's shape. */
  readonly integers: Float32Array;
  /** One for each group, row by row. */
  readonly scales: Float32Array;
}

/** A matrix in groups of `group` neighbours: w is nearly scale (u - z). */
export function quantise(values: Float32Array, group: number, settings: QuantiseSettings): Quantised {
  const most = 2 ** settings.bits - 1;
  const integers = new Float32Array(values.length);
  const scales = new Float32Array(values.length / group);
  for (let place = 0; place < scales.length; place++) {
    const part = values.subarray(place * group, (place + 1) * group);
    const { scale, zero } = findRange(part, settings);
    scales[place] = scale;
    const inverse = 1 / scale;
    for (let index = 0; index < group; index++) {
      integers[place * group + index] = clamp(roundEven((part[index] ?? 0) * inverse) + zero, most) - zero;
    }
  }
  return { integers, scales };
}

/** scale (u - z) in f32. */
export function dequantise(integers: Float32Array, scales: Float32Array): Float32Array {
  const group = integers.length / scales.length;
  return integers.map((integer, index) => integer * (scales[Math.floor(index / group)] ?? 0));
}
