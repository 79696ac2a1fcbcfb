import { must, ThimbleError } from "../errors.js";
import { add, multiply } from "../ops/arithmetic.js";
import type { Optimizer } from "./types.js";

/** Name of the state that {@link squares} sums up. */
export const squaresState = "sum";

/** No update at all: sums up the squares of gradients in a state of the parameter's shape, f32. */
export function squares(): Optimizer {
  return {
    id: "squares",
    weightDecay: 0,
    states: ({ shape }) => [{ name: squaresState, shape, dtype: "f32", initial: 0 }],
    scalars: () => ({}),
    rounds: () => false,
    update: ({ parameter, gradient, states }) => ({
      value: parameter,
      states: { [squaresState]: add(must(states[squaresState], "sum"), multiply(gradient, gradient)) },
    }),
    withStates: () => {
      throw new ThimbleError("optimizer-states", "Sums of squared gradients are kept in f32", {
        where: "optimizer",
        fix: "Ask for no other type of states.",
      });
    },
  };
}
