import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { absolute, add, less, multiply, select, subtract } from "../../ops/arithmetic.js";
import { reshape } from "../../ops/layout.js";
import { reduceMean } from "../../ops/reduce.js";
import { maskAllBut } from "../ranking.js";
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
  const masks = context.variant === choosing ? maskAllBut(context.scalar("budget"), scores) : undefined;
  const values = new Map<string, Node>();
  targets.forEach(({ lambda, rank }, layer) => {
    // Without an update, Λ of a layer that does not train is what it was: only a choice can change it.
    const after = context.tensors.get(lambda.name)?.after ?? must(context.idle.get(lambda.name), lambda.name);
    if (masks === undefined && context.idle.has(lambda.name)) return;
    const name = `${lambda.name}.masked`;
    const before = context.state(name, [rank, 1]);
    const chosen = masks && reshape(must(masks[layer], "mask"), [rank, 1]);
    // Between two choices masked values may grow again, until the last choice is held.
    const masked = chosen ?? multiply(before, context.scalar("holds"));
    values.set(lambda.name, select(less(0, masked), 0, after));
    if (chosen !== undefined) states.set(name, chosen);
  });
  return { values, states };
}

/**
 * Sensitivity times uncertainty of each value of a tensor; both averages go on where the step's decays are not 0, and the
 * tensor trains in the step.
 */
function importanceOf(context: CollectContext, { name, shape }: AdapterTensor, states: Map<string, Node>): Node {
  const updated = context.tensors.get(name);
  if (updated === undefined) {
    return multiply(context.state(`${name}.sensitivity`, shape), context.state(`${name}.uncertainty`, shape));
  }
  const { gradient, after } = updated;
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
