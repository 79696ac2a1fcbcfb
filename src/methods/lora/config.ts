import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import type { LinearSpec, ModelDefinition } from "../../models/types.js";
import type { LowRankLayer } from "../low-rank/layer.js";
import { factorTensors, patternSettings, rankSetting, scaleOf, uniformStart } from "../low-rank/layer.js";
import type { Magnitude } from "../low-rank/magnitude.js";
import { magnitudeOf } from "../low-rank/magnitude.js";
import { patternLookup } from "../pattern.js";
import { matchTargets, targetSettings } from "../targets.js";
import type { AdapterTensor, Initial } from "../types.js";

const pissa = /^pissa(?:_niter_([1-9]\d{0,2}))?$/;

export const loraConfig = z.strictObject({
  r: rankSetting.default(16).describe("Rank of the correction"),
  alpha: z.number().positive().default(32).describe("Numerator of the scale: alpha / r"),
  dropout: z.number().min(0).lt(1).default(0).describe("Dropout of the adapter's input while training"),
  rslora: z.boolean().default(false).describe("Scale by alpha / sqrt(r), which suits ranks of 32 and more"),
  dora: z.boolean().default(false).describe("Also train each output's magnitude (DoRA)"),
  loraplus_ratio: z
    .number()
    .min(1)
    .optional()
    .describe("LoRA+: learning rate of B as a multiple of that of A; 16 is usual"),
  init: z
    .string()
    .regex(/^(default|gaussian|pissa(_niter_[1-9]\d{0,2})?)$/, {
      error: 'must be "default", "gaussian", "pissa" or "pissa_niter_N"',
    })
    .default("default")
    .describe('Start of A: "default" (uniform), "gaussian", or the leading singular vectors of the base weight'),
  ...targetSettings,
  ...patternSettings,
  bias: z.literal("none").default("none").describe("Biases of the base stay frozen"),
});

export type LoraConfig = z.infer<typeof loraConfig>;

/** One adapted layer with everything that its maths needs. */
export interface LoraTarget extends LowRankLayer {
  readonly alpha: number;
  readonly magnitude?: Magnitude;
}

/** Subspace iterations of PiSSA's fast start, 0 for the exact one, undefined for other starts. */
export function pissaIterations(config: LoraConfig): number | undefined {
  const match = pissa.exec(config.init);
  return match === null ? undefined : Number(match[1] ?? 0);
}

/** Checks the settings (of the method `owner`) against the model; errors name the setting. */
export function loraTargets(config: LoraConfig, model: ModelDefinition, owner: string): LoraTarget[] {
  const rankOf = patternLookup(config.rank_pattern, config.r, `${owner}.rank_pattern`);
  const alphaOf = patternLookup(config.alpha_pattern, config.alpha, `${owner}.alpha_pattern`);
  refuseDoraOverPissa(config);
  return matchTargets(owner, model, config).map((spec) => {
    const rank = rankOf(spec.path);
    refuseExcessiveRank(config, spec, rank);
    return target(config, spec, rank, alphaOf(spec.path));
  });
}

function refuseDoraOverPissa(config: LoraConfig): void {
  if (!config.dora || pissaIterations(config) === undefined) return;
  throw new ThimbleError(
    "lora-init",
    "DoRA does not go with a PiSSA start: such an adapter has no form over the original base",
    {
      given: config.init,
      where: "lora.init",
      fix: 'Use init "default" with dora, or leave dora off.',
    },
  );
}

/** PiSSA takes r singular vectors, of which there are no more than the smaller side. */
function refuseExcessiveRank(config: LoraConfig, spec: LinearSpec, r: number): void {
  const most = Math.min(spec.inputs, spec.outputs);
  if (pissaIterations(config) === undefined || r <= most) return;
  throw new ThimbleError("lora-rank", `${spec.path} has only ${most} singular values`, {
    given: `rank ${r}`,
    where: "lora.r",
  });
}

function target(config: LoraConfig, spec: LinearSpec, rank: number, alpha: number): LoraTarget {
  const prepared: Initial = { kind: "prepared" };
  const own: Initial = config.init === "gaussian" ? { kind: "normal", deviation: 1 / rank } : uniformStart(spec);
  const start = pissaIterations(config) === undefined ? { a: own, b: { kind: "zeros" } as const } : undefined;
  const { a, b } = factorTensors(spec, rank, start ?? { a: prepared, b: prepared });
  // LoRA+ gives the higher rate to B and to one-dimensional tensors; those never decay.
  const rateFactor = config.loraplus_ratio ?? 1;
  return {
    spec,
    rank,
    alpha,
    scale: scaleOf(alpha, rank, config.rslora),
    a,
    b: { ...b, rateFactor },
    ...(config.dora ? { magnitude: magnitudeOf(spec, rateFactor) } : {}),
  };
}

/** Every trained tensor of a layer. */
export function tensorsOf({ a, b, magnitude }: LoraTarget): AdapterTensor[] {
  return magnitude === undefined ? [a, b] : [a, b, magnitude.vector];
}
