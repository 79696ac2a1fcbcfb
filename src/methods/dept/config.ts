import { z } from "zod";

/** Settings of DePT; defaults are those of the reference's example runs, with the rows as long as the run's. */
export const deptConfig = z.strictObject({
  prefix_length: z.number().int().min(0).max(4096).default(40).describe("Rows of the soft prompt"),
  r: z.number().int().min(0).max(4096).default(45).describe("Rank of the update of the embedded tokens; 0 = none"),
  max_length: z
    .number()
    .int()
    .min(1)
    .default(256)
    .describe("Positions that have an update; the length of the run's rows unless given"),
  alpha: z.number().positive().default(8).describe("The update is scaled by alpha / sqrt(r)"),
  low_rank_rate: z
    .number()
    .min(0)
    .max(10)
    .default(1 / 60)
    .describe("Learning rate of the update as a share of the prompt's, which is the run's"),
  init: z
    .enum(["random", "vocabulary"])
    .default("random")
    .describe("Start of the prompt: standard normal numbers, or embeddings of tokens (of init_tokens, else drawn)"),
  init_tokens: z
    .array(z.number().int().min(0))
    .min(1)
    .optional()
    .describe("Ids whose embeddings the prompt starts from, repeated or cut to its length"),
  init_text: z.string().min(1).optional().describe("The same as a text, which the model's tokenizer turns into ids"),
});
