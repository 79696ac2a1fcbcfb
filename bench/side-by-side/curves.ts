import { z } from "zod";

/** What bench/memory.ts writes. */
export const memorySchema = z.object({
  model: z.string(),
  curves: z.array(
    z.object({
      method: z.string(),
      dtype: z.string(),
      batch: z.number(),
      variant: z.string(),
      points: z.array(z.object({ seq: z.number(), planBytes: z.number(), boundBytes: z.number() })),
    }),
  ),
});

/** What bench/frontier.ts writes. */
export const frontierSchema = z.object({
  model: z.string(),
  machine: z.record(z.string(), z.unknown()),
  date: z.string(),
  batch: z.number(),
  seq: z.number(),
  points: z.array(
    z.object({
      method: z.string(),
      dtype: z.string(),
      /** What was asked for: a budget or a policy. */
      asked: z.string(),
      planMiB: z.number().optional(),
      peakMiB: z.number().optional(),
      tokensPerSecond: z.number().optional(),
      failure: z.string().optional(),
    }),
  ),
});

export type MemoryCurves = z.infer<typeof memorySchema>;
export type Frontier = z.infer<typeof frontierSchema>;
