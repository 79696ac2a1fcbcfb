import { weightOf } from "../../models/parameters.js";
import type { ModelDefinition } from "../../models/types.js";
import { leadingFactors } from "../low-rank/decomposition.js";
import type { PeftTensor } from "../low-rank/peft.js";
import { peftConfig } from "../low-rank/peft.js";
import { stackFactors, valuesOf } from "../low-rank/tensors.js";
import type { ExportContext, HostTensors, PeftForm } from "../types.js";
import type { LoraConfig, LoraTarget } from "./config.js";
import { pissaIterations, tensorsOf } from "./config.js";

/**
 * The adapter as PEFT reads it over the original checkpoint. A PiSSA adapter belongs to the residual, so it is
 * written at twice the rank: s (B A - B₀ A₀), with the start computed again from the checkpoint.
 */
export async function peftForm(
  config: LoraConfig,
  model: ModelDefinition,
  targets: readonly LoraTarget[],
  tensors: HostTensors,
  context: ExportContext,
): Promise<PeftForm> {
  const iterations = pissaIterations(config);
  const stored = new Map<string, PeftTensor>();
  for (const target of targets) {
    for (const tensor of tensorsOf(target)) {
      stored.set(tensor.name, { shape: tensor.shape, data: valuesOf(tensor, tensors) });
    }
    if (iterations === undefined) continue;
    const base = await context.read(weightOf(target.spec).name);
    const start = leadingFactors(target, base, { iterations, seed: context.seed });
    for (const [name, tensor] of stackFactors(target, tensors, start)) stored.set(name, tensor);
  }
  return { config: configOf(config, model, targets), tensors: stored };
}

function configOf(config: LoraConfig, model: ModelDefinition, targets: readonly LoraTarget[]): Record<string, unknown> {
  const { r, alpha, dropout, rslora, dora } = config;
  const twice = pissaIterations(config) !== undefined;
  const ranks = twice ? 2 : 1;
  // The scale must not change with the rank: alpha / r needs twice alpha, alpha / sqrt(r) needs sqrt 2 of it.
  const alphas = !twice ? 1 : rslora ? Math.SQRT2 : 2;
  const layers = targets.map(({ spec, rank, alpha: own }) => ({ spec, rank: rank * ranks, alpha: own * alphas }));
  return peftConfig(model, layers, { rank: r * ranks, alpha: alpha * alphas, dropout, rslora, dora });
}
