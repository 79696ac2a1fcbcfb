/** GGUF "K" blocks: 256 elements in sub-blocks of 16 or 32 with quantised scales, as ggml-common.h lays them out. */
import type { Scalar } from "../ir/scalar.js";
import { scalar as s } from "../ir/scalar.js";
import { field, float, halfAt, signedByteAt } from "./bits.js";
import { defineFormat } from "./format.js";

const byteAt = (start: number, offset: Scalar): Scalar => s.byte(s.add(s.i32(start), offset));
const times = (value: Scalar, factor: number): Scalar => s.multiply(value, s.i32(factor));
const bits = (value: Scalar, shift: number, width: number): Scalar => s.and(s.shiftRight(value, shift), 2 ** width - 1);

/** Two bits of q2_K and q3_K: run = chunk * 8 + shift * 2 + half over chunks of 32 bytes, four elements a byte. */
function twoBits(start: number, run: Scalar, lane: Scalar): Scalar {
  const chunk = times(s.shiftRight(run, 3), 32);
  const half = times(s.and(run, 1), 16);
  return field(byteAt(start, s.add(s.add(chunk, half), lane)), times(bits(run, 1, 2), 2), 2);
}

/** [scale and minimum nibbles x 16][q: 2 bits x 256][d: f16][dmin: f16], (d scale) q - (dmin minimum). */
export const q2_K = defineFormat({
  id: "q2_K",
  block: { elements: 256, bytes: 84 },
  runs: 16,
  decodeRun: (run, lane) => {
    const packed = s.byte(run);
    const scale = s.multiply(halfAt(80), float(field(packed, s.i32(0), 4)));
    const minimum = s.multiply(halfAt(82), float(field(packed, s.i32(4), 4)));
    return s.subtract(s.multiply(scale, float(twoBits(16, run, lane))), minimum);
  },
});

/** [high bits x 32 bytes][low 2 bits x 64 bytes][6-bit scales x 12 bytes][d: f16], d (scale - 32) q, q in -4..3. */
export const q3_K = defineFormat({
  id: "q3_K",
  block: { elements: 256, bytes: 110 },
  runs: 16,
  decodeRun: (run, lane) => {
    const low = field(byteAt(96, s.and(run, 7)), times(s.shiftRight(run, 3), 4), 4);
    const high = field(byteAt(104, s.and(run, 3)), times(s.shiftRight(run, 2), 2), 2);
    const scale = s.multiply(halfAt(108), float(s.subtract(s.or(low, s.shiftLeft(high, 4)), 32)));
    const bit = field(s.byte(s.add(times(s.and(run, 1), 16), lane)), s.shiftRight(run, 1), 1);
    const q = s.subtract(s.or(twoBits(32, run, lane), s.shiftLeft(bit, 2)), 4);
    return s.multiply(scale, float(q));
  },
});

/** The 6-bit scale and minimum of sub-block `run`, packed in 12 bytes at 4. */
function scaleAndMinimum(run: Scalar): { scale: Scalar; minimum: Scalar } {
  const column = s.and(run, 3);
  const first = byteAt(4, column);
  const second = byteAt(8, column);
  const third = byteAt(12, column);
  const isLow = s.less(run, 4);
  const upper = (value: Scalar): Scalar => s.shiftLeft(field(value, s.i32(6), 2), 4);
  return {
    scale: s.select(isLow, field(first, s.i32(0), 6), s.or(field(third, s.i32(0), 4), upper(first))),
    minimum: s.select(isLow, field(second, s.i32(0), 6), s.or(field(third, s.i32(4), 4), upper(second))),
  };
}

/** (d scale) q - (dmin minimum), with d and dmin at 0 and 2. */
function scaled(run: Scalar, q: Scalar): Scalar {
  const { scale, minimum } = scaleAndMinimum(run);
  return s.subtract(s.multiply(s.multiply(halfAt(0), float(scale)), float(q)), s.multiply(halfAt(2), float(minimum)));
}

/** The nibble of element `run * 32 + lane`; runs 2i and 2i + 1 share 32 bytes. */
function nibble(start: number, run: Scalar, lane: Scalar): Scalar {
  return field(byteAt(start, s.add(times(s.shiftRight(run, 1), 32), lane)), times(s.and(run, 1), 4), 4);
}

/** [d: f16][dmin: f16][scales x 12 bytes][nibbles x 128 bytes]. */
export const q4_K = defineFormat({
  id: "q4_K",
  block: { elements: 256, bytes: 144 },
  runs: 8,
  decodeRun: (run, lane) => scaled(run, nibble(16, run, lane)),
});

/** [d: f16][dmin: f16][scales x 12 bytes][fifth bits x 32 bytes][nibbles x 128 bytes]. */
export const q5_K = defineFormat({
  id: "q5_K",
  block: { elements: 256, bytes: 176 },
  runs: 8,
  decodeRun: (run, lane) => {
    const bit = field(byteAt(16, lane), run, 1);
    return scaled(run, s.or(nibble(48, run, lane), s.shiftLeft(bit, 4)));
  },
});

/** [low nibbles x 128 bytes][high 2 bits x 64 bytes][scales: i8 x 16][d: f16], (d scale) (q - 32). */
export const q6_K = defineFormat({
  id: "q6_K",
  block: { elements: 256, bytes: 210 },
  runs: 16,
  decodeRun: (run, lane) => {
    const chunk = s.shiftRight(run, 3);
    const lowByte = s.add(s.add(times(chunk, 64), times(s.and(run, 3), 16)), lane);
    const low = field(s.byte(lowByte), times(bits(run, 2, 1), 4), 4);
    const highByte = s.add(s.add(times(chunk, 32), times(s.and(run, 1), 16)), lane);
    const high = field(byteAt(128, highByte), times(bits(run, 1, 2), 2), 2);
    const q = s.subtract(s.or(low, s.shiftLeft(high, 4)), 32);
    const scale = s.multiply(halfAt(208), float(signedByteAt(s.add(s.i32(192), run))));
    return s.multiply(scale, float(q));
  },
});
