import type { ModelDefinition } from "../../models/types.js";
import { foldedForm } from "../low-rank/peft.js";
import { valuesOf } from "../low-rank/tensors.js";
import type { HostTensors, PeftForm } from "../types.js";
import type { AdaloraTarget } from "./config.js";

/** The factors of the same correction without Λ: A = Λ Q and B = P, by name. */
export function foldedTensors({ a, b, lambda, spec }: AdaloraTarget, tensors: HostTensors): HostTensors {
  const diagonal = valuesOf(lambda, tensors);
  const rows = valuesOf(a, tensors).map((value, place) => value * (diagonal[Math.floor(place / spec.inputs)] ?? 0));
  return new Map([
    [a.name, rows],
    [b.name, valuesOf(b, tensors)],
  ]);
}

/** The adapter as plain LoRA: masked triplets left out, Λ folded into A and the scale into B. */
export function loraForm(model: ModelDefinition, targets: readonly AdaloraTarget[], tensors: HostTensors): PeftForm {
  const layers = targets.map((target) => {
    const { spec, rank, scale } = target;
    const folded = foldedTensors(target, tensors);
    const [rows, columns] = [valuesOf(target.a, folded), valuesOf(target.b, folded)];
    const kept = keptTriplets(valuesOf(target.lambda, tensors));
    const a = new Float32Array(kept.length * spec.inputs);
    const b = new Float32Array(spec.outputs * kept.length);
    kept.forEach((triplet, place) => {
      a.set(rows.subarray(triplet * spec.inputs, (triplet + 1) * spec.inputs), place * spec.inputs);
      for (let row = 0; row < spec.outputs; row++) {
        b[row * kept.length + place] = scale * (columns[row * rank + triplet] ?? 0);
      }
    });
    return { spec, rank: kept.length, a, b };
  });
  return foldedForm(model, layers);
}

/** Places where Λ is not 0. A rank of 0 does not exist in PEFT: a layer without any keeps its first, which adds 0. */
function keptTriplets(diagonal: Float32Array): number[] {
  const kept = Array.from(diagonal.keys()).filter((place) => diagonal[place] !== 0);
  return kept.length === 0 ? [0] : kept;
}
