import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import { defineMethod } from "../define.js";
import type { Turn, Turns } from "../types.js";
import { drawBlocks, turnsOf } from "./turns.js";

const config = z.strictObject({
  activated_layers: z.int().min(1).default(2).describe("Blocks that train at a time"),
  interval_steps: z.int().min(1).default(20).describe("Optimizer steps after which other blocks are drawn"),
  embeddings: z
    .boolean()
    .default(true)
    .describe("Train embeddings, output layer and last norm in every step; the paper does"),
});

/** LISA: a few blocks, drawn anew every so many steps, train beside embeddings and output layer. */
export const lisa = defineMethod({
  id: "lisa",
  title: "LISA: layerwise importance sampled AdamW",
  paper: "2403.17919",
  year: 2024,
  summary: "Full tuning of a few randomly drawn blocks at a time, beside embeddings and output layer.",
  reduces: ["gradients", "states", "activations"],
  fills: ["select", "turns"],
  config,
  resolve: (settings, model) => {
    const { activated_layers: count, interval_steps: interval, embeddings } = settings;
    if (count > model.blocks) {
      throw new ThimbleError("lisa-layers", "More blocks are to train than the model has", {
        where: "lisa.activated_layers",
        given: String(count),
        expected: `1 to ${model.blocks}`,
      });
    }
    let drawn: { readonly seed: number; readonly at: (step: number) => readonly Turn[] } | undefined;
    const turns: Turns = {
      count,
      states: "turn",
      at: (step, seed) => {
        if (drawn?.seed !== seed) {
          drawn = { seed, at: turnsOf((period) => drawBlocks(model.blocks, count, period, seed), interval) };
        }
        return drawn.at(step);
      },
    };
    const own = {
      id: "lisa",
      config: settings,
      slots: { turns },
      claims: [{ resource: "trainable-set", exclusive: true, reason: "draws the blocks that train" }],
      adapters: [],
    } as const;
    return {
      ...own,
      // With a method that trains something, its tensors take turns; alone, those of the model do.
      alone: {
        ...own,
        slots: { turns, select: ({ block }) => block !== undefined || embeddings },
        claims: [...own.claims, { resource: "base-weights", exclusive: true, reason: "trains them, block by block" }],
        learningRate: 2e-5,
        saves: "weights",
      },
    };
  },
});
