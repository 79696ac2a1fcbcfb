import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import { blockOf } from "../../models/parameters.js";
import type { LinearSpec } from "../../models/types.js";
import { targetSettings } from "../targets.js";
import type { AdapterTensor, FixedTensor } from "../types.js";

export const pacaConfig = z.strictObject({
  r: z.int().min(1).max(65536).default(16).describe("Input columns of each chosen weight that train"),
  alpha: z.number().positive().default(64).describe("Numerator of the scale of the trained change: alpha / r"),
  seed: z.int().min(0).default(0).describe("Seed of the choice of columns, which is thus the same in every run"),
  ...targetSettings,
});

export type PacaConfig = z.infer<typeof pacaConfig>;

/** A layer with the columns that train in it. */
export interface PacaTarget {
  readonly spec: LinearSpec;
  readonly scale: number;
  /** D [out, r]: W'[:, columns] = W[:, columns] + scale D. */
  readonly delta: AdapterTensor;
  /** i32 [r], ascending. */
  readonly columns: FixedTensor;
  /** i32 [in]: the place of each column in `columns`, r where it is not in it. */
  readonly places: FixedTensor;
}

/** A layer's tensors, or a refusal where it has too few inputs. */
export function targetOf({ r, alpha }: PacaConfig, spec: LinearSpec): PacaTarget {
  const { path, inputs, outputs } = spec;
  if (r > inputs) {
    throw new ThimbleError("paca-columns", "A layer has fewer inputs than columns are to train", {
      where: "paca.r",
      given: `${r} for ${path}`,
      expected: `1 to ${inputs}`,
    });
  }
  return {
    spec,
    scale: alpha / r,
    delta: {
      name: `${path}.paca_delta`,
      shape: [outputs, r],
      dtype: "f32",
      initial: { kind: "zeros" },
      rateFactor: 1,
      decay: true,
      ...blockOf(spec),
    },
    columns: { name: `${path}.paca_indices`, shape: [r], dtype: "i32" },
    places: { name: `${path}.paca_places`, shape: [inputs], dtype: "i32" },
  };
}
