import type { Node } from "../../ir/node.js";
import { add, multiply } from "../../ops/arithmetic.js";
import { reshape } from "../../ops/layout.js";
import { defineMethod } from "../define.js";
import { correctionClaims } from "../low-rank/claims.js";
import { dropInput, lowRankProduct } from "../low-rank/forward.js";
import { mergeDelta } from "../low-rank/merge.js";
import type { AdaptContext } from "../types.js";
import type { AdaloraTarget } from "./config.js";
import { adaloraConfig, adaloraTargets, settled } from "./config.js";
import { foldedTensors, loraForm } from "./export.js";
import { choosing, collectImportance } from "./importance.js";
import { orthogonality } from "./orthogonality.js";
import { allocationAt } from "./schedule.js";

/** AdaLoRA: P Λ Q in every layer, with the least important triplets of the whole model masked bit by bit. */
export const adalora = defineMethod({
  id: "adalora",
  title: "AdaLoRA: adaptive budget allocation",
  paper: "2303.10512",
  year: 2023,
  summary: "Trains low-rank corrections whose ranks move to the layers where they matter, within a falling budget.",
  reduces: ["gradients", "states"],
  fills: ["linear", "scalars", "regularise", "collect", "steps", "export"],
  config: adaloraConfig,
  defaultsFor: ({ steps }) => ({ total_step: steps }),
  resolve: (config, model) => {
    const settings = settled(config);
    const targets = adaloraTargets(settings, model);
    const byPath = new Map(targets.map((target) => [target.spec.path, target]));
    const at = (step: number): ReturnType<typeof allocationAt> => allocationAt(settings, targets.length, step + 1);
    const { beta1, beta2, orth_reg_weight: weight, dropout } = settings;
    return {
      id: "adalora",
      config,
      claims: correctionClaims(targets),
      slots: {
        linear: (context, spec, x, next) => {
          const target = byPath.get(spec.path);
          return target === undefined ? next(x) : add(next(x), delta(context, target, x, dropout));
        },
        steps: { variants: [choosing], variant: (step) => (at(step).chooses ? choosing : "") },
        scalars: (step) => {
          const { budget, holds, scores } = at(step);
          return { budget, holds: Number(holds), gain1: scores ? 1 - beta1 : 0, gain2: scores ? 1 - beta2 : 0 };
        },
        ...(weight === 0 ? {} : { regularise: (context) => orthogonality(context, targets, weight) }),
        collect: (context) => collectImportance(context, targets),
      },
      learningRate: 1e-3,
      saves: "adapter",
      scales: true,
      adapters: targets.flatMap(({ a, b, lambda }) => [a, b, lambda]),
      peft: (tensors) => Promise.resolve(loraForm(model, targets, tensors)),
      merge: (spec, weights, tensors) => {
        const target = byPath.get(spec.path);
        return target === undefined ? undefined : mergeDelta(target, weights, foldedTensors(target, tensors));
      },
    };
  },
});

/** s (drop(x) Qᵀ Λ) Pᵀ. */
function delta(context: AdaptContext, target: AdaloraTarget, x: Node, dropout: number): Node {
  const dropped = dropInput(context, target.spec, x, dropout);
  const q = context.trainable(target.a);
  const p = context.scaled(target.spec, context.trainable(target.b));
  const lambda = reshape(context.trainable(target.lambda), [1, target.rank]);
  return lowRankProduct(context.operand(target.spec, dropped), q, p, multiply(lambda, target.scale));
}
