import { must } from "../../errors.js";
import type { ModelDefinition } from "../../models/types.js";
import { drawDistinct } from "../initial.js";
import { foldedForm } from "../low-rank/peft.js";
import type { HostTensors, PeftForm } from "../types.js";
import type { PacaConfig, PacaTarget } from "./config.js";

/** Different columns of a layer, uniformly without replacement, ascending: a function of the seed and the layer's name. */
export function chooseColumns(seed: number, { spec, columns }: PacaTarget): number[] {
  const count = must(columns.shape[0], "columns");
  return drawDistinct(seed, columns.name, count, spec.inputs).sort((a, b) => a - b);
}

function deltaOf({ delta }: PacaTarget, tensors: HostTensors): Float32Array {
  return must(tensors.get(delta.name), delta.name);
}

/** The weight with the change added to its columns. */
export function mergeColumns(
  { seed }: PacaConfig,
  target: PacaTarget,
  weight: Float32Array,
  tensors: HostTensors,
): Float32Array {
  const { spec, scale } = target;
  const delta = deltaOf(target, tensors);
  const columns = chooseColumns(seed, target);
  const merged = weight.slice();
  for (let row = 0; row < spec.outputs; row++) {
    columns.forEach((column, place) => {
      const at = spec.transposed ? column * spec.outputs + row : row * spec.inputs + column;
      merged[at] = (weight[at] ?? 0) + scale * (delta[row * columns.length + place] ?? 0);
    });
  }
  return merged;
}

/** The same change as a LoRA adapter, exactly: A selects the columns, B = s D, and alpha = r. */
export function selectorForm(
  { r, seed }: PacaConfig,
  model: ModelDefinition,
  targets: readonly PacaTarget[],
  values: HostTensors,
): PeftForm {
  const layers = targets.map((target) => {
    const { spec, scale } = target;
    const selector = new Float32Array(r * spec.inputs);
    chooseColumns(seed, target).forEach((column, place) => (selector[place * spec.inputs + column] = 1));
    return { spec, rank: r, a: selector, b: deltaOf(target, values).map((value) => value * scale) };
  });
  return foldedForm(model, layers);
}
