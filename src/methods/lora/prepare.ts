import { weightOf } from "../../models/parameters.js";
import { leadingFactors, refusePackedBase, takeOutOfBase } from "../low-rank/decomposition.js";
import { setMagnitude } from "../low-rank/magnitude.js";
import type { PrepareContext } from "../types.js";
import type { LoraConfig, LoraTarget } from "./config.js";
import { pissaIterations } from "./config.js";

/** Start values that depend on the base weights, one layer at a time. */
export async function prepareLora(
  context: PrepareContext,
  config: LoraConfig,
  targets: readonly LoraTarget[],
): Promise<void> {
  const iterations = pissaIterations(config);
  if (iterations !== undefined) for (const target of targets) refusePackedBase(context, target, "lora");
  for (const target of targets) {
    const weight = await context.read(weightOf(target.spec).name);
    if (target.magnitude !== undefined) setMagnitude(context, target.spec, target.magnitude, weight);
    if (iterations === undefined) continue;
    const start = leadingFactors(target, weight, { iterations, seed: context.seed });
    await takeOutOfBase(context, target, weight, start);
  }
}
