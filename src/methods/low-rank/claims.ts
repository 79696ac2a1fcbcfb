import { weightOf } from "../../models/parameters.js";
import type { Claim } from "../types.js";
import type { LowRankLayer } from "./layer.js";

export interface CorrectionReasons {
  /** What the method needs the base weights for. */
  readonly base?: string;
  /** Why no other method may add to these weights; absent = others may. */
  readonly alone?: string | undefined;
}

/** What a correction of the layers' weights claims: the weights as they are, and a part in what is added to them. */
export function correctionClaims(
  layers: readonly LowRankLayer[],
  { base = "trains a correction of weights that stay as they are", alone }: CorrectionReasons = {},
): Claim[] {
  const tensors = layers.map(({ spec }) => weightOf(spec).name);
  return [
    { resource: "base-weights", exclusive: true, tensors, reason: base },
    { resource: "weight-delta", exclusive: alone !== undefined, tensors, reason: alone ?? "adds a low-rank term" },
  ];
}
