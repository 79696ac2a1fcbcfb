import { weightOf } from "../../models/parameters.js";
import type { ModelDefinition } from "../../models/types.js";
import { defineMethod } from "../define.js";
import { correctionClaims } from "../low-rank/claims.js";
import { mergedFactor } from "../low-rank/magnitude.js";
import { mergeDelta } from "../low-rank/merge.js";
import type { Claim, ResolvedMethod } from "../types.js";
import type { LoraConfig, LoraTarget } from "./config.js";
import { loraConfig, loraTargets, pissaIterations, tensorsOf } from "./config.js";
import { peftForm } from "./export.js";
import { loraForward } from "./forward.js";
import { prepareLora } from "./prepare.js";

/** LoRA with rsLoRA's scale, LoRA+'s rates, DoRA's magnitudes and PiSSA's start as settings. */
export const lora = defineMethod({
  id: "lora",
  title: "Low-rank adaptation (LoRA, rsLoRA, LoRA+, DoRA, PiSSA)",
  paper: "2106.09685",
  year: 2021,
  summary: "Freezes the model and trains a low-rank correction of each chosen linear layer.",
  reduces: ["gradients", "states"],
  fills: ["prepare", "linear", "export"],
  config: loraConfig,
  resolve: (config, model) => resolveLora(config, model),
});

/** What LoRA's maths does to a model, for every method that adapts by it; `owner` is the one whose settings these are. */
export function resolveLora(config: LoraConfig, model: ModelDefinition, owner = "lora"): ResolvedMethod {
  const targets = loraTargets(config, model, owner);
  const byPath = new Map(targets.map((target) => [target.spec.path, target]));
  const prepares = config.dora || pissaIterations(config) !== undefined;
  return {
    id: owner,
    config,
    claims: claims(config, targets),
    slots: {
      linear: (context, spec, x, next) => {
        const target = byPath.get(spec.path);
        return target === undefined ? next(x) : loraForward(context, config, target, x, next);
      },
      ...(prepares ? { prepare: (context) => prepareLora(context, config, targets) } : {}),
    },
    learningRate: 2e-4,
    saves: "adapter",
    scales: true,
    adapters: targets.flatMap(tensorsOf),
    peft: (tensors, context) => peftForm(config, model, targets, tensors, context),
    merge: (spec, weight, tensors) => {
      const target = byPath.get(spec.path);
      if (target === undefined) return undefined;
      const { magnitude } = target;
      return mergeDelta(target, weight, tensors, magnitude && mergedFactor(magnitude, tensors));
    },
  };
}

function claims(config: LoraConfig, targets: readonly LoraTarget[]): Claim[] {
  const pissa = pissaIterations(config) !== undefined;
  const base = "replaces them by their PiSSA residual";
  const claimed = correctionClaims(targets, {
    ...(pissa ? { base } : {}),
    alone: config.dora ? "scales each row by the norm of the whole changed weight" : undefined,
  });
  if (!pissa) return claimed;
  const tensors = targets.map(({ spec }) => weightOf(spec).name);
  return [...claimed, { resource: "base-format", exclusive: true, tensors, reason: base }];
}
