import { z } from "zod";

/** How text is made from a model; the flags of `generate` and `chat` are derived from this. */
export const generationSchema = z.strictObject({
  maxTokens: z.int().min(1).max(1_000_000).default(128).describe("Most tokens to make"),
  temperature: z
    .number()
    .min(0)
    .max(100)
    .default(0.8)
    .describe("Sharpness of the choice: 0 always takes the likeliest token"),
  topK: z.int().min(1).max(1_000_000).optional().describe("Choose among so many of the likeliest tokens"),
  topP: z
    .number()
    .gt(0)
    .max(1)
    .default(1)
    .describe("Choose among the likeliest tokens that together have this probability"),
  stop: z.array(z.string().min(1)).default([]).describe("Text at which to stop; may be repeated"),
  seed: z.int().min(0).max(Number.MAX_SAFE_INTEGER).default(0).describe("Seed of the choices"),
});

export type GenerationSettings = z.output<typeof generationSchema>;
