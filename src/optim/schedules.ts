import { z } from "zod";
import { ThimbleError } from "../errors.js";

export const scheduleConfig = z.strictObject({
  kind: z
    .enum(["constant", "linear", "cosine", "wsd"])
    .default("linear")
    .describe("Course of the learning rate after warm-up; wsd holds it and decays over the last part"),
  warmup: z
    .number()
    .min(0)
    .default(0)
    .refine((value) => value < 1 || Number.isInteger(value), "must be a whole number of steps, or a fraction below 1")
    .describe("Steps (1 and more) or share of all steps (below 1) over which the rate rises from 0"),
  min_ratio: z.number().min(0).max(1).default(0).describe("Lowest rate, as a share of the highest"),
  decay: z
    .number()
    .min(0)
    .default(0.1)
    .refine((value) => value < 1 || Number.isInteger(value), "must be a whole number of steps, or a fraction below 1")
    .describe("wsd: steps (1 and more) or share of all steps (below 1) of the final decay"),
});

export type ScheduleConfig = z.infer<typeof scheduleConfig>;

/** The factor on the learning rate after `done` completed optimizer steps (0 at the first step). */
export type Schedule = (done: number) => number;

/** Steps from a setting that is a count or a share. */
function stepsOf(value: number, total: number): number {
  return value < 1 ? Math.ceil(value * total) : value;
}

/**
 * A closed form of the step, with the conventions of transformers' schedulers (get_linear_schedule_with_warmup and
 * kin): warm-up is done/warmup, so the first step of one has rate 0. Past `total` the last value holds.
 */
export function schedule(config: ScheduleConfig, total: number): Schedule {
  const warmup = stepsOf(config.warmup, total);
  const falling = Math.max(warmup, total - stepsOf(config.decay, total));
  if (warmup > total) {
    throw new ThimbleError("schedule-warmup", "The warm-up is longer than the run", {
      given: `${warmup} of ${total} steps`,
      where: "schedule.warmup",
    });
  }
  const progress = (done: number, start: number, length: number): number =>
    Math.min(1, Math.max(0, (done - start) / Math.max(1, length)));
  const between = (share: number): number => config.min_ratio + (1 - config.min_ratio) * share;
  const course: Record<ScheduleConfig["kind"], Schedule> = {
    constant: () => 1,
    linear: (done) => between(1 - progress(done, warmup, total - warmup)),
    cosine: (done) => between(0.5 * (1 + Math.cos(Math.PI * progress(done, warmup, total - warmup)))),
    wsd: (done) => between(0.5 * (1 + Math.cos(Math.PI * progress(done, falling, total - falling)))),
  };
  const after = course[config.kind];
  return (done) => (done < warmup ? done / warmup : after(done));
}
