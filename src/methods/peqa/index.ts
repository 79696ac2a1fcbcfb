import { z } from "zod";
import { ThimbleError, invariant, must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { blockOf, weightOf } from "../../models/parameters.js";
import type { LinearSpec } from "../../models/types.js";
import { add, cast, multiply } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import { expand, reshape } from "../../ops/layout.js";
import { atLeast } from "../../optim/at-least.js";
import type { IntegerBits } from "../../storage/integer.js";
import { integerBits, integerId } from "../../storage/integer.js";
import { defineMethod } from "../define.js";
import { matchTargets, targetSettings } from "../targets.js";
import type { AdaptContext, AdapterTensor } from "../types.js";
import { dequantise, quantise } from "../../storage/uniform.js";

const config = z.strictObject({
  bits: z.literal(integerBits).default(4).describe("Bits of an integer"),
  group_size: z
    .int()
    .min(-1)
    .max(65536)
    .default(-1)
    .describe("Neighbouring inputs that share a scale, a multiple of 8; -1: a scale for each output"),
  symmetric: z.boolean().default(false).describe("Zero points in the middle of the codes"),
  decay_scales: z
    .boolean()
    .default(false)
    .describe("Let weight decay shrink the scales, and with them the weights; without it a run with decay is refused"),
  ...targetSettings,
});

type PeqaConfig = z.infer<typeof config>;

/** A layer of integers with its scales. */
export interface PeqaTarget {
  readonly spec: LinearSpec;
  readonly group: number;
  readonly bits: IntegerBits;
  /** f32 [out, in / group]. */
  readonly scales: AdapterTensor;
}

/** A scale of 0 or below would blank or invert a channel. */
const leastScale = 1e-8;

/** PEQA: linear layers are frozen integers, and only their scales train (Kim et al. 2023). */
export const peqa = defineMethod({
  id: "peqa",
  title: "PEQA: training the scales of quantised weights",
  paper: "2305.14152",
  year: 2023,
  summary: "Packs linear layers into integers of 2, 3, 4 or 8 bits and trains one scale an output channel or group.",
  reduces: ["weights", "gradients", "states"],
  fills: ["format", "prepare", "linear", "update"],
  config,
  resolve: (settings, model) => {
    const targets = matchTargets("peqa", model, settings).map((spec) => targetOf(settings, spec));
    const byPath = new Map(targets.map((target) => [target.spec.path, target]));
    const byWeight = new Map(targets.map((target) => [weightOf(target.spec).name, target]));
    const scales = new Set(targets.map((target) => target.scales.name));
    const tensors = [...byWeight.keys()];
    return {
      id: "peqa",
      config: settings,
      claims: [
        { resource: "base-format", exclusive: true, tensors, reason: "packs them into integers" },
        { resource: "base-weights", exclusive: false, tensors, reason: "freezes their integers" },
        { resource: "weight-delta", exclusive: true, tensors, reason: "computes with integers and their scales" },
      ],
      slots: {
        format: ({ name }) => {
          const target = byWeight.get(name);
          return target === undefined ? undefined : integerId(target);
        },
        prepare: async (context) => {
          for (const [name, { group, scales: tensor }] of byWeight) {
            const made = quantise(await context.original(name), group, settings);
            await context.replace(name, made.integers);
            context.set(tensor.name, made.scales);
          }
        },
        linear: (context, spec, x, next) => {
          const target = byPath.get(spec.path);
          return target === undefined ? next(x) : forward(context, target, x, next);
        },
        update: ({ name }, rule) => {
          if (!scales.has(name)) return undefined;
          if (rule.weightDecay > 0 && !settings.decay_scales) throw decayError(rule.weightDecay);
          return atLeast(rule, leastScale);
        },
      },
      learningRate: 1e-5,
      saves: "weights",
      adapters: targets.map((target) => target.scales),
      merge: (spec, weight, values) => {
        const target = byPath.get(spec.path);
        if (target === undefined) return undefined;
        return dequantise(weight, must(values.get(target.scales.name), target.scales.name));
      },
    };
  },
});

/** y = (x W̄ᵀ) s + b with a scale a channel; with groups the product is that of s W̄, made before it. */
function forward(context: AdaptContext, target: PeqaTarget, x: Node, next: (x: Node) => Node): Node {
  const { spec, group } = target;
  const { outputs, inputs } = spec;
  const integers = context.weight(spec);
  const bias = context.bias(spec);
  const product = dot(x, cast(integers, x.dtype), { transposeB: true });
  const plain = bias === undefined ? product : add(product, cast(bias, "f32"));
  // What stores the base comes first in every selection.
  invariant(next(x) === plain, "nothing lies beneath peqa");
  const scales = context.trainable(target.scales);
  if (group === inputs) {
    const scaled = multiply(product, reshape(scales, [1, outputs]));
    return bias === undefined ? scaled : add(scaled, cast(bias, "f32"));
  }
  const parts = inputs / group;
  const spread = reshape(expand(reshape(scales, [outputs, parts, 1]), [outputs, parts, group]), [outputs, inputs]);
  const weight = cast(multiply(cast(integers, "f32"), spread), x.dtype);
  const scaled = dot(x, weight, { transposeB: true });
  return bias === undefined ? scaled : add(scaled, cast(bias, "f32"));
}

function targetOf({ bits, group_size: size, decay_scales: decay }: PeqaConfig, spec: LinearSpec): PeqaTarget {
  const { path, inputs, outputs, transposed } = spec;
  const group = size === -1 ? inputs : size;
  if (transposed || group < 1 || inputs % group !== 0 || group % 8 !== 0) {
    throw new ThimbleError("peqa-group", "A layer cannot be divided into groups of this size", {
      where: "peqa.group_size",
      given: transposed
        ? `${path}, which is stored with its inputs first`
        : `groups of ${group} in ${path} of ${inputs}`,
      expected: "a multiple of 8 that divides the inputs of every layer, stored as [outputs, inputs]",
      fix: "Choose another group_size, or leave the layer out with exclude_modules.",
    });
  }
  const name = `${path}.peqa_scales`;
  const shape = [outputs, inputs / group];
  const common = { dtype: "f32", initial: { kind: "prepared" }, rateFactor: 1, decay, ...blockOf(spec) } as const;
  const scales = { name, shape, ...common };
  return { spec, group, bits, scales };
}

function decayError(decay: number): ThimbleError {
  return new ThimbleError("peqa-decay", "Weight decay of scales would shrink the weights themselves", {
    where: "optimizer.weight_decay",
    given: String(decay),
    expected: "0",
    fix: "Set weight-decay to 0, or peqa.decay_scales to true.",
  });
}
