/** Quantisers with the rounding of ggml's reference (quantize_row_q8_0_ref, quantize_row_q4_0_ref), bit for bit. */
import { ThimbleError } from "../errors.js";
import { f16Bits, f16FromBits } from "../ir/dtype.js";

const elements = 32;

function checkWholeBlocks(id: string, values: Float32Array): void {
  if (values.length % elements === 0) return;
  throw new ThimbleError("storage-row", `The values are not whole blocks of ${id}`, {
    given: `${values.length} values`,
    expected: `a multiple of ${elements}`,
  });
}

/** The value of largest magnitude in a block, the first of equals; NaN if there is one. */
function extreme(values: Float32Array, start: number): number {
  let best = values[start] ?? 0;
  for (let index = start + 1; index < start + elements; index++) {
    const value = values[index] ?? 0;
    if (Math.abs(value) > Math.abs(best) || Number.isNaN(value)) best = value;
  }
  return best;
}

/** Writes the scale as f16 and gives its f32 reciprocal, 0 for a block of zeros. */
function writeScale(id: string, packed: Uint8Array, at: number, scale: number): number {
  const bits = f16Bits(scale);
  if (!Number.isFinite(f16FromBits(bits))) {
    throw new ThimbleError("storage-range", `A block is too large for ${id}`, {
      given: `a scale of ${scale}`,
      expected: "finite values whose scale fits an f16 (at most 65504)",
      fix: "Check the weights for NaN and infinity, or write this tensor as bf16.",
    });
  }
  packed[at] = bits & 0xff;
  packed[at + 1] = bits >>> 8;
  const inverse = Math.fround(1 / scale);
  return Number.isFinite(inverse) ? inverse : 0;
}

export function encodeQ8_0(values: Float32Array): Uint8Array {
  checkWholeBlocks("q8_0", values);
  const packed = new Uint8Array((values.length / elements) * 34);
  for (let start = 0, at = 0; start < values.length; start += elements, at += 34) {
    const inverse = writeScale("q8_0", packed, at, Math.fround(Math.abs(extreme(values, start)) / 127));
    for (let lane = 0; lane < elements; lane++) {
      packed[at + 2 + lane] = roundHalfAway(Math.fround((values[start + lane] ?? 0) * inverse));
    }
  }
  return packed;
}

export function encodeQ4_0(values: Float32Array): Uint8Array {
  checkWholeBlocks("q4_0", values);
  const packed = new Uint8Array((values.length / elements) * 18);
  for (let start = 0, at = 0; start < values.length; start += elements, at += 18) {
    const inverse = writeScale("q4_0", packed, at, Math.fround(extreme(values, start) / -8));
    const code = (lane: number): number =>
      Math.min(15, Math.trunc(Math.fround(Math.fround((values[start + lane] ?? 0) * inverse) + 8.5)));
    for (let lane = 0; lane < 16; lane++) packed[at + 2 + lane] = code(lane) | (code(lane + 16) << 4);
  }
  return packed;
}

function roundHalfAway(value: number): number {
  const magnitude = Math.floor(Math.abs(value) + 0.5);
  return value < 0 ? -magnitude : magnitude;
}
