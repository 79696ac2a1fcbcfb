import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import { narrowForm } from "../../models/narrow.js";
import type { ModelDefinition, NarrowModel } from "../../models/types.js";
import type { SmallLinear } from "../small-linear.js";
import { smallLinear } from "../small-linear.js";
import type { AdapterTensor, Initial } from "../types.js";

const layers = z.union([z.array(z.number().int().nonnegative()), z.enum(["auto", "all"])]);

export const lstConfig = z.strictObject({
  r: z.number().int().min(1).max(64).default(8).describe("The side network has 1/r of the model's widths"),
  side_layers: layers
    .default("auto")
    .describe(
      'Blocks that have a side block, from 0; "all"; "auto" leaves out every fourth of up to 12, and every other of more',
    ),
  gate: z
    .enum(["learnable", "none", "one"])
    .default("learnable")
    .describe("How the side's state meets the block's: a trained mix, their sum, or not at all (\"one\")"),
  gate_temperature: z.number().positive().default(0.1).describe("T: the mix is sigmoid(gate / T)"),
  gate_alpha: z.number().default(0).describe("Start value of the gates; 0 mixes both alike"),
  merge_last: z.boolean().default(false).describe("Mix the side network's output with the model's own"),
  add_residual_after: z.boolean().default(false).describe("Mix the block's state in behind the side block, not before"),
  dropout: z.number().min(0).lt(1).default(0).describe("Dropout of what the side network reads first and gives out"),
  init: z
    .enum(["magnitude", "fisher", "random"])
    .default("magnitude")
    .describe("Start of the side blocks: what pruning by size, or by squared gradients, leaves of the model; or noise"),
  fisher_samples: z
    .number()
    .int()
    .min(1)
    .max(4096)
    .default(1024)
    .describe('Examples whose squared gradients are summed, one at a time, with init "fisher"'),
});

export type LstConfig = z.infer<typeof lstConfig>;

/** One kept side block, with what leads into it. */
export interface Rung {
  /** Absent where gates are 1: nothing of the block would pass. */
  readonly ladder: SmallLinear | undefined;
  readonly gate: AdapterTensor | undefined;
}

/** Everything that the side network of a model consists of. */
export interface SideNetwork {
  readonly settings: LstConfig;
  readonly network: NarrowModel;
  readonly first: SmallLinear;
  /** By the number of the block. */
  readonly rungs: ReadonlyMap<number, Rung>;
  /** Of the side blocks and the norm behind them, by name. */
  readonly blocks: ReadonlyMap<string, AdapterTensor>;
  readonly up: SmallLinear;
  readonly mergeGate: AdapterTensor | undefined;
}

/** First part of the names of all tensors, and the name of the cache. */
export const root = "side";
/** Standard deviation of the projections' weights at the start. */
const deviation = 0.01;

/** Checks the settings against the model; errors name the setting. */
export function sideNetwork(settings: LstConfig, model: ModelDefinition): SideNetwork {
  const network = narrowForm(model, settings.r, root, "lst.r");
  const chosen = sideLayers(settings, model);
  const { gate, merge_last: merges } = settings;
  const own = network.parameters.filter(({ own: { block } }) => block === undefined || chosen.includes(block));
  const down = { inputs: model.width, outputs: network.width, deviation };
  return {
    settings,
    network,
    first: smallLinear(`${root}.first_ladder`, down),
    rungs: new Map(
      chosen.map((block) => [
        block,
        {
          ladder: gate === "one" ? undefined : smallLinear(`${root}.layers.${block}.ladder`, { ...down, block }),
          gate: gate === "learnable" ? gateTensor(settings, `layers.${block}.gate`, block) : undefined,
        },
      ]),
    ),
    blocks: new Map(own.map((pair) => [pair.own.name, blockTensor(settings, pair)])),
    up: smallLinear(`${root}.up`, { inputs: network.width, outputs: model.width, deviation }),
    mergeGate: merges ? gateTensor(settings, "merge_gate") : undefined,
  };
}

/** All tensors, in the order in which they are used. */
export function tensorsOf({ first, rungs, blocks, up, mergeGate }: SideNetwork): AdapterTensor[] {
  const pair = (linear: SmallLinear | undefined): AdapterTensor[] =>
    linear === undefined ? [] : [linear.weight, linear.bias];
  const inside = [...rungs].flatMap(([block, { ladder, gate }]) => [
    ...pair(ladder),
    ...(gate === undefined ? [] : [gate]),
    ...[...blocks.values()].filter((tensor) => tensor.block === block),
  ]);
  const behind = [...blocks.values()].filter(({ block }) => block === undefined);
  return [...pair(first), ...inside, ...behind, ...pair(up), ...(mergeGate === undefined ? [] : [mergeGate])];
}

/** The blocks with a side block, ascending. */
function sideLayers({ side_layers: given }: LstConfig, { blocks }: ModelDefinition): number[] {
  const all = Array.from({ length: blocks }, (_, block) => block);
  if (given === "all" || (given === "auto" && blocks === 1)) return all;
  if (given === "auto") return all.filter((block) => (blocks > 12 ? block % 2 === 1 : block % 4 !== 0));
  const chosen = [...new Set(given)].sort((a, b) => a - b);
  const outside = chosen.find((block) => block >= blocks);
  if (chosen.length === given.length && chosen.length > 0 && outside === undefined) return chosen;
  throw new ThimbleError("lst-layers", "The side network has no such blocks", {
    where: "lst.side_layers",
    given: chosen.length === 0 ? "none" : given.join(", "),
    expected: `at least one number, different ones, from 0 to ${blocks - 1}`,
    fix: 'Name blocks of the model, or use "auto".',
  });
}

function gateTensor({ gate_alpha: alpha }: LstConfig, name: string, block?: number): AdapterTensor {
  const initial: Initial = { kind: alpha === 0 ? "zeros" : "prepared" };
  const common = { dtype: "f32", rateFactor: 1, decay: false, ...(block === undefined ? {} : { block }) } as const;
  return { ...common, name: `${root}.${name}`, shape: [1], initial };
}

/** Norms start as the model's in any case: what leaves values as they are differs by family. */
function blockTensor({ init }: LstConfig, { own, of }: NarrowModel["parameters"][number]): AdapterTensor {
  const { name, shape, kind, block } = own;
  const drawn: Initial = kind === "bias" ? { kind: "zeros" } : { kind: "normal", deviation: 0.02 };
  return {
    name,
    shape,
    dtype: "f32",
    initial: init === "random" && kind !== "norm" ? drawn : { kind: "prepared" },
    rateFactor: 1,
    decay: kind !== "norm" && kind !== "bias",
    ...(block === undefined ? {} : { block }),
    ...(of.linear === undefined ? {} : { layer: of.linear.path }),
  };
}
