import { z } from "zod";
import { defineMethod } from "../define.js";
import type { Claim, ResolvedMethod } from "../types.js";
import { spsa } from "./estimate.js";

const claims: readonly Claim[] = [
  { resource: "estimator", exclusive: true, reason: "makes gradients from differences of losses" },
  { resource: "gradients", exclusive: true, reason: "makes them of noise, which has no structure to project on" },
];

/** MeZO: zeroth-order tuning by SPSA; alone it trains every tensor, beside an adapter only the adapter's. */
export const mezo = defineMethod({
  id: "mezo",
  title: "Memory-efficient zeroth-order optimisation (MeZO)",
  paper: "2305.17333",
  year: 2023,
  summary: "Trains with forward passes alone: no gradients, no saved values, no optimizer states.",
  reduces: ["gradients", "states", "activations"],
  fills: ["estimate", "select"],
  config: z.strictObject({
    epsilon: z.number().positive().max(1).default(1e-3).describe("Size of the perturbation of every weight"),
    directions: z.int().min(1).max(16).default(1).describe("Directions of a step, two forward passes each"),
    perturbation: z
      .enum(["virtual", "in_place"])
      .default("virtual")
      .describe("Whether noise is added where weights are read, or to the weights themselves and taken off again"),
  }),
  resolve: (config) => {
    const companion: ResolvedMethod = {
      id: "mezo",
      config,
      slots: { estimate: spsa(config) },
      claims,
      suggests: { optimizer: "sgd", rate: { weights: 1e-6, adapter: 1e-4 } },
      adapters: [],
    };
    return { ...companion, alone: trainingAll(companion) };
  },
});

function trainingAll(companion: ResolvedMethod): ResolvedMethod {
  return {
    ...companion,
    slots: { ...companion.slots, select: () => true },
    claims: [...claims, { resource: "base-weights", exclusive: true, reason: "trains all of them" }],
    learningRate: 1e-6,
    saves: "weights",
  };
}
