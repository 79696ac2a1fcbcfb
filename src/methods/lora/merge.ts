import { ThimbleError } from "../../errors.js";
import type { HostTensors } from "../types.js";
import type { LoraTarget } from "./config.js";
import { eachDeltaRow, rowLayout, valuesOf } from "./tensors.js";

/**
 * W + s B A, or diag(m/n)(W + s B A) for DoRA with n the row norms of the same sum; summed in f64, rounded once to
 * f32. `weight` is the one that training ran on (PiSSA: the residual), as stored.
 */
export function mergeLora(target: LoraTarget, weight: Float32Array, tensors: HostTensors): Float32Array {
  const merged = new Float32Array(weight.length);
  const magnitude = target.dora === undefined ? undefined : valuesOf(target.dora.magnitude, tensors);
  eachDeltaRow(target, tensors, (row, values) => {
    const { start, stride } = rowLayout(target.spec, row);
    let squares = 0;
    for (let column = 0; column < values.length; column++) {
      const value = (weight[start + column * stride] ?? 0) + (values[column] ?? 0);
      values[column] = value;
      squares += value * value;
    }
    const factor = magnitude === undefined || squares === 0 ? 1 : (magnitude[row] ?? 0) / Math.sqrt(squares);
    for (let column = 0; column < values.length; column++) {
      merged[start + column * stride] = factor * (values[column] ?? 0);
    }
  });
  refuseInfinite(target, merged);
  return merged;
}

function refuseInfinite(target: LoraTarget, merged: Float32Array): void {
  const place = merged.findIndex((value) => !Number.isFinite(value));
  if (place < 0) return;
  throw new ThimbleError("merge-not-finite", `Merging ${target.spec.path} gives a value that is not a finite number`, {
    given: `${String(merged[place])} at element ${place}`,
    fix: "The training diverged, or the adapter belongs to another base; try an earlier checkpoint.",
  });
}
