import type { LinearSpec, ModelDefinition } from "../../models/types.js";
import { targetNames } from "../targets.js";
import type { PeftForm } from "../types.js";

/** A tensor of a PEFT directory. */
export type PeftTensor = PeftForm["tensors"] extends ReadonlyMap<string, infer Value> ? Value : never;

/** A layer of an adapter as its configuration describes it. */
export interface PeftLayer {
  readonly spec: LinearSpec;
  readonly rank: number;
  readonly alpha: number;
}

/** What holds for the layers of an adapter that say nothing else. */
export interface PeftCommon {
  readonly rank: number;
  readonly alpha: number;
  readonly dropout?: number;
  readonly rslora?: boolean;
  readonly dora?: boolean;
}

/** A LoRA adapter's part of `adapter_config.json`: the keys that every reader understands. */
export function peftConfig(
  model: ModelDefinition,
  layers: readonly PeftLayer[],
  { rank, alpha, dropout = 0, rslora = false, dora = false }: PeftCommon,
): Record<string, unknown> {
  const specs = layers.map(({ spec }) => spec);
  return {
    peft_type: "LORA",
    r: rank,
    lora_alpha: alpha,
    lora_dropout: dropout,
    target_modules: targetNames(model, specs),
    bias: "none",
    use_rslora: rslora,
    use_dora: dora,
    // PEFT has one flag for all layers and corrects it by each layer's type on loading.
    fan_in_fan_out: specs.every(({ transposed }) => transposed),
    modules_to_save: null,
    rank_pattern: exceptions(layers, rank, (layer) => layer.rank),
    alpha_pattern: exceptions(layers, alpha, (layer) => layer.alpha),
    inference_mode: true,
    init_lora_weights: true,
  };
}

/** Whole paths of the layers that differ from the global value: patterns that no reader can take otherwise. */
function exceptions(
  layers: readonly PeftLayer[],
  common: number,
  value: (layer: PeftLayer) => number,
): Record<string, number> {
  return Object.fromEntries(
    layers.filter((layer) => value(layer) !== common).map((layer) => [layer.spec.path, value(layer)]),
  );
}

/** The whole correction of a layer, its scale included: B A with A [r, in] and B [out, r]. */
export interface FoldedLayer {
  readonly spec: LinearSpec;
  readonly rank: number;
  readonly a: Float32Array;
  readonly b: Float32Array;
}

/** Corrections as a LoRA adapter, exactly: each layer of its own rank, with alpha equal to it. */
export function foldedForm(model: ModelDefinition, layers: readonly FoldedLayer[]): PeftForm {
  const rank = Math.max(...layers.map((layer) => layer.rank));
  const described = layers.map((layer) => ({ spec: layer.spec, rank: layer.rank, alpha: layer.rank }));
  const tensors = layers.flatMap(({ spec, rank: own, a, b }) => [
    [`${spec.path}.lora_A.weight`, { shape: [own, spec.inputs], data: a }] as const,
    [`${spec.path}.lora_B.weight`, { shape: [spec.outputs, own], data: b }] as const,
  ]);
  return { config: peftConfig(model, described, { rank, alpha: rank }), tensors: new Map(tensors) };
}
