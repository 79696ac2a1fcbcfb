import { z } from "zod";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { add, multiply, subtract } from "../ops/arithmetic.js";
import { applyRule, drawsBits, precisionSettings, restated, storedStates } from "./precision.js";
import type { Optimizer } from "./types.js";

export const sgdConfig = z.strictObject({
  id: z.literal("sgd").describe("Stochastic gradient descent"),
  momentum: z.number().min(0).lt(1).default(0).describe("Share of the last change that is kept"),
  nesterov: z.boolean().default(false).describe("Look ahead along the momentum"),
  weight_decay: z.number().min(0).default(0).describe("Added to the gradient, times the weight"),
  ...precisionSettings,
});

export type SgdConfig = z.infer<typeof sgdConfig>;

/** SGD as torch.optim.SGD computes it, without dampening: decay is part of the gradient and of the momentum. */
export function sgd(config: SgdConfig): Optimizer {
  const { momentum, nesterov, weight_decay: weightDecay } = config;
  const stored = momentum === 0 ? [] : [{ name: "momentum", signed: true }];
  return {
    id: "sgd",
    weightDecay,
    // An entry that is new has no momentum.
    entries: {
      rule: () => sgd(config),
      seed: ({ sum }): Record<string, Node> => (momentum === 0 ? {} : { momentum: multiply(sum, 0) }),
    },
    states: (parameter) => storedStates(config, stored, parameter),
    withStates: (settings) => sgd(restated(config, settings)),
    scalars: () => ({}),
    rounds: (parameter) => drawsBits(config, stored.length, parameter),
    update: (args) =>
      applyRule(config, stored, args, (value, given, states) => {
        const { rate } = args;
        const gradient = args.decay && weightDecay > 0 ? add(given, multiply(value, weightDecay)) : given;
        if (momentum === 0) return { value: subtract(value, multiply(gradient, rate)), states: {} };
        const moved = add(multiply(must(states["momentum"], "momentum"), momentum), gradient);
        const direction = nesterov ? add(gradient, multiply(moved, momentum)) : moved;
        return { value: subtract(value, multiply(direction, rate)), states: { momentum: moved } };
      }),
  };
}
