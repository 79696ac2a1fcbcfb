import { z } from "zod";
import { ThimbleError } from "../../errors.js";

export const istConfig = z.strictObject({
  n_layers_updated: z.int().min(1).optional().describe("Layers that train in a step; a quarter of them if not given"),
  n_layers_suppressed: z
    .int()
    .min(1)
    .optional()
    .describe("Layers that are dimmed in a probe; half of them if not given"),
  response_suppression_factor: z
    .number()
    .min(0)
    .lt(1)
    .default(0.25)
    .describe("What is left of the adapters of dimmed layers"),
  rl_step: z
    .int()
    .min(2)
    .optional()
    .describe("Probes of one look at the layers' importance; 3 if not given, or as many as there are different sets"),
  rl_lr: z.number().positive().default(10).describe("How far a probe moves the scores"),
  update_importance_interval_steps: z
    .int()
    .min(1)
    .default(10)
    .describe("Optimizer steps between two looks at the layers' importance"),
  importance_batch: z.int().min(1).default(16).describe("Examples that each probe sees, in whole micro-batches"),
  sampling: z
    .enum(["importance", "uniform"])
    .default("importance")
    .describe("Whether layers are drawn by learned importance, or all alike (the baseline RST), without probes"),
});

export type IstConfig = z.infer<typeof istConfig>;

/** The settings with what follows from the number of layers. */
export interface Sampling extends IstConfig {
  /** Blocks of the model that have something to train, ascending: the layers of the method. */
  readonly blocks: readonly number[];
  readonly updated: number;
  readonly suppressed: number;
  readonly probes: number;
}

/** Settles the settings for these blocks, or refuses what they do not allow. */
export function settled(config: IstConfig, blocks: readonly number[]): Sampling {
  const count = blocks.length;
  const { n_layers_updated: updated = Math.max(1, Math.floor(count / 4)) } = config;
  const { n_layers_suppressed: suppressed = Math.floor(count / 2) } = config;
  const sets = setsOf(count, suppressed);
  const { rl_step: probes = Math.min(3, sets) } = config;
  if (updated > count) throw outside("n_layers_updated", updated, `1 to ${count}`);
  if (config.sampling === "importance") {
    if (suppressed < 1 || suppressed >= count) throw outside("n_layers_suppressed", suppressed, `1 to ${count - 1}`);
    if (probes > sets) throw outside("rl_step", probes, `at most ${sets}, as many as there are different sets`);
  }
  return { ...config, blocks, updated, suppressed, probes };
}

function outside(setting: string, given: number, expected: string): ThimbleError {
  return new ThimbleError("ist-layers", "There are not as many layers with adapters as the setting needs", {
    where: `ist.${setting}`,
    given: String(given),
    expected,
    fix: "Choose a number in the range, or adapt more layers.",
  });
}

/** How many sets of `size` of `count` things there are. */
function setsOf(count: number, size: number): number {
  return Array.from({ length: size }).reduce<number>((sets, _, place) => (sets * (count - place)) / (place + 1), 1);
}
