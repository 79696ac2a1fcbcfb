/** Integers of few bits, packed, with a lowest value for each group: what uniform quantisers with zero points freeze. */
import { ThimbleError } from "../errors.js";
import type { Scalar } from "../ir/scalar.js";
import { scalar as s } from "../ir/scalar.js";
import { field, float } from "./bits.js";
import type { StorageFormat, StreamEncoder } from "./format.js";
import { definePlaneFormat } from "./format.js";
import { openPlanes } from "./planes.js";

export const integerBits = [2, 3, 4, 8] as const;
export type IntegerBits = (typeof integerBits)[number];

export interface IntegerOptions {
  readonly bits: IntegerBits;
  /** Neighbouring elements that share a zero point; a multiple of 8. */
  readonly group: number;
}

/** As in `int4-64`. */
export function integerId({ bits, group }: IntegerOptions): string {
  return `int${bits}-${group}`;
}

/** The options that an id names, if it names any. */
export function parseIntegerId(id: string): IntegerOptions | undefined {
  const match = /^int([2348])-([1-9]\d{0,7})$/.exec(id);
  const bits = integerBits.find((known) => String(known) === match?.[1]);
  const group = Number(match?.[2]);
  return bits === undefined || group % 8 !== 0 ? undefined : { bits, group };
}

/** Elements that are packed together: a power of two that divides a group. */
function blockOf({ group }: IntegerOptions): number {
  return [32, 16].find((size) => group % size === 0) ?? 8;
}

/**
 * A value is u - z: codes u of `bits` bits, and a byte z for each group. Exact for integers of a group that lie less
 * than 2^bits apart, 0 included; other numbers are rounded and clamped to what there is. Three bits are two planes of a
 * block, its low two bits and its high ones.
 */
export function integerFormat(options: IntegerOptions): StorageFormat {
  const { bits, group } = options;
  const block = blockOf(options);
  const value = (code: Scalar): Scalar => float(s.subtract(code, s.bitcast("i32", s.byte(0, 1))));
  const part = (lane: Scalar, width: number, offset: number): Scalar => {
    const perByte = 8 / width;
    const place = s.and(lane, perByte - 1);
    // The first element of a byte in its high bits, as in the other formats with planes.
    const shift = s.multiply(s.subtract(perByte - 1, place), width);
    return field(s.byte(s.add(s.shiftRight(lane, Math.log2(perByte)), offset)), shift, width);
  };
  const code = (lane: Scalar): Scalar =>
    bits === 3 ? s.or(part(lane, 2, 0), s.shiftLeft(part(lane, 1, block / 4), 2)) : part(lane, bits, 0);
  const planes = [
    { elements: block, bytes: (block * bits) / 8 },
    { elements: group, bytes: 1 },
  ] as const;
  return definePlaneFormat({
    id: integerId(options),
    planes,
    ...(bits === 4 && block === 32 ? { codes: value } : {}),
    decodeRun: (_run, lane) => value(code(lane)),
    encoder: (target, count, name) => new IntegerEncoder(options, openPlanes(planes, target, count), count, name),
  });
}

/** Holds one group of values. */
class IntegerEncoder implements StreamEncoder {
  readonly #values: Float32Array;
  #filled = 0;
  #done = 0;

  constructor(
    private readonly options: IntegerOptions,
    private readonly planes: readonly Uint8Array[],
    private readonly count: number,
    private readonly name: string,
  ) {
    this.#values = new Float32Array(options.group);
  }

  write(values: Float32Array): void {
    for (let from = 0; from < values.length;) {
      const taken = Math.min(values.length - from, this.#values.length - this.#filled);
      this.#values.set(values.subarray(from, from + taken), this.#filled);
      this.#filled += taken;
      from += taken;
      if (this.#filled === this.#values.length || this.#done + this.#filled === this.count) this.#pack();
    }
  }

  finish(): void {
    if (this.#filled > 0) this.#pack();
  }

  #pack(): void {
    const values = this.#values.subarray(0, this.#filled);
    const most = 2 ** this.options.bits - 1;
    let lowest = 0;
    for (const value of values) {
      if (!Number.isFinite(value)) this.#refuse(value);
      lowest = Math.min(lowest, Math.round(value));
    }
    const zero = Math.min(-lowest, most);
    const zeros = this.planes[1] ?? new Uint8Array(0);
    zeros[this.#done / this.options.group] = zero;
    for (const [index, value] of values.entries()) {
      this.#put(this.#done + index, Math.max(0, Math.min(most, Math.round(value) + zero)));
    }
    this.#done += this.#filled;
    this.#filled = 0;
  }

  #put(element: number, code: number): void {
    const { bits } = this.options;
    const block = blockOf(this.options);
    const start = Math.floor(element / block) * ((block * bits) / 8);
    const lane = element % block;
    if (bits === 3) {
      this.#add(start, lane, 2, code & 3);
      this.#add(start + block / 4, lane, 1, code >> 2);
    } else this.#add(start, lane, bits, code);
  }

  #add(start: number, lane: number, width: number, code: number): void {
    const codes = this.planes[0] ?? new Uint8Array(0);
    const perByte = 8 / width;
    const at = start + Math.floor(lane / perByte);
    codes[at] = (codes[at] ?? 0) | (code << (8 - width * ((lane % perByte) + 1)));
  }

  #refuse(value: number): never {
    throw new ThimbleError("storage-range", "A weight to be packed into integers is not a finite number", {
      where: this.name,
      given: String(value),
      fix: "The checkpoint is damaged, or its training diverged: use another copy of it.",
    });
  }
}
