import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import { weightOf } from "../../models/parameters.js";
import type { LinearSpec } from "../../models/types.js";
import { defineMethod } from "../define.js";
import { matchTargets, targetSettings } from "../targets.js";
import { projected } from "./optimizer.js";
import { projectionOf, projectionTypes } from "./projection.js";

const config = z.strictObject({
  ...targetSettings,
  rank: z.int().min(1).max(65536).default(128).describe("Rank of the subspace of each chosen weight's gradient"),
  update_proj_gap: z
    .int()
    .min(1)
    .default(200)
    .describe("Steps between renewals of the projectors; the first step is one"),
  scale: z.number().positive().default(0.25).describe("Factor on the projected update"),
  proj_type: z
    .enum(projectionTypes)
    .default("std")
    .describe("Side that is projected: the smaller (std), the larger (reverse_std), left, right, or both (full)"),
});

/** GaLore: full-parameter training with the optimizer's states in a low-rank subspace of the gradient. */
export const galore = defineMethod({
  id: "galore",
  title: "GaLore: gradient low-rank projection",
  paper: "2403.03507",
  year: 2024,
  summary: "Trains every tensor, with the optimizer's states of linear layers in a low-rank subspace of the gradient.",
  reduces: ["gradients", "states"],
  fills: ["select", "update", "steps"],
  config,
  resolve: (settings, model) => {
    const targets = matchTargets("galore", model, settings);
    for (const spec of targets) refuseRank(settings.rank, spec);
    const names = new Set(targets.map((spec) => weightOf(spec).name));
    return {
      id: "galore",
      config: settings,
      slots: {
        select: () => true,
        update: ({ name, node }, rule, variant) => {
          if (!names.has(name)) return undefined;
          const projection = projectionOf(settings.proj_type, settings.rank, node.shape);
          return projected(rule, projection, settings.scale, variant === "renew");
        },
        steps: {
          variants: ["renew"],
          variant: (step) => (step % settings.update_proj_gap === 0 ? "renew" : ""),
        },
      },
      claims: [
        { resource: "base-weights", exclusive: true, reason: "trains all of them" },
        {
          resource: "moments",
          exclusive: true,
          tensors: [...names],
          reason: "keeps them in a subspace of the gradient",
        },
        { resource: "gradients", exclusive: true, reason: "projects them on their leading directions" },
      ],
      learningRate: 1e-4,
      saves: "weights",
      adapters: [],
    };
  },
});

function refuseRank(rank: number, { path, inputs, outputs }: LinearSpec): void {
  const most = Math.min(inputs, outputs);
  if (rank <= most) return;
  throw new ThimbleError("galore-rank", "The rank is larger than a side of a weight", {
    where: "galore.rank",
    given: `${rank} for ${path} [${outputs}, ${inputs}]`,
    expected: `1 to ${most}`,
    fix: "Lower the rank, or leave the layer out with exclude_modules.",
  });
}
