import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import type { ModelDefinition, ParameterSpec } from "../../models/types.js";
import { defineMethod } from "../define.js";
import type { Placement, ResolvedMethod } from "../types.js";

const config = z.strictObject({
  blocks: z
    .union([z.literal("all"), z.array(z.int().min(0)).min(1)])
    .default("all")
    .describe("Blocks whose weights lie on disk and visit the memory: all, or a list of their numbers, from 0"),
  storage: z
    .enum(["run", "f32", "bf16", "f16"])
    .default("run")
    .describe("Type in which those weights are kept; in 16 bits, updates are rounded stochastically"),
  overlap: z
    .boolean()
    .default(true)
    .describe("Move blocks beside the computing of others, with three of them in memory; otherwise one after another"),
  auto_flush: z
    .boolean()
    .default(true)
    .describe("Apply the last update before anything reads the weights; otherwise reading them is refused until then"),
});

type Settings = z.infer<typeof config>;

/** ZO2: weights on disk visit the memory block by block, once a step: pending update and all passes in one visit. */
export const zo2 = defineMethod({
  id: "zo2",
  title: "ZO2: zeroth-order tuning with offloaded blocks",
  paper: "2503.12668",
  year: 2025,
  summary: "Zeroth-order tuning with three blocks in memory: each block is read and written once a step.",
  reduces: ["weights", "gradients", "states", "activations"],
  fills: ["place", "defer"],
  companions: ["mezo"],
  config,
  resolve: (settings, model): ResolvedMethod => ({
    id: "zo2",
    config: settings,
    slots: { place: placement(settings, model), defer: { automatic: settings.auto_flush } },
    claims: [{ resource: "placement", exclusive: true, reason: "moves blocks between disk and memory" }],
    adapters: [],
    check: (methods) => {
      refuseBackward(methods);
      refuseTiedInPlace(methods, model);
    },
  }),
});

function placement({ blocks, storage, overlap }: Settings, model: ModelDefinition): Placement {
  const unknown = blocks === "all" ? undefined : blocks.find((block) => block >= model.blocks);
  if (unknown !== undefined) {
    throw new ThimbleError("zo2-block", "The model has no such block to keep on disk", {
      where: "zo2.blocks",
      given: String(unknown),
      expected: `0 to ${model.blocks - 1}, or "all"`,
      fix: "Leave the number out of the list.",
    });
  }
  const travels = ({ block }: ParameterSpec): boolean =>
    block !== undefined && (blocks === "all" || blocks.includes(block));
  return {
    disk: travels,
    overlap,
    ...(storage === "run" ? {} : { stored: (parameter) => (travels(parameter) ? storage : undefined) }),
  };
}

/** A backward pass would visit every block again, in reverse, with what forward saved of it. */
function refuseBackward(methods: readonly ResolvedMethod[]): void {
  if (methods.some(({ slots }) => slots.estimate !== undefined)) return;
  const trainers = methods.filter(({ id }) => id !== "zo2").map(({ id }) => id);
  throw new ThimbleError("zo2-backward", "ZO2 moves blocks for forward passes alone, and these methods need backward", {
    where: "methods",
    given: trainers.join(", "),
    expected: "gradients made by a zeroth-order method",
    fix: "Add mezo, or leave zo2 out and keep frozen weights on disk with --weights-on disk.",
  });
}

/** Moved in place, a tensor that front and tail share would have to be all of one pass before it is of the next. */
function refuseTiedInPlace(methods: readonly ResolvedMethod[], model: ModelDefinition): void {
  const embedding = model.parameters.find(({ kind }) => kind === "embedding");
  const inPlace = methods.find(({ id, config: own }) => id === "mezo" && isInPlace(own));
  const trains = embedding !== undefined && methods.some(({ slots }) => slots.select?.(embedding) === true);
  if (inPlace === undefined || !model.tiedEmbeddings || !trains) return;
  throw new ThimbleError(
    "zo2-tied",
    "Passes cannot go side by side while one tensor of front and tail is moved in place",
    {
      where: "mezo.perturbation",
      given: `in_place, with ${embedding.name} as the output layer too`,
      expected: "virtual",
      fix: "Leave mezo's perturbation at virtual.",
    },
  );
}

function isInPlace(settings: unknown): boolean {
  return (
    typeof settings === "object" &&
    settings !== null &&
    "perturbation" in settings &&
    settings.perturbation === "in_place"
  );
}
