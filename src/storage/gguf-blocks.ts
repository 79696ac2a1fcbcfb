/** GGUF blocks of 32 elements with one scale, as ggml-common.h lays them out (block_q8_0, block_q4_0, ...). */
import type { Scalar } from "../ir/scalar.js";
import { scalar as s } from "../ir/scalar.js";
import { doubleWordAt, field, float, halfAt, signedByteAt } from "./bits.js";
import { encodeQ4_0, encodeQ8_0 } from "./encode.js";
import { defineFormat } from "./format.js";

/** The low (run 0) or high (run 1) nibble of byte `start + lane`. */
function nibble(start: number, run: Scalar, lane: Scalar): Scalar {
  return field(s.byte(s.add(s.i32(start), lane)), s.shiftLeft(run, 2), 4);
}

/** A nibble with its fifth bit, which stands at bit `run * 16 + lane` of the u32 at `high`. */
function fiveBits(start: number, high: number, run: Scalar, lane: Scalar): Scalar {
  const bit = field(doubleWordAt(high), s.add(s.shiftLeft(run, 4), lane), 1);
  return s.or(nibble(start, run, lane), s.shiftLeft(bit, 4));
}

/** [d: f16][q: i8 x 32], d q. */
export const q8_0 = defineFormat({
  id: "q8_0",
  block: { elements: 32, bytes: 34 },
  runs: 1,
  decodeRun: (_run, lane) => s.multiply(float(signedByteAt(s.add(s.i32(2), lane))), halfAt(0)),
  encode: encodeQ8_0,
});

/** [d: f16][nibbles x 16 bytes], d (q - 8). */
export const q4_0 = defineFormat({
  id: "q4_0",
  block: { elements: 32, bytes: 18 },
  runs: 2,
  decodeRun: (run, lane) => s.multiply(halfAt(0), float(s.subtract(nibble(2, run, lane), 8))),
  encode: encodeQ4_0,
});

/** [d: f16][m: f16][nibbles x 16 bytes], d q + m. */
export const q4_1 = defineFormat({
  id: "q4_1",
  block: { elements: 32, bytes: 20 },
  runs: 2,
  decodeRun: (run, lane) => s.add(s.multiply(halfAt(0), float(nibble(4, run, lane))), halfAt(2)),
});

/** [d: f16][high bits: u32][nibbles x 16 bytes], d (q - 16). */
export const q5_0 = defineFormat({
  id: "q5_0",
  block: { elements: 32, bytes: 22 },
  runs: 2,
  decodeRun: (run, lane) => s.multiply(halfAt(0), float(s.subtract(fiveBits(6, 2, run, lane), 16))),
});

/** [d: f16][m: f16][high bits: u32][nibbles x 16 bytes], d q + m. */
export const q5_1 = defineFormat({
  id: "q5_1",
  block: { elements: 32, bytes: 24 },
  runs: 2,
  decodeRun: (run, lane) => s.add(s.multiply(halfAt(0), float(fiveBits(8, 4, run, lane))), halfAt(2)),
});
