import { invariant, must, ThimbleError } from "../errors.js";
import { Graph } from "../ir/node.js";
import type { Node } from "../ir/node.js";
import type { Assignment, Phase, Program } from "../ir/program.js";
import type { Estimate, FinishedEstimate } from "../methods/estimator.js";
import type { UpdateContext } from "../methods/types.js";
import { modelLoss } from "../models/loss.js";
import { add, multiply } from "../ops/arithmetic.js";
import { leaf } from "../ops/leaves.js";
import { clipGlobalNorm } from "../optim/clip.js";
import type { Optimizer } from "../optim/types.js";
import type { Trainable } from "./estimate.js";
import { backpropagation, trainedModel } from "./estimate.js";
import type { BuiltForward, ForwardOptions } from "./forward.js";
import { buildForward } from "./forward.js";
import { collected, regularisation } from "./afterwards.js";
import { watchedOf } from "./watch.js";
import { deferredPrograms, furtherProgram } from "./deferred.js";
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
  /** States that persist though no program of this step has them: those of blocks that have not their turn. */
  readonly states?: readonly Node[];
}

/** The name of a step's program; `variant` is what the methods say of the step ("" = the ordinary one). */
export function trainingProgram(
  name: "train" | "accumulate" | "apply" | typeof furtherProgram,
  variant: string,
): string {
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
  const deferred = options.methods?.defer !== undefined;
  const model = trainedModel(graph, { ...options, variant }, scalars, "refuse", deferred ? 1 : 0);
  const estimate = (options.methods?.estimate ?? backpropagation)(model);
  const { loss, phases, linear, backward, restored } = estimate;
  const trainables = model.trainables();
  if (backward === undefined) refuseVanishing(trainables, options.optimizer);
  const idle = idleAdapters(model.forward(), trainables);
  const copies = new Map<string, string>();
  const watched = watchedOf(graph, options.methods, variant, estimate);
  const finish = (sums: readonly Node[], kept: Estimate["restored"]): Phase =>
    graph.inScope("update", () => {
      const own = sums.slice(0, linear.length);
      const context = watched.context(sums.slice(linear.length));
      return updates(
        graph,
        trainables,
        estimate.finish(own),
        kept,
        scalars,
        { ...options, variant, context, idle },
        copies,
      );
    });
  const common = { graph, gradients: backward ?? [], ...(backward === undefined ? {} : { loss }) };
  const result = { trainables, forward: model.forward(), notes: notesFor(options, backward !== undefined), copies };
  if (deferred) {
    refuseDeferred(options, watched.sums.length + watched.moved.length > 0);
    const programs = deferredPrograms({
      graph,
      estimate,
      trainables,
      scalars,
      rules: Object.keys(options.optimizer.scalars(1)),
      accumulate: options.accumulate,
      name: (name) => trainingProgram(name, variant),
      updates: (finished, kept, late) =>
        updates(
          graph,
          trainables,
          finished,
          kept,
          late,
          { ...options, variant, context: watched.context([]), idle },
          copies,
        ),
    });
    return { programs: [...programs, ...furtherPrograms(options, variant)], ...result };
  }
  const summed = [...linear, ...watched.sums];
  const values = summed.map(({ value }) => value);
  if (options.accumulate === 1) {
    const { assignments, outputs } = finish(values, restored);
    const last = { assignments: [...assignments, ...watched.moved], outputs: { loss, ...outputs } };
    return { programs: [{ ...common, name: trainingProgram("train", variant), phases: [...phases, last] }], ...result };
  }
  const sums = summed.map(({ name, value }) =>
    leaf(graph, { name, role: "accumulator", shape: value.shape, dtype: "f32" }),
  );
  const accumulate = graph.inScope("update", () => [
    ...sums.map((target, index) => ({ target, value: add(must(values[index], "term"), target) })),
    ...(restored === undefined ? [] : trainables.map(restored)),
    ...watched.moved,
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

/** What runs the micro-batches after the first, where the first applies what the step before left. */
function furtherPrograms(options: TrainingOptions, variant: string): Program[] {
  if (options.accumulate === 1 || options.methods === undefined) return [];
  const { defer, ...methods } = options.methods;
  invariant(defer !== undefined, "updates are left for the next step");
  const [program] = buildVariant({ ...options, methods }, variant).programs;
  return [{ ...must(program, "program"), name: trainingProgram(furtherProgram, variant), visits: true }];
}

/** What an update needs of the whole step is not there any more, or not yet, where each tensor is updated at its visit. */
function refuseDeferred({ clip, methods, optimizer }: TrainingOptions, watches: boolean): void {
  const turns = methods?.turns !== undefined && Object.keys(optimizer.scalars(1)).length > 0;
  const why = [
    clip === undefined ? undefined : "clipping needs the norm of all gradients first",
    methods?.regularise === undefined ? undefined : "a method adds a term to the loss",
    watches ? "a method looks at the gradients of a whole step" : undefined,
    methods?.collect === undefined ? undefined : "a method changes the updates of a whole step",
    (methods?.variants.length ?? 0) === 0 ? undefined : "a method has steps of a special kind",
    turns ? `${optimizer.id} counts the steps of blocks that take turns` : undefined,
  ].find((reason) => reason !== undefined);
  if (why === undefined) return;
  throw new ThimbleError("deferred-update", "Updates cannot be left for the next step here", {
    given: why,
    fix: clip === undefined ? "Leave zo2 out, or the other method." : "Leave --clip out.",
  });
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
  return [...notes, ...choiceNotes(options)];
}

/** What choosing among examples saves: nothing where a micro-batch is one row, however many are trained on. */
function choiceNotes({ methods, batch, accumulate }: TrainingOptions): string[] {
  const rows = batch * accumulate;
  const drawn = Math.round(rows / (methods?.examples?.ratio ?? 1));
  if (drawn === rows) return [];
  const saves =
    batch === 1
      ? "no peak memory is saved, since training on all of them one row at a time takes as much; time is"
      : `what backward needs is kept of ${batch} rows at a time`;
  return [`${rows} of ${drawn} rows drawn are trained on in a step: ${saves}`];
}

interface UpdateOptions extends TrainingOptions {
  readonly variant: string;
  readonly context: UpdateContext;
  /** Leaves of the methods' tensors that do not train in the step. */
  readonly idle: ReadonlyMap<string, Node>;
}

function idleAdapters({ adapters }: BuiltForward, trainables: readonly Trainable[]): Map<string, Node> {
  const trained = new Set(trainables.map(({ name }) => name));
  return new Map([...adapters].flatMap(([name, { node }]) => (trained.has(name) ? [] : [[name, node]])));
}

function updates(
  graph: Graph,
  trainables: readonly Trainable[],
  { gradients, rateFactor, outputs }: FinishedEstimate,
  restored: Estimate["restored"],
  common: StepScalars,
  options: UpdateOptions,
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
    const { methods, optimizer, variant, context } = options;
    const rule = methods?.update(trainable, optimizer, variant, context) ?? optimizer;
    const assignments = updateOne(graph, trainable, must(places[index], "place"), scaled, scalars, rule, copies);
    return { name: trainable.name, before: must(values[index], "value"), gradient: scaled, assignments };
  });
  return {
    assignments: collected(graph, options.methods, options.variant, updated, options.idle),
    outputs: {
      ...outputs,
      ...(clipping === undefined ? {} : { gradientNorm: clipping.norm }),
      ...(term === undefined ? {} : { regularisation: term.value }),
    },
  };
}

function updateOne(
  graph: Graph,
  { name, states: held, turn, node, stream, rateFactor, decay }: Trainable,
  at: { readonly target: Node; readonly value: Node },
  gradient: Node,
  scalars: StepScalars,
  optimizer: Optimizer,
  copies: Map<string, string>,
): Assignment[] {
  const type = { shape: node.shape, dtype: node.dtype };
  const states = optimizer.states(type).map((spec) => {
    const own = `${held}.${optimizer.id}.${spec.name}`;
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
  return [{ target: at.target, value: updated.value }, ...kept, ...(updated.also ?? [])];
}

/** The loss alone: weighted sum over the batch, with the methods' tensors in place and no dropout. */
export function buildEvaluation(options: ForwardOptions & { readonly segments: boolean }): Program {
  const graph = new Graph();
  const inputs = batchInputs(graph, options.batch, options.length, options.segments, options.definition);
  const { result } = buildForward(graph, inputs, options, undefined);
  const loss = modelLoss(options.definition, result, inputs);
  const outputs = { loss, ...(result.logits === undefined ? {} : { logits: result.logits }) };
  return { name: "evaluate", graph, phases: [{ assignments: [], outputs }], gradients: [] };
}
