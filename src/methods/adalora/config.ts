import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import type { ModelDefinition } from "../../models/types.js";
import type { LowRankLayer } from "../low-rank/layer.js";
import { factorTensors, rankSetting, tensorDefaults } from "../low-rank/layer.js";
import { matchTargets, targetSettings } from "../targets.js";
import type { AdapterTensor } from "../types.js";

const average = z.number().gt(0).lt(1).default(0.85);

/** PEFT's names and defaults. */
export const adaloraConfig = z.strictObject({
  init_r: rankSetting.default(12).describe("Triplets of each layer at the start"),
  target_r: rankSetting.default(8).describe("Triplets that are left at the end, on average over the layers"),
  alpha: z.number().positive().default(8).describe("Numerator of the scale: alpha / init_r, at any rank"),
  dropout: z.number().min(0).lt(1).default(0).describe("Dropout of the adapter's input while training"),
  total_step: z.int().min(1).optional().describe("Steps that the schedule is made for; those of the run if not given"),
  tinit: z.int().min(0).default(0).describe("First steps, in which no triplet is masked"),
  tfinal: z.int().min(0).default(0).describe("Last steps, in which the masks stay as they are"),
  deltaT: z.int().min(1).default(1).describe("Steps between one choice of triplets and the next"),
  beta1: average.describe("Decay of the mean of the sensitivity"),
  beta2: average.describe("Decay of the mean of its uncertainty"),
  orth_reg_weight: z.number().min(0).default(0.5).describe("Weight of the term that keeps P and Q orthogonal"),
  ...targetSettings,
});

/** Settings of which none is left open. */
export type AdaloraSettings = z.infer<typeof adaloraConfig> & { readonly total_step: number };

/** One layer under W + s P Λ Q, with P in `b` [out, r] and Q in `a` [r, in]. */
export interface AdaloraTarget extends LowRankLayer {
  /** The diagonal of Λ, [r, 1]. */
  readonly lambda: AdapterTensor;
}

/** The settings of a run; refused where its steps are unknown or leave none for the masks. */
export function settled(config: z.infer<typeof adaloraConfig>): AdaloraSettings {
  const { total_step: steps, tinit, tfinal, init_r: most, target_r: wanted } = config;
  if (steps === undefined) {
    throw new ThimbleError("adalora-steps", "AdaLoRA's schedule needs to know how many steps the run has", {
      where: "adalora.total_step",
      fix: "Give it, such as total_step: 1000.",
    });
  }
  if (tinit >= steps - tfinal) {
    throw new ThimbleError("adalora-schedule", "First and last steps leave none in which triplets are masked", {
      where: "adalora.tinit",
      given: `tinit ${tinit} and tfinal ${tfinal} of ${steps} steps`,
      expected: "tinit < total_step - tfinal",
      fix: "Lower tinit or tfinal, or train longer.",
    });
  }
  if (wanted > most) {
    throw new ThimbleError("adalora-rank", "More triplets are to be left than there are at the start", {
      where: "adalora.target_r",
      given: `${wanted} of ${most}`,
      expected: `1 to ${most}`,
      fix: "Lower target_r, or raise init_r.",
    });
  }
  return { ...config, total_step: steps };
}

export function adaloraTargets(config: AdaloraSettings, model: ModelDefinition): AdaloraTarget[] {
  const { init_r: rank, alpha } = config;
  const start = { kind: "normal", deviation: 0.02 } as const;
  return matchTargets("adalora", model, config).map((spec) => ({
    spec,
    rank,
    // PEFT's divisor: the rank at the start also when triplets are masked.
    scale: alpha / (rank + 1e-5),
    ...factorTensors(spec, rank, { a: start, b: start }),
    lambda: { ...tensorDefaults(spec), name: `${spec.path}.lora_E`, shape: [rank, 1], initial: { kind: "zeros" } },
  }));
}
