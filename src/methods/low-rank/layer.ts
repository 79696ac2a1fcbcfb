import { z } from "zod";
import { blockOf } from "../../models/parameters.js";
import type { LinearSpec } from "../../models/types.js";
import type { AdapterTensor, Initial } from "../types.js";

/** The setting of a rank, without its default. */
export const rankSetting = z.int().min(1).max(65536);

/** Settings by which single layers get ranks and alphas of their own. */
export const patternSettings = {
  rank_pattern: z
    .record(z.string().min(1), rankSetting)
    .default({})
    .describe("Ranks of single layers, by regular expressions on the end of module paths"),
  alpha_pattern: z
    .record(z.string().min(1), z.number().positive())
    .default({})
    .describe("Alphas of single layers, by the same rule"),
};

/** A linear layer whose weight W [out, in] gets the correction s B A. */
export interface LowRankLayer {
  readonly spec: LinearSpec;
  readonly rank: number;
  /** s. */
  readonly scale: number;
  /** [r, in]. */
  readonly a: AdapterTensor;
  /** [out, r]. */
  readonly b: AdapterTensor;
}

/** alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023). */
export function scaleOf(alpha: number, rank: number, rslora: boolean): number {
  return rslora ? alpha / Math.sqrt(rank) : alpha / rank;
}

/** The uniform start of A that the reference codes use: Kaiming's with negative slope sqrt(5). */
export function uniformStart({ inputs }: LinearSpec): Initial {
  return { kind: "uniform", bound: 1 / Math.sqrt(inputs) };
}

/** What is common to the trained tensors of a layer: f32, of the layer's block, at the run's learning rate. */
export function tensorDefaults(spec: LinearSpec): Omit<AdapterTensor, "name" | "shape" | "initial"> {
  return { dtype: "f32", rateFactor: 1, decay: true, ...blockOf(spec) };
}

/** A [r, in] and B [out, r] under PEFT's names. */
export function factorTensors(
  spec: LinearSpec,
  rank: number,
  start: { readonly a: Initial; readonly b: Initial },
): Pick<LowRankLayer, "a" | "b"> {
  const { path, inputs, outputs } = spec;
  const common = tensorDefaults(spec);
  return {
    a: { ...common, name: `${path}.lora_A.weight`, shape: [rank, inputs], initial: start.a },
    b: { ...common, name: `${path}.lora_B.weight`, shape: [outputs, rank], initial: start.b },
  };
}
