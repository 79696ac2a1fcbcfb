import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { absolute, add, cast, less, multiply, select, subtract } from "../../ops/arithmetic.js";
import { concatenate } from "../../ops/concatenate.js";
import { scatterWrite } from "../../ops/gather.js";
import { reshape, slice } from "../../ops/layout.js";
import { constant, iota } from "../../ops/leaves.js";
import { reduceMean } from "../../ops/reduce.js";
import { topK } from "../../ops/top-k.js";
import type { AdapterTensor, CollectContext, Collected } from "../types.js";
import type { AdaloraTarget } from "./config.js";

/** The kind of steps in which triplets are chosen. */
export const choosing = "allocate";

/**
 * What follows the update of a step (Zhang et al. 2023, equations 8 to 10): every trained value's importance goes on
 * with the new value and its gradient, and of triplets that are masked Λ becomes 0. In a choosing step those are all
 * but the `budget` most important; of equal ones the first is kept.
 */
export function collectImportance(context: CollectContext, targets: readonly AdaloraTarget[]): Collected {
  const states = new Map<string, Node>();
  const scores = targets.map((target) => {
    const [q, p, lambda] = [target.a, target.b, target.lambda].map((tensor) => importanceOf(context, tensor, states));
    const ofVectors = add(
      reshape(reduceMean(must(q, "Q"), [1]), [target.rank]),
      reshape(reduceMean(must(p, "P"), [0]), [target.rank]),
    );
    return add(ofVectors, reshape(must(lambda, "lambda"), [target.rank]));
  });
  const masks = context.variant === choosing ? keepBest(context, scores) : undefined;
  const values = new Map<string, Node>();
  targets.forEach(({ lambda, rank }, layer) => {
    const { after } = must(context.tensors.get(lambda.name), lambda.name);
    const name = `${lambda.name}.masked`;
    const before = context.state(name, [rank, 1]);
    const chosen = masks?.[layer];
    // Between two choices masked values may grow again, until the last choice is held.
    const masked = chosen ?? multiply(before, context.scalar("holds"));
    values.set(lambda.name, select(less(0, masked), 0, after));
    if (chosen !== undefined) states.set(name, chosen);
  });
  return { values, states };
}

/** Sensitivity times uncertainty of each value of a tensor; both averages go on where the step's decays are not 0. */
function importanceOf(context: CollectContext, { name, shape }: AdapterTensor, states: Map<string, Node>): Node {
  const { gradient, after } = must(context.tensors.get(name), name);
  const towards = (state: string, value: Node, gain: Node): Node => {
    const before = context.state(`${name}.${state}`, shape);
    const next = add(before, multiply(subtract(value, before), gain));
    states.set(`${name}.${state}`, next);
    return next;
  };
  const now = absolute(multiply(after, gradient));
  const sensitivity = towards("sensitivity", now, context.scalar("gain1"));
  const uncertainty = towards("uncertainty", absolute(subtract(now, sensitivity)), context.scalar("gain2"));
  return multiply(sensitivity, uncertainty);
}

/** By layer, [r, 1] each: 0 for the best of all scores, as many as the budget, and 1 for the others. */
function keepBest(context: CollectContext, scores: readonly Node[]): Node[] {
  const { graph } = context;
  const line = concatenate(scores);
  const count = must(line.shape[0], "triplets");
  const { places } = topK(line, { count, by: "largest", order: "rank" });
  const rank = cast(iota(graph, [count, 1], 0), "f32");
  const losing = select(less(rank, context.scalar("budget")), constant(graph, 0, [count, 1]), 1);
  const masked = scatterWrite(constant(graph, 0, [count, 1]), places, losing);
  let start = 0;
  return scores.map(({ shape }) => {
    const rows = must(shape[0], "rank");
    const own = slice(masked, [start, 0], [rows, 1]);
    start += rows;
    return own;
  });
}
