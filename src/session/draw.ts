import { ThimbleError } from "../errors.js";
import type { SessionOptions } from "./types.js";

/** Micro-batches that are drawn for a step: as many as it takes, or more where a method chooses among their rows. */
export function drawnBatches({ methods, accumulate, batch }: SessionOptions): number {
  const ratio = methods?.examples?.ratio ?? 1;
  const drawn = Math.round(accumulate / ratio);
  if (Math.abs(drawn * ratio - accumulate) < 1e-9 * accumulate) return drawn;
  const [numerator, denominator] = fraction(ratio);
  throw new ThimbleError("draw-uneven", "The rows to choose from are no whole number of micro-batches", {
    where: "accumulate",
    given: `${accumulate} micro-batches of ${batch} rows, which are a share of ${ratio} of the draw`,
    expected: `accumulate / ${ratio} without a remainder`,
    fix:
      numerator === undefined || denominator === undefined
        ? "Choose a share such as 0.5, 0.25 or 0.75."
        : `Set accumulate to ${numerator} or a multiple of it (and batch to fewer rows): ${denominator} micro-batches are then drawn for every ${numerator}.`,
  });
}

/** A share as the fraction of the least whole numbers; undefined where these would be large. */
function fraction(share: number): readonly [number?, number?] {
  for (let denominator = 1; denominator <= 64; denominator++) {
    const numerator = Math.round(share * denominator);
    if (numerator > 0 && Math.abs(numerator - share * denominator) < 1e-9) return [numerator, denominator];
  }
  return [];
}
