import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import type { LinearSpec, ModelDefinition } from "../../models/types.js";
import { patternLookup } from "../pattern.js";
import { matchTargets, targetSettings } from "../targets.js";
import type { AdapterTensor, FixedTensor, Initial } from "../types.js";

const rank = z.int().min(1).max(65536);
const pissa = /^pissa(?:_niter_([1-9]\d{0,2}))?$/;

export const loraConfig = z.strictObject({
  r: rank.default(16).describe("Rank of the correction"),
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
  rank_pattern: z
    .record(z.string().min(1), rank)
    .default({})
    .describe("Ranks of single layers, by regular expressions on the end of module paths"),
  alpha_pattern: z
    .record(z.string().min(1), z.number().positive())
    .default({})
    .describe("Alphas of single layers, by the same rule"),
  bias: z.literal("none").default("none").describe("Biases of the base stay frozen"),
});

export type LoraConfig = z.infer<typeof loraConfig>;

/** One adapted layer with everything that its maths needs. */
export interface LoraTarget {
  readonly spec: LinearSpec;
  readonly rank: number;
  readonly alpha: number;
  readonly scale: number;
  /** [r, in]. */
  readonly a: AdapterTensor;
  /** [out, r]. */
  readonly b: AdapterTensor;
  readonly dora?: {
    /** [out], trained. */
    readonly magnitude: AdapterTensor;
    /** Squared norm of each row of the frozen weight, [out]: constant, so computed once. */
    readonly rowSquares: FixedTensor;
  };
}

/** Subspace iterations of PiSSA's fast start, 0 for the exact one, undefined for other starts. */
export function pissaIterations(config: LoraConfig): number | undefined {
  const match = pissa.exec(config.init);
  return match === null ? undefined : Number(match[1] ?? 0);
}

export function scaleOf(alpha: number, r: number, rslora: boolean): number {
  return rslora ? alpha / Math.sqrt(r) : alpha / r;
}

/** Checks the settings (of the method `owner`) against the model; errors name the setting. */
export function loraTargets(config: LoraConfig, model: ModelDefinition, owner: string): LoraTarget[] {
  const rankOf = patternLookup(config.rank_pattern, config.r, `${owner}.rank_pattern`);
  const alphaOf = patternLookup(config.alpha_pattern, config.alpha, `${owner}.alpha_pattern`);
  refuseDoraOverPissa(config);
  return matchTargets(owner, model, config).map((spec) => {
    const r = rankOf(spec.path);
    refuseExcessiveRank(config, spec, r);
    return target(config, spec, r, alphaOf(spec.path));
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

function target(config: LoraConfig, spec: LinearSpec, r: number, alpha: number): LoraTarget {
  const fresh = pissaIterations(config) === undefined;
  // LoRA+ gives the higher rate to B and to one-dimensional tensors; those never decay.
  const fast = config.loraplus_ratio ?? 1;
  const { path, inputs, outputs, block } = spec;
  const base = { dtype: "f32", rateFactor: 1, decay: true, block } as const;
  return {
    spec,
    rank: r,
    alpha,
    scale: scaleOf(alpha, r, config.rslora),
    a: { ...base, name: `${path}.lora_A.weight`, shape: [r, inputs], initial: initialOfA(config, inputs, r) },
    b: {
      ...base,
      name: `${path}.lora_B.weight`,
      shape: [outputs, r],
      initial: { kind: fresh ? "zeros" : "prepared" },
      rateFactor: fast,
    },
    ...(config.dora ? { dora: doraTensors(spec, fast) } : {}),
  };
}

/** Every trained tensor of a layer. */
export function tensorsOf({ a, b, dora }: LoraTarget): AdapterTensor[] {
  return dora === undefined ? [a, b] : [a, b, dora.magnitude];
}

function doraTensors({ path, outputs, block }: LinearSpec, fast: number): NonNullable<LoraTarget["dora"]> {
  return {
    magnitude: {
      name: `${path}.lora_magnitude_vector`,
      shape: [outputs],
      dtype: "f32",
      initial: { kind: "prepared" },
      rateFactor: fast,
      decay: false,
      block,
    },
    rowSquares: { name: `${path}.weight_row_squares`, shape: [outputs], dtype: "f32" },
  };
}

function initialOfA(config: LoraConfig, inputs: number, r: number): Initial {
  if (pissaIterations(config) !== undefined) return { kind: "prepared" };
  // Kaiming-uniform with negative slope sqrt(5), as both reference codes do (the paper states a Gaussian).
  return config.init === "gaussian"
    ? { kind: "normal", deviation: 1 / r }
    : { kind: "uniform", bound: 1 / Math.sqrt(inputs) };
}
