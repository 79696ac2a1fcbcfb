import { cast, maximum } from "../ops/arithmetic.js";
import type { Optimizer } from "./types.js";

/** A rule whose new parameter values are never below `least`; a NaN stays visible. */
export function atLeast(rule: Optimizer, least: number): Optimizer {
  return {
    ...rule,
    withStates: (settings) => atLeast(rule.withStates(settings), least),
    update: (args) => {
      const made = rule.update(args);
      const value = cast(maximum(least, cast(made.value, "f32")), made.value.dtype);
      return { ...made, value };
    },
  };
}
