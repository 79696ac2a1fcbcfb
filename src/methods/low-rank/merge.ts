import { ThimbleError } from "../../errors.js";
import type { LinearSpec } from "../../models/types.js";
import type { HostTensors } from "../types.js";
import type { LowRankLayer } from "./layer.js";
import { eachDeltaRow, rowLayout } from "./tensors.js";

/** What to multiply a row of W + s B A by, from the sum of its squares; absent = 1. */
export type RowFactor = (row: number, squares: number) => number;

/**
 * W + s B A with each row times its factor; summed in f64, rounded once to f32. `weight` is the one that training ran
 * on (PiSSA: the residual), as stored. Fails on values that are not finite.
 */
export function mergeDelta(
  layer: LowRankLayer,
  weight: Float32Array,
  tensors: HostTensors,
  factorOf: RowFactor = () => 1,
): Float32Array {
  const merged = new Float32Array(weight.length);
  eachDeltaRow(layer, tensors, (row, values) => {
    const { start, stride } = rowLayout(layer.spec, row);
    let squares = 0;
    for (let column = 0; column < values.length; column++) {
      const value = (weight[start + column * stride] ?? 0) + (values[column] ?? 0);
      values[column] = value;
      squares += value * value;
    }
    const factor = factorOf(row, squares);
    for (let column = 0; column < values.length; column++) {
      merged[start + column * stride] = factor * (values[column] ?? 0);
    }
  });
  refuseInfinite(layer.spec, merged);
  return merged;
}

/** Fails where a merged weight holds a value that is not a finite number. */
export function refuseInfinite({ path }: LinearSpec, merged: Float32Array): void {
  const place = merged.findIndex((value) => !Number.isFinite(value));
  if (place < 0) return;
  throw new ThimbleError("merge-not-finite", `Merging ${path} gives a value that is not a finite number`, {
    given: `${String(merged[place])} at element ${place}`,
    fix: "The training diverged, or the adapter belongs to another base; try an earlier checkpoint.",
  });
}
