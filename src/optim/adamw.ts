import { z } from "zod";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { add, divide, multiply, sqrt, subtract } from "../ops/arithmetic.js";
import { constant } from "../ops/leaves.js";
import { oneMinusPower } from "./age.js";
import type { RuleState } from "./groups.js";
import { applyRule, drawsBits, precisionSettings, restated, storedStates } from "./precision.js";
import type { EntryRule, Optimizer } from "./types.js";

export const adamwConfig = z.strictObject({
  id: z.literal("adamw").describe("Adam with decoupled weight decay"),
  beta1: z.number().min(0).lt(1).default(0.9).describe("Decay of the mean of the gradient"),
  beta2: z.number().min(0).lt(1).default(0.999).describe("Decay of the mean of its square"),
  epsilon: z.number().positive().default(1e-8).describe("Added to the root of the corrected second moment"),
  epsilon_place: z
    .enum(["corrected", "raw"])
    .default("corrected")
    .describe("Whether epsilon is added to the root after its bias correction (PyTorch) or before (GaLore)"),
  weight_decay: z.number().min(0).default(0).describe("Each step first shrinks a weight by rate times this"),
  ...precisionSettings,
});

export type AdamWConfig = z.infer<typeof adamwConfig>;

/**
 * AdamW as torch.optim.AdamW computes it (Loshchilov and Hutter 2019): p(1 - rate wd) first, then
 * p - (rate / (1 - β₁ᵗ)) m / (sqrt(v) / sqrt(1 - β₂ᵗ) + ε).
 */
export function adamw(config: AdamWConfig): Optimizer {
  return { ...counted(config, false), entries: adamwEntries(config) };
}

const moments: readonly RuleState[] = [
  { name: "mean", signed: true },
  { name: "square", signed: false },
];
const age: RuleState = { name: "age", signed: false, exact: true };

/** With t the number of the step; or where `each` is true, an age that each element has of its own, 0 at first. */
function counted(config: AdamWConfig, each: boolean): Optimizer {
  const stored = each ? [...moments, age] : moments;
  const { beta1, beta2, epsilon, weight_decay: weightDecay } = config;
  return {
    id: "adamw",
    weightDecay,
    states: (parameter) => storedStates(config, stored, parameter),
    withStates: (settings) => {
      const other = restated(config, settings);
      return each ? counted(other, true) : adamw(other);
    },
    scalars: (step) => ({ correction1: 1 - beta1 ** step, correction2: Math.sqrt(1 - beta2 ** step) }),
    rounds: (parameter) => drawsBits(config, stored.length, parameter),
    update: (args) =>
      applyRule(config, stored, args, (value, gradient, states) => {
        const { rate, scalars } = args;
        const decayed =
          args.decay && weightDecay > 0 ? multiply(value, subtract(1, multiply(rate, weightDecay))) : value;
        const before = must(states["mean"], "mean");
        const mean = add(before, multiply(subtract(gradient, before), 1 - beta1));
        const square = add(
          multiply(must(states["square"], "square"), beta2),
          multiply(multiply(gradient, gradient), 1 - beta2),
        );
        const count = each ? add(must(states["age"], "age"), 1) : undefined;
        const [correction1, correction] =
          count === undefined
            ? [must(scalars["correction1"], "correction1"), must(scalars["correction2"], "correction2")]
            : [oneMinusPower(beta1, count), sqrt(oneMinusPower(beta2, count))];
        const size = divide(rate, correction1);
        const change =
          config.epsilon_place === "corrected"
            ? divide(multiply(mean, size), add(divide(sqrt(square), correction), epsilon))
            : divide(multiply(mean, multiply(size, correction)), add(sqrt(square), epsilon));
        const made: Record<string, Node> = { mean, square };
        return { value: subtract(decayed, change), states: count === undefined ? made : { ...made, age: count } };
      }),
  };
}

/**
 * Entries that come and go. One that is new starts as if it had trained for the `count` gradients that are known of it,
 * each of them their mean (Ansell et al. 2024, SpIEL, section 3.2): m = g (1 - β₁ⁿ), v = g² (1 - β₂ⁿ), age n.
 */
function adamwEntries(config: AdamWConfig): EntryRule {
  return {
    rule: () => counted(config, true),
    seed: ({ sum, squares, count }) => {
      const share = (beta: number): Node => divide(oneMinusPower(beta, count), count);
      return {
        mean: multiply(sum, share(config.beta1)),
        square: multiply(squares, share(config.beta2)),
        age: multiply(constant(sum.graph, 1, sum.shape), count),
      };
    },
  };
}
