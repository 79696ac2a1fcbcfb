import { z } from "zod";
import { defineMethod } from "../define.js";

/** Full fine-tuning: every tensor of the checkpoint trains. */
export const full = defineMethod({
  id: "full",
  title: "Full fine-tuning",
  paper: "1801.06146",
  year: 2018,
  summary: "Trains every tensor of the model: the most capacity and the most memory.",
  reduces: [],
  fills: ["select"],
  config: z.strictObject({}),
  resolve: (config) => ({
    id: "full",
    config,
    slots: { select: () => true },
    claims: [{ resource: "base-weights", exclusive: true, reason: "trains all of them" }],
    learningRate: 2e-5,
    saves: "weights",
    adapters: [],
  }),
});
