import { ThimbleError } from "../../errors.js";
import { defineMethod } from "../define.js";
import { fisherStart, startNarrow } from "../narrow-start.js";
import type { Claim, PrepareContext, ResolvedMethod } from "../types.js";
import type { SideNetwork } from "./config.js";
import { lstConfig, sideNetwork, tensorsOf } from "./config.js";
import { ladderStack } from "./network.js";

/** LST: a narrow network beside the frozen model learns, and no gradient flows through the model. */
export const lst = defineMethod({
  id: "lst",
  title: "LST: ladder side-tuning",
  paper: "2206.06522",
  year: 2022,
  summary:
    "Trains a narrow copy of the model that reads its blocks' outputs; nothing of the model is kept for backward.",
  reduces: ["gradients", "states", "activations"],
  fills: ["stack", "prepare", "calibrate", "export"],
  config: lstConfig,
  resolve: (settings, model) => {
    const side = sideNetwork(settings, model);
    return {
      id: "lst",
      config: settings,
      claims: claimsOf(),
      check: refuseInside,
      slots: {
        stack: ladderStack(side),
        prepare: (context) => prepareSide(context, side),
        ...(settings.init === "fisher" ? { calibrate: fisherStart(model, side.network, settings.fisher_samples) } : {}),
      },
      learningRate: 3e-3,
      saves: "adapter",
      adapters: tensorsOf(side),
      merge: () => {
        throw new ThimbleError("lst-merge", "A side network cannot be merged into the model's weights", {
          where: "lst",
          given: "the model's outputs are those of a network beside it",
          fix: "Keep the adapter, and run the model with it.",
        });
      },
    };
  },
});

const reason = "learns beside the model, whose weights must stay as they are: no gradient flows through it";

function claimsOf(): Claim[] {
  return [
    { resource: "stack", exclusive: true, reason: "runs a network of its own beside the blocks" },
    { resource: "base-weights", exclusive: true, reason },
    { resource: "trainable-set", exclusive: true, reason: "trains all of its network in every step" },
  ];
}

/** Nothing inside the model can learn, and nothing of it is kept for backward. */
function refuseInside(methods: readonly ResolvedMethod[]): void {
  const inside = methods.find(({ id, slots, adapters }) => {
    const keeps = slots.saved !== undefined || slots.represent !== undefined;
    return id !== "lst" && (adapters.length > 0 || keeps);
  });
  if (inside === undefined) return;
  throw new ThimbleError("methods-conflict", `lst and ${inside.id} do not go together`, {
    where: "methods",
    given: `lst ${reason}; ${inside.id} works inside the model`,
    expected: "one of them",
    fix: `Remove ${inside.id} or lst. A base that is only packed (qlora with "adapter": false) goes with lst.`,
  });
}

/** Start values: of the side blocks what pruning leaves of the model, of the gates theirs. */
async function prepareSide(context: PrepareContext, side: SideNetwork): Promise<void> {
  const { settings, network, rungs, mergeGate, blocks } = side;
  for (const gate of [...[...rungs.values()].map((rung) => rung.gate), mergeGate]) {
    if (gate !== undefined) context.set(gate.name, Float32Array.of(settings.gate_alpha));
  }
  const importance = settings.init === "fisher" ? "fisher" : "magnitude";
  await startNarrow(context, network, importance, (name) => blocks.get(name)?.initial.kind === "prepared");
}
