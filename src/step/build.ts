import { must, ThimbleError } from "../errors.js";
import { Graph } from "../ir/node.js";
import type { Node } from "../ir/node.js";
import type { Assignment, Phase, Program } from "../ir/program.js";
import type { Estimate, FinishedEstimate } from "../methods/estimator.js";
import { tokenLoss } from "../models/loss.js";
import { add, multiply } from "../ops/arithmetic.js";
import { leaf } from "../ops/leaves.js";
import { clipGlobalNorm } from "../optim/clip.js";
import type { Optimizer } from "../optim/types.js";
import type { Trainable } from "./estimate.js";
import { backpropagation, trainedModel } from "./estimate.js";
import type { BuiltForward, ForwardOptions } from "./forward.js";
import { buildForward } from "./forward.js";
import { collected, regularisation } from "./afterwards.js";
import type { StepScalars } from "./inputs.js";
import { batchInputs, stepScalars, turnScalars } from "./inputs.js";

export type { Trainable } from "./estimate.js";

export interface TrainingOptions extends ForwardOptions {
  readonly optimizer: Optimizer;
  readonly clip: number | undefined;
  /** Micro-batches of one optimizer step. */
  readonly accumulate: number;
  readonly segments: boolean;
}

export interface TrainingPrograms {
  /** `train`, or `accumulate` (once a micro-batch, on sums that the host has cleared) and `apply` (once a step). */
  readonly programs: readonly Program[];
  readonly trainables: readonly Trainable[];
  readonly forward: BuiltForward;
  /** Why gradients cannot be consumed by their updates as they are born; empty when they are. */
  readonly notes: readonly string[];
  /** States that start as the parameter's own value, by state leaf name. */
  readonly copies: ReadonlyMap<string, string>;
}

/** The name of a step's program; `variant` is what the methods say of the step ("" = the ordinary one). */
export function trainingProgram(name: "train" | "accumulate" | "apply", variant: string): string {
  return variant === "" ? name : `${name}@${variant}`;
}

/** Whether a program is one of the ordinary steps, which those of a special kind differ from in their update alone. */
export function isOrdinary(program: string): boolean {
  return !program.includes("@");
}

/**
 * Forward, loss, backward, clipping and update as one program (or two, with accumulation), for each kind of step that
 * the methods tell apart.
 */
export function buildTraining(options: TrainingOptions): TrainingPrograms {
  const [ordinary, ...others] = ["", ...(options.methods?.variants ?? [])].map((variant) =>
    buildVariant(options, variant),
  );
  const built = must(ordinary, "training programs");
  return { ...built, programs: [...built.programs, ...others.flatMap(({ programs }) => programs)] };
}

function buildVariant(options: TrainingOptions, variant: string): TrainingPrograms {
  const graph = new Graph();
  const scalars = stepScalars(graph);
  const model = trainedModel(graph, options, scalars);
  const estimate = (options.methods?.estimate ?? backpropagation)(model);
  const { loss, phases, linear, backward, restored } = estimate;
  const trainables = model.trainables();
  if (backward === undefined) refuseVanishing(trainables, options.optimizer);
  const copies = new Map<string, string>();
  const finish = (sums: readonly Node[], kept: Estimate["restored"]): Phase =>
    graph.inScope("update", () =>
      updates(graph, trainables, estimate.finish(sums), kept, scalars, { ...options, variant }, copies),
    );
  const common = { graph, gradients: backward ?? [], ...(backward === undefined ? {} : { loss }) };
  const result = { trainables, forward: model.forward(), notes: notesFor(options, backward !== undefined), copies };
  const values = linear.map(({ value }) => value);
  if (options.accumulate === 1) {
    const { assignments, outputs } = finish(values, restored);
    const last = { assignments, outputs: { loss, ...outputs } };
    return { programs: [{ ...common, name: trainingProgram("train", variant), phases: [...phases, last] }], ...result };
  }
  const sums = linear.map(({ name, value }) =>
    leaf(graph, { name, role: "accumulator", shape: value.shape, dtype: "f32" }),
  );
  const accumulate = graph.inScope("update", () => [
    ...sums.map((target, index) => ({ target, value: add(must(values[index], "term"), target) })),
    ...(restored === undefined ? [] : trainables.map(restored)),
  ]);
  const last = { assignments: accumulate, outputs: { loss } };
  return {
    programs: [
      { ...common, name: trainingProgram("accumulate", variant), phases: [...phases, last] },
      { name: trainingProgram("apply", variant), graph, phases: [finish(sums, undefined)], gradients: [] },
    ],
    ...result,
  };
}

