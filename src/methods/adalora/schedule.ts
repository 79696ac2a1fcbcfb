import type { AdaloraSettings } from "./config.js";

/** What a step does with the triplets. */
export interface Allocation {
  /** Triplets that a choice of this step keeps, over all layers. */
  readonly budget: number;
  /** Whether they are chosen anew. */
  readonly chooses: boolean;
  /** Whether the last choice is held: masked triplets stay at zero. */
  readonly holds: boolean;
  /** Whether the importance scores go on. */
  readonly scores: boolean;
}

/**
 * Step t = 1, 2, … of Zhang et al. 2023 (AdaLoRA, section 3.3) as PEFT takes it: all triplets up to `tinit`, then a
 * number that falls with the cube of what is left of the time, and from step T - `tfinal` on the wanted one.
 */
export function allocationAt(settings: AdaloraSettings, layers: number, t: number): Allocation {
  const { init_r, target_r, total_step, tinit, tfinal, deltaT } = settings;
  const end = total_step - tfinal;
  const [first, last] = [init_r * layers, target_r * layers];
  const left = 1 - (t - tinit) / (end - tinit);
  const budget = t <= tinit ? first : t > end ? last : Math.floor((first - last) * left ** 3 + last);
  return {
    budget,
    chooses: t === end || (t > tinit && t < end && t % deltaT === 0),
    holds: t > end,
    scores: t < end,
  };
}
