/** What the 4-bit types of bitsandbytes are: their settings, their 16 values by code (each an f32), and rounding to them. */
import { midpoints } from "./dynamic-map.js";

export const fourBitTypes = ["nf4", "fp4"] as const;
export type FourBitType = (typeof fourBitTypes)[number];
/** Elements that may share a scale. */
export const fourBitBlocks = [32, 64, 128, 256, 512, 1024, 2048, 4096] as const;

export interface FourBitOptions {
  readonly type: FourBitType;
  /** One of {@link fourBitBlocks}. */
  readonly blocksize: number;
  /** Scales are stored in 8 bits themselves. */
  readonly double: boolean;
}

/** Scales that share a scale of their own. */
export const nestedBlock = 256;

/** Equal shares of a normal distribution, 0 exactly, one more positive level than negative. Codes are in order of value. */
const nf4 = [
  ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334],
  ...[-0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
  ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1],
];

/** Sign, two bits of exponent, one of mantissa, scaled to at most 1; codes are not in order of value. */
const magnitudes = [0, 0.0625, 8, 12, 4, 6, 2, 3].map((value) => Math.fround(value / 12));
const fp4 = [...magnitudes, ...magnitudes.map((value) => (value === 0 ? 0 : -value))];

export function fourBitLevels(type: FourBitType): readonly number[] {
  return type === "nf4" ? nf4 : fp4;
}

/** Cells of [-1, 1], narrower than any two midpoints are apart. */
const cells = 4096;

/** Rounding to a type's levels; of two equally near ones to the lower. */
export class FourBitCoder {
  /** Codes in order of their levels. */
  readonly #order: Uint8Array;
  /** Midpoints between neighbouring levels, then infinity. */
  readonly #bounds: Float32Array;
  /** How many midpoints are below the start of each cell. */
  readonly #first = new Uint8Array(cells + 1);

  constructor(type: FourBitType) {
    const levels = fourBitLevels(type);
    this.#order = Uint8Array.from(levels.keys()).sort((a, b) => (levels[a] ?? 0) - (levels[b] ?? 0) || a - b);
    this.#bounds = Float32Array.of(...midpoints(Array.from(this.#order, (code) => levels[code] ?? 0)), Infinity);
    for (let cell = 0, rank = 0; cell <= cells; cell++) {
      while ((2 * cell) / cells - 1 > (this.#bounds[rank] ?? Infinity)) rank++;
      this.#first[cell] = rank;
    }
  }

  /** The code of a value in [-1, 1], which may be out of it by rounding. */
  code(value: number): number {
    const rank = this.#first[(value * (cells / 2) + cells / 2) | 0] ?? 0;
    return this.#order[value > (this.#bounds[rank] ?? Infinity) ? rank + 1 : rank] ?? 0;
  }
}
