import { ThimbleError } from "../../errors.js";
import { elements } from "../../ir/shape.js";
import type { RowDescription } from "../coreset/describe.js";
import { descriptionPrograms, descriptionRuns, descriptionStates } from "../coreset/describe.js";
import { probeTensor } from "../coreset/probe-tensor.js";
import type { ProbeTensor } from "../coreset/probes.js";
import { defineMethod } from "../define.js";
import type { ResolvedMethod } from "../types.js";
import { chooseRows, keptSources, noSources } from "./choose.js";
import type { ColmConfig } from "./config.js";
import { colmConfig } from "./config.js";

/** CoLM: each step trains on the rows that stand for a larger draw, by gradients that forward passes estimate. */
export const colm = defineMethod({
  id: "colm",
  title: "CoLM: mini-batch coresets",
  paper: "2407.19580",
  year: 2024,
  summary: "Draws a large batch, and runs backward on the few examples of it that stand best for all of them.",
  reduces: ["activations"],
  fills: ["examples", "programs", "states"],
  companions: ["lora"],
  config: colmConfig,
  resolve: (config, model) => {
    const own: ResolvedMethod = {
      id: "colm",
      config,
      slots: {},
      claims: [{ resource: "batches", exclusive: true, reason: "chooses which rows of a larger draw enter a step" }],
      oneRecord: "it chooses among examples, and packed ones could only be chosen together (pack what was chosen)",
      adapters: [],
      check: refuseEstimates,
    };
    const needsTensor = ["mezo", "masked_grad"].includes(config.data_selection_unit);
    const tensorOf = (methods: readonly ResolvedMethod[]): ProbeTensor =>
      needsTensor ? probeTensor(config.probe, model, methods, "colm.probe") : { name: "", shape: [0] };
    return { ...own, beside: (methods) => ({ ...own, slots: slotsOf(config, tensorOf(methods)) }) };
  },
});

function slotsOf(config: ColmConfig, tensor: ProbeTensor): ResolvedMethod["slots"] {
  if (tensor.name !== "") refuseDimension(config, tensor);
  const description: RowDescription = {
    unit: config.data_selection_unit,
    probe: { tensor, epsilon: config.mezo_eps, directions: config.probes, resample: config.resample },
    timesWeights: config.mezo_selection === "weight_grad",
    adam: config.mezo_optim === "adam",
  };
  // A draw that is trained on whole needs no description.
  const chooses = config.small_batch_ratio < 1;
  return {
    programs: chooses ? descriptionPrograms(description) : [],
    states: chooses ? descriptionStates(description) : [],
    examples: {
      ratio: config.small_batch_ratio,
      logged: config.log_selection,
      runs: (rows) => (chooses ? descriptionRuns(description, rows) : {}),
      check: (table) => {
        const kept = keptSources(config, table);
        const names = table.names.map((name, source) => `${name}${kept.has(source) ? " (kept whole)" : ""}`);
        if (names.length > 1) return [`CoLM chooses among rows of the sources ${names.join(", ")}.`];
        const given = config.source_wise_selection ?? "none";
        if (given !== "none") throw noSources(given);
        return [`CoLM chooses among all rows alike: the data has one source. ${noSources("").fix ?? ""}`];
      },
      choose: (context) => chooseRows(context, config, description),
    },
  };
}

/** Without a backward pass there is none to save. */
function refuseEstimates(methods: readonly ResolvedMethod[]): void {
  const other = methods.find(({ slots }) => slots.estimate !== undefined);
  if (other === undefined) return;
  throw new ThimbleError("methods-conflict", `${other.id} and colm do not go together`, {
    where: "methods",
    given: `${other.id} makes gradients without a backward pass; colm saves that of the rows that it leaves out`,
    expected: "one of them",
    fix: `Remove ${other.id} or colm.`,
  });
}

function refuseDimension({ zo_dim: dimension }: ColmConfig, { name, shape }: ProbeTensor): void {
  const size = elements(shape);
  if (dimension === undefined || dimension <= size) return;
  throw new ThimbleError("colm-dimension", "More coordinates are to be compared than the probed tensor has", {
    where: "colm.zo_dim",
    given: String(dimension),
    expected: `1 to ${size}, the size of ${name}`,
  });
}
