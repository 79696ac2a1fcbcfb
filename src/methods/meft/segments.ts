import { ThimbleError } from "../../errors.js";
import type { DType } from "../../ir/dtype.js";
import type { Meft } from "./config.js";

/** Half a unit in the last place of a number of size 1. */
const roundoff = (dtype: DType): number => (dtype === "f32" ? 2 ** -24 : 2 ** -9);

/** From this many layers on a 16-bit model is not made again from its end alone. */
const mostIn16Bits = 3;

/**
 * Relative error of the streams after `count` inverses: each divides by both factors what was there and one rounding.
 * Streams are f32; where the model computes in 16 bits, a share of its inputs (as large as their error is to a unit in the
 * last place) rounds to the neighbouring number, which is an error of that unit.
 */
export function predictedError(count: number, [first, second]: readonly [number, number], dtype: DType): number {
  let error = 0;
  for (let layer = 0; layer < count; layer++) {
    const own = error + roundoff("f32");
    error = (own + (dtype === "f32" ? 0 : Math.sqrt(own * roundoff(dtype)))) / (first * second);
  }
  return error;
}

/** How many reversible layers there are from one pair of kept streams to the next, lowest segment first. */
export function segmentLengths(meft: Meft, dtype: DType): number[] {
  const { layers, mode, factors, tolerance } = meft;
  if (mode === "faithful" && dtype !== "f32" && layers > mostIn16Bits) refuseFaithful(layers, dtype);
  let length = mode === "segmented" ? 1 : layers;
  while (length < layers && predictedError(length + 1, factors, dtype) <= tolerance) length++;
  return Array.from({ length: Math.ceil(layers / Math.max(length, 1)) }, (_, segment) =>
    Math.min(length, layers - segment * length),
  );
}

function refuseFaithful(layers: number, dtype: DType): never {
  throw new ThimbleError("meft-faithful", `In ${dtype} the inverse of so many layers is noise`, {
    where: "meft.mode",
    given: `faithful, ${layers} reversible layers`,
    expected: `at most ${mostIn16Bits} layers, or f32`,
    fix: "Use mode exact, or segmented.",
  });
}
