import { Graph } from "../ir/node.js";
import { nodesOf } from "../ir/program.js";
import { leaf, leafAttributes, leafOp } from "../ops/leaves.js";
import type { TrainingPrograms } from "../step/build.js";
import type { SessionOptions } from "./types.js";

/** Whether blocks that take turns keep their own optimizer states. */
export function keepsByBlock({ methods }: SessionOptions): boolean {
  return methods?.turns?.states === "block";
}

/** The steps in which each block has trained, where blocks keep their own optimizer states: i32 [blocks]. */
export const countsName = "turns.steps";

/** Whether a state belongs to a turn, by its name. */
export function isStateOfTurn(name: string, turn = "\\d+"): boolean {
  return new RegExp(`(^|\\.)turn${turn}\\.`).test(name);
}

/**
 * A step's programs with the states that steps of other blocks have: what methods keep of them, and, where blocks keep
 * their own, the optimizer's. Found by building the step in which all blocks train. A session that is planned again has
 * its layout, and knows them.
 */
export function statesOfBlocks(
  options: SessionOptions,
  training: TrainingPrograms,
  build: (all: { readonly active: readonly number[] }) => TrainingPrograms,
): TrainingPrograms {
  const { active, layout, definition } = options;
  if (active === undefined || layout !== undefined) return training;
  const all = build({ active: Array.from({ length: definition.blocks }, (_, block) => block) });
  const states = all.programs.flatMap(nodesOf).filter((node) => {
    return node.op === leafOp && leafAttributes(node).role === "state" && !isStateOfTurn(leafAttributes(node).name);
  });
  if (!keepsByBlock(options)) return { ...training, states };
  const counts = leaf(new Graph(), { name: countsName, role: "state", shape: [definition.blocks], dtype: "i32" });
  return { ...training, states: [counts, ...states], copies: all.copies };
}
