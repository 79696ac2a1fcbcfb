import type { TargetFacts } from "../plan/plan.js";
import { planWithin } from "./budget.js";
import { drawnBatches } from "./draw.js";
import type { SessionPlan } from "./finish.js";
import { finishSession } from "./finish.js";
import { formSession } from "./form.js";
import { planTurns } from "./turns.js";
import type { SessionOptions } from "./types.js";

export type { SessionPlan } from "./finish.js";

/**
 * Builds, compiles and plans all programs of a session; reads no tensor data. With a budget, it is the plan of the
 * least predicted time that keeps to it; `options` of the result are those that the plan is of. A session in which other
 * blocks have their turn than `before` is planned again: all but its steps stays as it is.
 */
export function planSession(options: SessionOptions, facts: TargetFacts, before?: SessionPlan): SessionPlan {
  if (options.train) drawnBatches(options);
  if (options.methods?.turns !== undefined && options.train && options.active === undefined) {
    return planTurns(options, (one, first) => planSession(one, facts, first));
  }
  if (options.budget !== undefined && options.train) return planWithin(options, options.budget, facts);
  return finishSession(formSession(options, facts, before), undefined, before);
}
