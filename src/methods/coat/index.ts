import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import { weightOf } from "../../models/parameters.js";
import type { ModelDefinition } from "../../models/types.js";
import type { StateSettings } from "../../optim/types.js";
import { float8Group } from "../../optim/float8-states.js";
import type { Float8Id } from "../../storage/float8.js";
import { defineMethod } from "../define.js";
import type { Claim, ResolvedMethod } from "../types.js";
import { float8Quantisers, represented } from "./flow.js";

const formats = ["E4M3", "E5M2"] as const;

const config = z.strictObject({
  states: z.boolean().default(true).describe("Keep the optimizer's moments in FP8"),
  activations: z.boolean().default(true).describe("Compute the blocks' linear layers in FP8 and keep FP8 for backward"),
  qgroup_size: z.literal(float8Group).default(float8Group).describe("Neighbours of a moment that share a scale"),
  first_order_bit: z.literal("E4M3").default("E4M3").describe("Format of the mean of the gradient"),
  second_order_bit: z.literal("E4M3").default("E4M3").describe("Format of the mean of its square"),
  first_order_expansion: z
    .boolean()
    .default(true)
    .describe("Raise each group of means to the power that spreads it over the whole range of the format"),
  second_order_expansion: z.boolean().default(true).describe("The same for the squares; both or none"),
  expand_min: z.int().min(1).max(64).default(16).describe("Powers are multiples of 1 over this"),
  statistics: z.enum(["f32", "bf16"]).default("f32").describe("Type of the scale, power and centre of each group"),
  group_size: z
    .literal([16, 32, 64, 128])
    .default(16)
    .describe("Neighbours that share a scale in the inputs of norms, activation functions and products"),
  fabit: z.enum(formats).default("E4M3").describe("Format of the inputs of linear layers"),
  fwbit: z.enum(formats).default("E4M3").describe("Format in which linear layers multiply their weights"),
  fobit: z.enum(formats).default("E4M3").describe("Format of the inputs of norms, activation functions and products"),
  babit: z.enum(formats).default("E5M2").describe("Format of the gradients of linear layers' outputs"),
});

export type CoatConfig = z.infer<typeof config>;

/** COAT: optimizer states in FP8 by dynamic range expansion, and an FP8 precision flow through the blocks. */
export const coat = defineMethod({
  id: "coat",
  title: "COAT: optimizer states and activations in FP8",
  paper: "2410.19313",
  year: 2025,
  summary: "Keeps the optimizer's moments, and what backward reads of each block, in eight-bit floating point.",
  reduces: ["states", "activations"],
  fills: ["represent", "moments"],
  companions: ["full"],
  config,
  resolve: (settings, model): ResolvedMethod => {
    refuseHalves(settings);
    if (settings.activations) refuseWidths(settings, model);
    const states = stateSettings(settings);
    const quantisers = float8Quantisers({
      group: settings.group_size,
      formats: {
        inputs: idOf(settings.fabit),
        weights: idOf(settings.fwbit),
        outputs: idOf(settings.fobit),
        gradients: idOf(settings.babit),
      },
    });
    return {
      id: "coat",
      config: settings,
      claims: claimsOf(settings, model),
      slots: {
        ...(settings.states ? { moments: () => states } : {}),
        ...(settings.activations ? { represent: (_context, place, x) => represented(quantisers, place, x) } : {}),
      },
      check: refuseEstimators,
      adapters: [],
    };
  },
});

const idOf = (format: (typeof formats)[number]): Float8Id => (format === "E4M3" ? "e4m3" : "e5m2");

function stateSettings({ first_order_expansion, expand_min, statistics }: CoatConfig): StateSettings {
  return {
    states: "fp8",
    state_expansion: first_order_expansion,
    state_power_steps: expand_min,
    state_statistics: statistics,
  };
}

function claimsOf({ states, activations }: CoatConfig, { linears }: ModelDefinition): Claim[] {
  const tensors = linears.filter(({ role }) => role !== "head").map((spec) => weightOf(spec).name);
  return [
    // Moments in a subspace, or of a few tensors, can be stored so as well.
    ...(states ? [{ resource: "moments", exclusive: false, reason: "stores them in FP8" } as const] : []),
    ...(activations
      ? [{ resource: "saved-values", exclusive: true, tensors, reason: "keeps them in FP8" } as const]
      : []),
  ];
}

function refuseHalves({ states, activations, first_order_expansion, second_order_expansion }: CoatConfig): void {
  if (!states && !activations) {
    throw new ThimbleError("coat-nothing", "COAT without its states and its activations does nothing", {
      where: "coat.states",
      fix: "Turn on states or activations, or leave coat out.",
    });
  }
  if (first_order_expansion === second_order_expansion) return;
  throw new ThimbleError("coat-expansion", "Both moments are expanded, or none", {
    where: "coat.second_order_expansion",
    given: `${second_order_expansion}, with first_order_expansion ${first_order_expansion}`,
    fix: "Set both to the same.",
  });
}

/** Groups may not straddle rows: tokens would share a scale. */
function refuseWidths({ group_size: group }: CoatConfig, { width, linears }: ModelDefinition): void {
  const hidden = linears.filter(({ role }) => role === "gate" || role === "up");
  const wrong = [
    { name: "the hidden states", size: width },
    ...hidden.map(({ path, outputs }) => ({ name: path, size: outputs })),
  ].find(({ size }) => size % group !== 0);
  if (wrong === undefined) return;
  throw new ThimbleError("coat-width", "The model's rows are not whole groups", {
    where: "coat.group_size",
    given: `${wrong.size} values a token of ${wrong.name}`,
    expected: `a multiple of ${group}`,
    fix: "Set coat.activations to false; the states can still be kept in FP8.",
  });
}

/** A zeroth-order step has neither moments nor a backward pass. */
function refuseEstimators(methods: readonly ResolvedMethod[]): void {
  const maker = methods.find(({ slots }) => slots.estimate !== undefined);
  if (maker === undefined) return;
  throw new ThimbleError("methods-conflict", `coat and ${maker.id} do not go together`, {
    where: "methods",
    given: `${maker.id} makes gradients without a backward pass, for which coat would keep values in FP8`,
    fix: `Remove coat or ${maker.id}.`,
  });
}