/** Zeroth-order steps are far below the spacing of 16-bit weights: rounded to nearest, all of them would be lost. */
function refuseVanishing(trainables: readonly Trainable[], optimizer: Optimizer): void {
  const lost = trainables.find(({ node: { shape, dtype } }) => {
    const type = { shape, dtype };
    const master = optimizer.states(type).some(({ initial }) => initial === "parameter");
    return dtype !== "f32" && !optimizer.rounds(type) && !master;
  });
  if (lost === undefined) return;
  throw new ThimbleError("estimate-vanishing", "Updates this small vanish when weights are rounded to nearest", {
    where: lost.name,
    given: lost.node.dtype,
    fix: "Round stochastically, keep f32 masters, or train in f32.",
  });
}

function notesFor(options: TrainingOptions, backward: boolean): string[] {
  const notes: string[] = [];
  if (!backward) return notes;
  if (options.clip !== undefined)
    notes.push("all gradients are kept until the update: clipping needs the norm of them all");
  if (options.accumulate > 1) notes.push("gradients are summed over micro-batches and kept until the update");
  return notes;
}

function updates(
  graph: Graph,
  trainables: readonly Trainable[],
  { gradients, rateFactor, outputs }: FinishedEstimate,
  restored: Estimate["restored"],
  common: StepScalars,
  options: TrainingOptions & { readonly variant: string },
  copies: Map<string, string>,
): Phase {
  const scalars = rateFactor === undefined ? common : { ...common, rate: multiply(common.rate, rateFactor) };
  const places = trainables.map((one) => restored?.(one) ?? { target: one.node, value: one.node });
  const values = places.map(({ value }) => value);
  const term = regularisation(graph, options.methods, trainables, values);
  const whole = gradients.map((gradient, index) => term?.gradients[index]?.(gradient) ?? gradient);
  const clipping = options.clip === undefined ? undefined : clipGlobalNorm(whole, options.clip);
  const updated = trainables.map((trainable, index) => {
    const gradient = must(whole[index], "gradient");
    const scaled = clipping === undefined ? gradient : multiply(gradient, clipping.scale);
    const rule = options.methods?.update(trainable, options.optimizer, options.variant) ?? options.optimizer;
    const assignments = updateOne(graph, trainable, must(places[index], "place"), scaled, scalars, rule, copies);
    return { name: trainable.name, before: must(values[index], "value"), gradient: scaled, assignments };
  });
  return {
    assignments: collected(graph, options.methods, options.variant, updated),
    outputs: {
      ...outputs,
      ...(clipping === undefined ? {} : { gradientNorm: clipping.norm }),
      ...(term === undefined ? {} : { regularisation: term.value }),
    },
  };
}

function updateOne(
  graph: Graph,
  { name, place, turn, node, stream, rateFactor, decay }: Trainable,
  at: { readonly target: Node; readonly value: Node },
  gradient: Node,
  scalars: StepScalars,
  optimizer: Optimizer,
  copies: Map<string, string>,
): Assignment[] {
  const type = { shape: node.shape, dtype: node.dtype };
  const states = optimizer.states(type).map((spec) => {
    const own = `${place}.${optimizer.id}.${spec.name}`;
    if (spec.initial === "parameter") copies.set(own, name);
    return { key: spec.name, node: leaf(graph, { name: own, role: "state", shape: spec.shape, dtype: spec.dtype }) };
  });
  const { rate, seedLow, seedHigh, step } = scalars;
  const updated = optimizer.update({
    parameter: at.value,
    gradient,
    states: Object.fromEntries(states.map((state) => [state.key, state.node])),
    rate: multiply(rate, rateFactor),
    scalars: turn === undefined ? scalars : turnScalars(graph, turn),
    decay,
    ...(optimizer.rounds(type) ? { random: { key: { low: seedLow, high: seedHigh }, step, stream } } : {}),
  });
  const kept = states.map(({ key, node: target }) => ({
    target,
    value: must(updated.states[key], `new state ${key}`),
  }));
  return [{ target: at.target, value: updated.value }, ...kept];
}

/** The loss alone: weighted sum over the batch, with the methods' tensors in place and no dropout. */
export function buildEvaluation(options: ForwardOptions & { readonly segments: boolean }): Program {
  const graph = new Graph();
  const inputs = batchInputs(graph, options.batch, options.length, options.segments);
  const forward = buildForward(graph, inputs, options, undefined);
  const loss = tokenLoss(forward.result, inputs);
  return { name: "evaluate", graph, phases: [{ assignments: [], outputs: { loss } }], gradients: [] };
}
