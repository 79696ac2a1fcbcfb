import { z } from "zod";
import { must } from "../errors.js";
import { add, divide, multiply, sqrt, subtract } from "../ops/arithmetic.js";
import { applyRule, drawsBits, precisionSettings, storedStates } from "./precision.js";
import type { Optimizer } from "./types.js";

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
  const stored = [
    { name: "mean", signed: true },
    { name: "square", signed: false },
  ];
  const { beta1, beta2, epsilon, weight_decay: weightDecay } = config;
  return {
    id: "adamw",
    weightDecay,
    states: (parameter) => storedStates(config, stored, parameter),
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
        const correction = must(scalars["correction2"], "correction2");
        const size = divide(rate, must(scalars["correction1"], "correction1"));
        const change =
          config.epsilon_place === "corrected"
            ? divide(multiply(mean, size), add(divide(sqrt(square), correction), epsilon))
            : divide(multiply(mean, multiply(size, correction)), add(sqrt(square), epsilon));
        return { value: subtract(decayed, change), states: { mean, square } };
      }),
  };
}
