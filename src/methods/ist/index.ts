import { ThimbleError } from "../../errors.js";
import type { ModelDefinition } from "../../models/types.js";
import { defineMethod } from "../define.js";
import { drawUniform, drawWeighted } from "../initial.js";
import type { MethodSlots, ResolvedMethod, Turns } from "../types.js";
import type { IstConfig, Sampling } from "./config.js";
import { istConfig, settled } from "./config.js";
import { importanceEvent, probe, scoresName, sigmoid } from "./importance.js";

/** IST: in each step the adapters of a few layers train, drawn by an importance that is learned on the way. */
export const ist = defineMethod({
  id: "ist",
  title: "Importance-aware sparse tuning (IST)",
  paper: "2410.11772",
  year: 2024,
  summary:
    "Trains the adapters of a few layers in each step, drawn by an importance that probes with dimmed layers learn.",
  reduces: ["gradients", "activations"],
  fills: ["turns", "programs", "events", "states"],
  companions: ["lora"],
  config: istConfig,
  resolve: (config, model) => {
    const own: ResolvedMethod = {
      id: "ist",
      config,
      slots: {},
      claims: [{ resource: "trainable-set", exclusive: true, reason: "draws the layers that train" }],
      adapters: [],
      check: (methods) => {
        methods.forEach(refuseUnscaled);
      },
    };
    return { ...own, beside: (methods) => ({ ...own, slots: slotsOver(config, methods, model) }) };
  },
});

/** Probes dim what methods add to layers: what trains besides could not be dimmed, and would stand still unasked. */
function refuseUnscaled({ id, slots, adapters, scales }: ResolvedMethod): void {
  const base = slots.select !== undefined;
  if (!base && (adapters.length === 0 || scales === true)) return;
  throw new ThimbleError("ist-scale", `ist and ${id} do not go together: ist dims what adapters add to layers`, {
    where: "methods",
    given: `${id}, which ${base ? "trains tensors of the model itself" : "has no scale of each layer"}`,
    expected: "a method such as lora, adalora or paca",
    fix: `Remove ${id}, or IST.`,
  });
}

/** What IST does with the blocks that the other methods have given something to train. */
function slotsOver(config: IstConfig, methods: readonly ResolvedMethod[], model: ModelDefinition): MethodSlots {
  const numbers = methods.flatMap(({ adapters }) => adapters.flatMap(({ block }) => block ?? []));
  const adapted = new Set(numbers.filter((block) => block < model.blocks));
  const sampling = settled(
    config,
    [...adapted].sort((a, b) => a - b),
  );
  const turns = turnsOf(sampling);
  if (config.sampling === "uniform") return { turns };
  return {
    turns,
    states: [{ name: scoresName, shape: [sampling.blocks.length], dtype: "f32" }],
    programs: [probe(model.blocks)],
    events: [importanceEvent(sampling, model.blocks)],
  };
}

/** Drawn anew before every step, each layer in proportion to sigmoid(-u). */
function turnsOf({ blocks, updated, sampling }: Sampling): Turns {
  return {
    count: updated,
    states: "block",
    at: (step, seed, state) => {
      const weights = sampling === "uniform" ? blocks.map(() => 1) : Array.from(state(scoresName), (u) => sigmoid(-u));
      const drawn = drawWeighted(weights, drawUniform(seed, `ist.${step}`, updated));
      // Ascending, so that with all layers in turn everything is numbered as without turns.
      const layers = drawn.sort((a, b) => a - b).flatMap((layer) => blocks[layer] ?? []);
      return layers.map((block) => ({ block, since: step }));
    },
  };
}
