import { ThimbleError } from "../../errors.js";
import { add } from "../../ops/arithmetic.js";
import type { Optimizer } from "../../optim/types.js";
import { defineMethod } from "../define.js";
import { sparseTerm } from "../sparse/forward.js";
import type { GrowingLayer } from "../sparse/growth.js";
import {
  growingByGradients,
  growingByMoments,
  growthScalars,
  opening,
  plainEntries,
  selecting,
  watchCandidates,
  watchGrowth,
  within,
} from "../sparse/growth.js";
import { drawPlaces, entriesOfLayers, entryClaims } from "../sparse/layer.js";
import type { Claim, MethodSlots, ResolvedMethod, TrainedTensor, UpdateContext } from "../types.js";
import type { SpielConfig } from "./config.js";
import { spielConfig, spielLayers } from "./config.js";
import type { Selection } from "./schedule.js";
import { selectionAt } from "./schedule.js";

/** SpIEL: a fixed number of entries of each frozen weight train, and the set of them moves. */
export const spiel = defineMethod({
  id: "spiel",
  title: "SpIEL: sparse fine-tuning with a moving support",
  paper: "2401.16405",
  year: 2024,
  summary:
    "Trains single entries of frozen weights; the smallest changes are dropped again and again, and others grow.",
  reduces: ["gradients", "states"],
  fills: ["prepare", "linear", "watch", "update", "steps", "scalars", "export"],
  config: spielConfig,
  defaultsFor: ({ steps }) => ({ total_steps: steps }),
  resolve: (settings, model) => {
    const layers = spielLayers(settings, model);
    const byPath = new Map(layers.map((layer) => [layer.spec.path, layer]));
    const byMoments = settings.selection_algorithm === "sm3";
    return {
      id: "spiel",
      config: settings,
      claims: claimsOf(settings, layers),
      check: (methods) => {
        if (settings.selection_algorithm !== "none") refuseEstimates(methods);
      },
      slots: {
        prepare: (context) => {
          drawPlaces(context, layers, settings.seed);
          return Promise.resolve();
        },
        linear: (context, spec, x, next) => {
          const layer = byPath.get(spec.path);
          if (layer === undefined) return next(x);
          const operand = context.operand(spec, x);
          const y = add(next(x), context.scaled(spec, sparseTerm(context, layer, operand)));
          return watchGrowth(context, layer, operand, y);
        },
        ...growth(settings, layers),
      },
      learningRate: byMoments ? 1e-3 : 1e-4,
      ...(byMoments ? { suggests: { optimizer: "sm3", rate: { weights: 1e-3, adapter: 1e-3 } } } : {}),
      ...entriesOfLayers(layers),
    };
  },
});

function claimsOf({ selection_algorithm: algorithm }: SpielConfig, layers: readonly GrowingLayer[]): Claim[] {
  const own = entryClaims(layers);
  if (algorithm === "none") return own;
  return [
    ...own,
    { resource: "trainable-set", exclusive: true, reason: "chooses anew which entries train" },
    {
      resource: "stack",
      exclusive: true,
      reason: "watches the gradients of layers in blocks that are chained as usual",
    },
  ];
}

function refuseEstimates(methods: readonly ResolvedMethod[]): void {
  const maker = methods.find(({ slots }) => slots.estimate !== undefined);
  if (maker === undefined) return;
  throw new ThimbleError("methods-conflict", `spiel and ${maker.id} do not go together`, {
    where: "methods",
    given: `${maker.id} makes gradients without a backward pass, of which spiel chooses what grows`,
    fix: `Remove ${maker.id}, or set spiel.selection_algorithm to none.`,
  });
}

/** What makes the entries move. */
function growth(settings: SpielConfig, layers: readonly GrowingLayer[]): MethodSlots {
  const byDelta = new Map(layers.map((layer) => [layer.delta.name, layer]));
  const at = (step: number): Selection => selectionAt(settings, step);
  const ofLayer =
    (make: (layer: GrowingLayer, rule: Optimizer, variant: string, context: UpdateContext) => Optimizer) =>
    ({ name }: TrainedTensor, ...rest: [Optimizer, string, UpdateContext]): Optimizer | undefined => {
      const layer = byDelta.get(name);
      return layer === undefined ? undefined : make(layer, ...rest);
    };
  switch (settings.selection_algorithm) {
    case "none":
      return { update: ofLayer(plainEntries) };
    case "sm3":
      return {
        scalars: (step) => growthScalars(layers, at(step)),
        steps: { variants: [selecting], variant: (step) => (at(step).share > 0 ? selecting : "") },
        update: ofLayer((layer, rule, variant, context) =>
          variant === selecting ? growingByMoments(layer, rule, context) : plainEntries(layer, rule),
        ),
      };
    case "rigl":
      return {
        scalars: (step) => growthScalars(layers, at(step)),
        steps: {
          variants: [opening, within],
          variant: (step, microBatch) => {
            const { window } = at(step);
            if (window === undefined) return "";
            return window === 0 && microBatch === 0 ? opening : within;
          },
        },
        watch: (context) => watchCandidates(context, layers),
        update: ofLayer((layer, rule, variant, context) =>
          variant === "" ? plainEntries(layer, rule) : growingByGradients(layer, rule, variant, context),
        ),
      };
  }
}
