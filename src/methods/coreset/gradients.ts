import { must } from "../../errors.js";
import type { Features } from "./features.js";

/** Gradients of examples as a probe knows them: numbers times directions that all examples share. */
export interface ProbedGradients {
  /** c_ij, [examples, directions]: the slope of the loss of example i along direction j. */
  readonly slopes: Float64Array;
  /** z_j, [coordinates] each. */
  readonly directions: readonly Float32Array[];
  /** Multiplies every coordinate. */
  readonly factor?: Float32Array;
}

/** g_i = mean over j of c_ij z_j (times the factor), a coordinate at a time: of the examples, only c_ij is kept. */
export function probedFeatures({ slopes, directions, factor }: ProbedGradients): Features {
  const q = directions.length;
  const count = slopes.length / q;
  return {
    count,
    size: must(directions[0], "direction").length,
    column: (place, into) => {
      const scale = (factor?.[place] ?? 1) / q;
      for (let example = 0; example < count; example++) {
        let sum = 0;
        for (let j = 0; j < q; j++) sum += (slopes[example * q + j] ?? 0) * (directions[j]?.[place] ?? 0);
        into[example] = sum * scale;
      }
    },
  };
}

/** Running means of gradients and of their squares, as Adam keeps them; [coordinates] each. */
export interface Moments {
  readonly mean: Float32Array;
  readonly square: Float32Array;
}

const [beta1, beta2, epsilon] = [0.9, 0.999, 1e-8];

/**
 * What Adam would make of each gradient alone in step number `step` (from 0), without its rate: with m and v after
 * that gradient, (m / (1 - b1^(t+1))) / (sqrt(v / (1 - b2^(t+1))) + e). Kingma and Ba 2015, algorithm 1.
 */
export function adamRescaled(gradients: Features, { mean, square }: Moments, step: number): Features {
  const [correction1, correction2] = [1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)];
  return {
    ...gradients,
    column: (place, into) => {
      gradients.column(place, into);
      const [m, v] = [beta1 * (mean[place] ?? 0), beta2 * (square[place] ?? 0)];
      for (let example = 0; example < into.length; example++) {
        const g = into[example] ?? 0;
        const first = (m + (1 - beta1) * g) / correction1;
        into[example] = first / (Math.sqrt((v + (1 - beta2) * g * g) / correction2) + epsilon);
      }
    },
  };
}

/** Moves the moments on by the mean over `members` of what Adam would make of them; nothing where there are none. */
export function advanceMoments(gradients: Features, members: readonly number[], { mean, square }: Moments): void {
  if (members.length === 0) return;
  const column = new Float64Array(gradients.count);
  for (let place = 0; place < gradients.size; place++) {
    gradients.column(place, column);
    let [sum, squares] = [0, 0];
    for (const member of members) {
      const g = column[member] ?? 0;
      sum += g;
      squares += g * g;
    }
    mean[place] = beta1 * (mean[place] ?? 0) + ((1 - beta1) * sum) / members.length;
    square[place] = beta2 * (square[place] ?? 0) + ((1 - beta2) * squares) / members.length;
  }
}
