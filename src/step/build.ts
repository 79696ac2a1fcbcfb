import { gradients as differentiate } from "../autodiff/gradients.js";
import { must } from "../errors.js";
import { Graph } from "../ir/node.js";
import type { Node } from "../ir/node.js";
import type { Assignment, Program } from "../ir/program.js";
import { decays } from "../methods/compose.js";
import { tokenLoss } from "../models/loss.js";
import { add, multiply } from "../ops/arithmetic.js";
import { leaf } from "../ops/leaves.js";
import { clipGlobalNorm } from "../optim/clip.js";
import type { Optimizer } from "../optim/types.js";
import type { BuiltForward, ForwardOptions } from "./forward.js";
import { buildForward } from "./forward.js";
import type { StepScalars } from "./inputs.js";
import { batchInputs, stepScalars, streamLeaf } from "./inputs.js";

export interface TrainingOptions extends ForwardOptions {
  readonly optimizer: Optimizer;
  readonly clip: number | undefined;
  /** Micro-batches of one optimizer step. */
  readonly accumulate: number;
  readonly segments: boolean;
}

/** A tensor that trains, with its optimizer settings. */
export interface Trainable {
  readonly name: string;
  readonly node: Node;
  readonly rateFactor: number;
  readonly decay: boolean;
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

/** Forward, loss, backward, clipping and update as one program (or two, with accumulation). */
export function buildTraining(options: TrainingOptions): TrainingPrograms {
  const graph = new Graph();
  const inputs = batchInputs(graph, options.batch, options.length, options.segments);
  const scalars = stepScalars(graph);
  const forward = buildForward(graph, inputs, options, scalars);
  const loss = tokenLoss(forward.result, inputs);
  const trainables = trainablesOf(forward, options);
  const made = differentiate(
    loss,
    trainables.map(({ node }) => node),
  );
  const copies = new Map<string, string>();
  const finish = (gradients: readonly Node[]): { assignments: Assignment[]; outputs: Record<string, Node> } =>
    graph.inScope("update", () => updates(graph, trainables, gradients, scalars, options, copies));
  const notes = notesFor(options);
  if (options.accumulate === 1) {
    const { assignments, outputs } = finish(made);
    const phases = [{ assignments, outputs: { loss, ...outputs } }];
    return { programs: [{ name: "train", graph, phases, loss, gradients: made }], trainables, forward, notes, copies };
  }
  const sums = trainables.map(({ name, node }) =>
    leaf(graph, { name: `${name}.gradient`, role: "accumulator", shape: node.shape, dtype: "f32" }),
  );
  const accumulate = graph.inScope("update", () =>
    sums.map((target, index) => ({ target, value: add(must(made[index], "gradient"), target) })),
  );
  const { assignments, outputs } = finish(sums);
  return {
    programs: [
      { name: "accumulate", graph, phases: [{ assignments: accumulate, outputs: { loss } }], loss, gradients: made },
      { name: "apply", graph, phases: [{ assignments, outputs }], gradients: [] },
    ],
    trainables,
    forward,
    notes,
    copies,
  };
}

function trainablesOf(forward: BuiltForward, options: TrainingOptions): Trainable[] {
  const base = [...forward.parameters.values()]
    .filter(({ spec }) => options.methods?.trains(spec) === true)
    .map(({ spec, node }) => ({ name: spec.name, node, rateFactor: 1, decay: decays(spec) }));
  const added = [...forward.adapters.values()].map(({ tensor, node }) => ({
    name: tensor.name,
    node,
    rateFactor: tensor.rateFactor,
    decay: tensor.decay,
  }));
  return [...base, ...added];
}

function notesFor(options: TrainingOptions): string[] {
  const notes: string[] = [];
  if (options.clip !== undefined)
    notes.push("all gradients are kept until the update: clipping needs the norm of them all");
  if (options.accumulate > 1) notes.push("gradients are summed over micro-batches and kept until the update");
  return notes;
}

function updates(
  graph: Graph,
  trainables: readonly Trainable[],
  gradients: readonly Node[],
  scalars: StepScalars,
  options: TrainingOptions,
  copies: Map<string, string>,
): { assignments: Assignment[]; outputs: Record<string, Node> } {
  const clipping = options.clip === undefined ? undefined : clipGlobalNorm(gradients, options.clip);
  const assignments = trainables.flatMap((trainable, index) => {
    const gradient = must(gradients[index], "gradient");
    const scaled = clipping === undefined ? gradient : multiply(gradient, clipping.scale);
    return updateOne(graph, trainable, scaled, index, scalars, options.optimizer, copies);
  });
  return { assignments, outputs: clipping === undefined ? {} : { gradientNorm: clipping.norm } };
}

/** Streams that one tensor's rounding may use. */
const streamsEach = 4;

function updateOne(
  graph: Graph,
  { name, node, rateFactor, decay }: Trainable,
  gradient: Node,
  index: number,
  scalars: StepScalars,
  optimizer: Optimizer,
  copies: Map<string, string>,
): Assignment[] {
  const type = { shape: node.shape, dtype: node.dtype };
  const states = optimizer.states(type).map((spec) => {
    const place = `${name}.${optimizer.id}.${spec.name}`;
    if (spec.initial === "parameter") copies.set(place, name);
    return { key: spec.name, node: leaf(graph, { name: place, role: "state", shape: spec.shape, dtype: spec.dtype }) };
  });
  const { rate, seedLow, seedHigh, step } = scalars;
  const updated = optimizer.update({
    parameter: node,
    gradient,
    states: Object.fromEntries(states.map((state) => [state.key, state.node])),
    rate: multiply(rate, rateFactor),
    scalars: { correction1: scalars.correction1, correction2: scalars.correction2 },
    decay,
    ...(optimizer.rounds(type)
      ? { random: { key: { low: seedLow, high: seedHigh }, step, stream: streamLeaf(graph, index * streamsEach) } }
      : {}),
  });
  const kept = states.map(({ key, node: target }) => ({
    target,
    value: must(updated.states[key], `new state ${key}`),
  }));
  return [{ target: node, value: updated.value }, ...kept];
}

/** The loss alone: weighted sum over the batch, with the methods' tensors in place and no dropout. */
export function buildEvaluation(options: ForwardOptions & { readonly segments: boolean }): Program {
  const graph = new Graph();
  const inputs = batchInputs(graph, options.batch, options.length, options.segments);
  const forward = buildForward(graph, inputs, options, undefined);
  const loss = tokenLoss(forward.result, inputs);
  return { name: "evaluate", graph, phases: [{ assignments: [], outputs: { loss } }], gradients: [] };
}
