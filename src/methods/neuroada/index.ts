import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import type { LinearSpec, ModelDefinition } from "../../models/types.js";
import { weightOf } from "../../models/parameters.js";
import { add } from "../../ops/arithmetic.js";
import { defineMethod } from "../define.js";
import { sparseTerm } from "../sparse/forward.js";
import type { SparseLayer } from "../sparse/layer.js";
import { entriesOfLayers, entryClaims, sparseLayer } from "../sparse/layer.js";
import { matchTargets, targetSettings } from "../targets.js";
import { rowPlaces, selections } from "./places.js";

const neuroadaConfig = z.strictObject({
  times_num: z.int().min(1).max(65536).default(20).describe("Connections of each neuron that train (k)"),
  selection: z
    .enum(selections)
    .default("magnitude")
    .describe("Which these are: the largest weights of the neuron's row, its smallest, or random ones"),
  seed: z.int().min(0).default(0).describe("Seed of random connections, which are thus the same in every run"),
  ...targetSettings,
});

type NeuroadaConfig = z.infer<typeof neuroadaConfig>;

/** NeuroAda: the strongest connections of every neuron get a value that trains beside the frozen one. */
export const neuroada = defineMethod({
  id: "neuroada",
  title: "NeuroAda: bypasses of each neuron's strongest connections",
  paper: "2510.18940",
  year: 2025,
  summary:
    "Adds a trained value to the k largest weights of every row of the frozen layers; no dense gradient is made.",
  reduces: ["gradients", "states"],
  fills: ["prepare", "linear", "export"],
  config: neuroadaConfig,
  resolve: (settings, model) => {
    const layers = neuroadaLayers(settings, model);
    const byPath = new Map(layers.map((layer) => [layer.spec.path, layer]));
    return {
      id: "neuroada",
      config: settings,
      claims: entryClaims(layers),
      slots: {
        prepare: async (context) => {
          for (const layer of layers) {
            const weight = await context.read(weightOf(layer.spec).name);
            context.set(layer.places.name, rowPlaces(layer, weight, settings));
          }
        },
        linear: (context, spec, x, next) => {
          const layer = byPath.get(spec.path);
          if (layer === undefined) return next(x);
          return add(next(x), context.scaled(spec, sparseTerm(context, layer, context.operand(spec, x))));
        },
      },
      learningRate: 7e-4,
      ...entriesOfLayers(layers),
    };
  },
});

function neuroadaLayers(settings: NeuroadaConfig, model: ModelDefinition): SparseLayer[] {
  const specs = matchTargets("neuroada", model, settings);
  refuseEveryConnection(settings, specs);
  return specs.map((spec) => sparseLayer(spec, spec.outputs * Math.min(settings.times_num, spec.inputs), "neuroada"));
}

/** Where k is larger than a layer's inputs, all its connections train; where that is so of all layers, k is a mistake. */
function refuseEveryConnection({ times_num: k }: NeuroadaConfig, specs: readonly LinearSpec[]): void {
  const widest = Math.max(...specs.map(({ inputs }) => inputs));
  if (k <= widest) return;
  throw new ThimbleError("neuroada-connections", "No layer has so many connections a neuron", {
    where: "neuroada.times_num",
    given: String(k),
    expected: `1 to ${widest}`,
    fix: "Lower it, or train the layers whole with full.",
  });
}
