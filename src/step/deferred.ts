/** Steps whose update is left for the next step to apply, where that reads each tensor anyway (ZO2, section 4). */
import { must, ThimbleError } from "../errors.js";
import type { Graph, Node } from "../ir/node.js";
import type { Assignment, Phase, Program } from "../ir/program.js";
import { elements } from "../ir/shape.js";
import type { Estimate, FinishedEstimate, TrainableLeaf } from "../methods/estimator.js";
import { absolute, add, and, cast, less, lessEqual, multiply, select, subtract } from "../ops/arithmetic.js";
import { constant, leaf, leafAttributes } from "../ops/leaves.js";
import type { StepScalars } from "./inputs.js";

/** The state, u32 [], that tells whether an update is pending: 1 + the number of its step; 0 = the weights are current. */
export const pendingStep = "pending.step";

/** Applies a pending update and does nothing else. */
export const flushProgram = "flush";

/** The micro-batches of a step after the first find nothing to apply: their program leaves the weights alone. */
export const furtherProgram = "accumulate-further";

/** Whether a program is one of those that leave and apply updates; all others need the weights as they are meant to be. */
export function isOfStep(program: string): boolean {
  return ["train", "accumulate", furtherProgram, "apply", flushProgram].includes(program.split("@")[0] ?? "");
}

/** What a step leaves behind for a later one to apply: persistent tensors of a few bytes. */
interface Pending {
  readonly mark: Node;
  /** Whether there is an update to apply, bool []. */
  readonly is: Node;
  readonly scalars: Pick<StepScalars, "rate" | "correction1" | "correction2" | "step">;
  readonly sums: readonly Node[];
}

function pendingLeaves(graph: Graph, { linear }: Estimate): Pending {
  const state = (name: string, dtype: "f32" | "u32" = "f32"): Node =>
    leaf(graph, { name: `pending.${name}`, role: "state", shape: [], dtype });
  const mark = leaf(graph, { name: pendingStep, role: "state", shape: [], dtype: "u32" });
  return {
    mark,
    is: less(constant(graph, 0, [], "u32"), mark),
    scalars: {
      rate: state("rate"),
      correction1: state("correction1"),
      correction2: state("correction2"),
      step: subtract(mark, constant(graph, 1, [], "u32")),
    },
    sums: linear.map(({ name, value }) => {
      if (elements(value.shape) === 1) return state(name);
      throw new ThimbleError(
        "deferred-sums",
        "An update can be left for the next step only if it hangs on a few numbers",
        {
          given: `${name}, of ${elements(value.shape)} elements`,
          fix: "Use a zeroth-order method, such as mezo.",
        },
      );
    }),
  };
}

export interface DeferredParts {
  readonly graph: Graph;
  readonly estimate: Estimate;
  /** As the passes read them: after the update that was pending. */
  readonly trainables: readonly TrainableLeaf[];
  readonly scalars: StepScalars;
  /** Names of the scalars that the update rule reads. */
  readonly rules: readonly string[];
  readonly accumulate: number;
  readonly name: (program: "train" | "accumulate" | "apply") => string;
  /** The updates by finished gradients, of what `kept` says the tensors hold, at the scalars of a step. */
  readonly updates: (
    finished: FinishedEstimate,
    kept: NonNullable<Estimate["restored"]>,
    scalars: StepScalars,
  ) => Phase;
}

/**
 * `train` (or `accumulate` and `apply`) and `flush`. The first phase of a step applies what the step before left; its
 * last leaves what this one found. A step whose sums are not finite leaves a rate and gradients of 0.
 */
export function deferredPrograms(parts: DeferredParts): Program[] {
  const { graph, estimate, trainables, accumulate, name } = parts;
  const { loss, linear, phases, restored } = estimate;
  const pending = pendingLeaves(graph, estimate);
  const apply: Phase = { assignments: applied(parts, pending), outputs: {} };
  const common = { graph, gradients: [] };
  // A value of its own, since what is assigned lies where the leaf does.
  const nothing: Assignment = {
    target: pending.mark,
    value: multiply(pending.mark, subtract(pending.mark, pending.mark)),
  };
  const flush = { ...common, name: flushProgram, phases: [{ ...apply, assignments: [...apply.assignments, nothing] }] };
  const values = linear.map(({ value }) => value);
  const left = (sums: readonly Node[]): Phase =>
    graph.inScope("update", () => ({
      assignments: leave(parts, pending, sums),
      outputs: estimate.finish(sums).outputs,
    }));
  const whole = [apply, ...phases];
  const back = restored === undefined ? [] : trainables.map(restored);
  if (accumulate === 1) {
    const { assignments, outputs } = left(values);
    const last = { assignments: [...back, ...assignments], outputs: { loss, ...outputs } };
    return [{ ...common, name: name("train"), visits: true, phases: [...whole, last] }, flush];
  }
  const sums = linear.map((one) => leaf(graph, { name: one.name, role: "accumulator", shape: [], dtype: "f32" }));
  const added = sums.map((target, index) => ({ target, value: add(must(values[index], "term"), target) }));
  const last = { assignments: [...back, ...added, nothing], outputs: { loss } };
  return [
    { ...common, name: name("accumulate"), visits: true, phases: [...whole, last] },
    { ...common, name: name("apply"), phases: [left(sums)] },
    flush,
  ];
}

/** The assignments of the update that is pending; without one, everything stays as it is to the bit. */
function applied({ graph, estimate, scalars, updates }: DeferredParts, pending: Pending): Assignment[] {
  return graph.inScope("update", () => {
    const finished = estimate.finish(pending.sums, pending.scalars.step);
    const held = (tensor: TrainableLeaf): { target: Node; value: Node } => {
      const node = leaf(graph, { ...leafAttributes(tensor.node), version: 0 });
      return { target: node, value: node };
    };
    const { assignments } = updates(finished, held, { ...scalars, ...pending.scalars });
    return assignments.map(({ target, value }) => ({ target, value: either(pending.is, value, target) }));
  });
}

/** `made` where the condition holds, else `kept`, both of one stored type. */
function either(condition: Node, made: Node, kept: Node): Node {
  const wide = made.dtype === "u8" ? "u32" : made.dtype === "bf16" || made.dtype === "f16" ? "f32" : made.dtype;
  return cast(select(condition, cast(made, wide), cast(kept, wide)), made.dtype);
}

const largest = 3.4e38;

/** What a step leaves for the next one. */
function leave({ scalars, rules }: DeferredParts, pending: Pending, sums: readonly Node[]): Assignment[] {
  const finite = sums.map((value) => lessEqual(absolute(value), largest)).reduce(and);
  const corrections = (["correction1", "correction2"] as const).filter((name) => rules.includes(name));
  return [
    { target: pending.mark, value: add(scalars.step, constant(scalars.step.graph, 1, [], "u32")) },
    { target: pending.scalars.rate, value: select(finite, scalars.rate, 0) },
    ...corrections.map((name) => ({ target: pending.scalars[name], value: select(finite, scalars[name], 1) })),
    ...sums.map((value, index) => ({ target: must(pending.sums[index], "sum"), value: select(finite, value, 0) })),
  ];
}
