import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import { shiftOf } from "../../autodiff/streams.js";
import type { Activation, ModelDefinition } from "../../models/types.js";

const factor = z.number().positive().max(1).optional();

export const meftConfig = z.strictObject({
  f_arch: z
    .enum(["layer", "adapter", "attn"])
    .default("layer")
    .describe(
      "What F is: the model's whole layer (MEFT1), an adapter, with the layer as G (MEFT2), or the layer's attention, " +
        "with its MLP as G (MEFT3)",
    ),
  x1_factor: factor.describe("Factor of the first stream; default 0.1, or 1 for adapter; 0.125 for 0.1 in mode exact"),
  x2_factor: factor.describe("Factor of the second stream; default 0.1, or 1 for layer; 0.125 for 0.1 in mode exact"),
  adapter_bottleneck_dim: z.int().min(1).max(65536).default(8).describe("Width of the adapters"),
  layernorm_in_adapter: z.boolean().default(false).describe("Normalise what an adapter reads"),
  dropout: z.number().min(0).lt(1).default(0).describe("Dropout of an adapter's inner values"),
  activation: z
    .enum(["silu", "gelu-tanh", "gelu"])
    .optional()
    .describe("Activation of the adapters; default the model's own"),
  inner_adapters: z
    .boolean()
    .default(true)
    .describe("Adapters at attention and MLP; without them another method, such as lora, must train inside the layers"),
  num_rev_layers: z
    .int()
    .min(0)
    .optional()
    .describe("How many of the lowest layers are made again from what they give; default all, 0 keeps all values"),
  mode: z
    .enum(["segmented", "faithful", "exact"])
    .default("segmented")
    .describe(
      "segmented: both streams are kept every few layers, as the tolerance asks; faithful: at the end alone, whatever " +
        "the inverse loses; exact: at the end, in fixed point, with the bits that factors drop",
    ),
  tolerance: z
    .number()
    .positive()
    .max(1)
    .default(1e-4)
    .describe("segmented: largest relative error of streams made again that is predicted for a segment"),
  fraction_bits: z.int().min(8).max(24).default(16).describe("exact: bits of a stream's 32 behind the point"),
});

export type MeftConfig = z.infer<typeof meftConfig>;

/** The settings with everything that follows from them and the model. */
export interface Meft {
  readonly variant: MeftConfig["f_arch"];
  readonly factors: readonly [number, number];
  readonly width: number;
  readonly normalise: boolean;
  readonly dropout: number;
  readonly activation: Activation;
  readonly inner: boolean;
  /** How many of the lowest layers are reversible. */
  readonly layers: number;
  readonly mode: MeftConfig["mode"];
  readonly tolerance: number;
  readonly fraction: number;
}

export function settledMeft(config: MeftConfig, model: ModelDefinition): Meft {
  const { f_arch: variant, mode } = config;
  const small = mode === "exact" ? 0.125 : 0.1;
  const first = config.x1_factor ?? (variant === "adapter" ? 1 : small);
  const second = config.x2_factor ?? (variant === "layer" ? 1 : small);
  if (mode === "exact") refuseInexact(first, second);
  return {
    variant,
    mode,
    factors: [first, second],
    width: config.adapter_bottleneck_dim,
    normalise: config.layernorm_in_adapter,
    dropout: config.dropout,
    activation: activationOf(config, model),
    inner: config.inner_adapters,
    layers: layersOf(config, model),
    tolerance: config.tolerance,
    fraction: config.fraction_bits,
  };
}

function refuseInexact(first: number, second: number): void {
  const place = [first, second].findIndex((value) => shiftOf(value) === undefined);
  if (place < 0) return;
  throw new ThimbleError("meft-factor", "In mode exact a factor is a power of two", {
    where: `meft.x${place + 1}_factor`,
    given: String(place === 0 ? first : second),
    expected: "1, 0.5, 0.25, 0.125 and so on",
    fix: "Take the nearest of these, or another mode.",
  });
}

function activationOf({ activation }: MeftConfig, model: ModelDefinition): Activation {
  const found = activation ?? model.activation;
  if (found !== undefined) return found;
  throw new ThimbleError("meft-activation", "The model does not say which activation its MLPs have", {
    where: "meft.activation",
    given: model.family,
    fix: "Give the adapters' activation.",
  });
}

function layersOf({ num_rev_layers: given }: MeftConfig, model: ModelDefinition): number {
  if (given === undefined || given <= model.blocks) return given ?? model.blocks;
  throw new ThimbleError("meft-layers", "The model has fewer layers than are to be reversible", {
    where: "meft.num_rev_layers",
    given: String(given),
    expected: `0 to ${model.blocks}`,
    fix: "Leave it out for all layers.",
  });
}
