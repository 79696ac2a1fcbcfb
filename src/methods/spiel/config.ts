import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import type { ModelDefinition } from "../../models/types.js";
import { densitySettings, spreadEntries } from "../sparse/density.js";
import type { GrowingLayer } from "../sparse/growth.js";
import { growingLayer } from "../sparse/growth.js";
import { sparseLayer } from "../sparse/layer.js";
import { matchTargets, targetSettings } from "../targets.js";

/** The reference's names and defaults. */
export const spielConfig = z.strictObject({
  ...densitySettings,
  selection_algorithm: z
    .enum(["rigl", "sm3", "none"])
    .default("rigl")
    .describe("What grows: by accumulated gradients (AG, rigl), by SM3's rows and columns (MA, sm3), or nothing"),
  reselection_steps: z.int().min(2).default(20).describe("Steps from one selection to the next"),
  selection_accumulation_steps: z
    .int()
    .min(1)
    .default(5)
    .describe("Steps from the start, and from each multiple of reselection_steps, to the selection; fewer than those"),
  initial_reselection_rate: z
    .number()
    .min(0)
    .max(1)
    .default(0.2)
    .describe("Share of a layer's entries that selections may replace, were they at the start"),
  first_selection_rate: z
    .number()
    .min(0)
    .max(1)
    .default(1)
    .describe("The same of the first selection: 1 replaces all random places; less to go on from an adapter"),
  reselection_rate_policy: z.enum(["linear", "cosine"]).default("linear").describe("How that share falls to 0"),
  total_steps: z
    .int()
    .min(1)
    .optional()
    .describe("Steps over which the share falls; those of the run if not given, and without a run it stays"),
  dtype: z.enum(["float32", "bfloat16"]).default("float32").describe("Type of the stored values"),
  seed: z.int().min(0).default(0).describe("Seed of the first places, which are thus the same in every run"),
  ...targetSettings,
});

export type SpielConfig = z.infer<typeof spielConfig>;

export function spielLayers(settings: SpielConfig, model: ModelDefinition): GrowingLayer[] {
  const { selection_accumulation_steps: within, reselection_steps: between, dtype } = settings;
  if (within >= between) {
    throw new ThimbleError("spiel-steps", "A selection must come before the next window opens", {
      where: "spiel.selection_accumulation_steps",
      given: `${within} of ${between} steps`,
      expected: "fewer than reselection_steps",
      fix: "Lower it, or raise spiel.reselection_steps.",
    });
  }
  const specs = matchTargets("spiel", model, settings);
  const counts = spreadEntries("spiel", model, specs, settings);
  return specs.map((spec, index) =>
    growingLayer(sparseLayer(spec, counts[index] ?? 0, "spiel", dtype === "bfloat16" ? "bf16" : "f32")),
  );
}
