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

/**
 * A step's programs with the optimizer states of all blocks, where these keep their own: found by building the step in
 * which all of them train. A session that is planned again has its layout, and knows them.
 */
export function statesOfBlocks(
  options: SessionOptions,
  training: TrainingPrograms,
  build: (all: { readonly active: readonly number[] }) => TrainingPrograms,
): TrainingPrograms {
  const { active, layout, definition } = options;
  if (active === undefined || layout !== undefined || !keepsByBlock(options)) return training;
  const all = build({ active: Array.from({ length: definition.blocks }, (_, block) => block) });
  const leaves = all.programs.flatMap(nodesOf).filter((node) => node.op === leafOp);
  const counts = leaf(new Graph(), { name: countsName, role: "state", shape: [definition.blocks], dtype: "i32" });
  return {
    ...training,
    states: [counts, ...leaves.filter((node) => leafAttributes(node).role === "state")],
    copies: all.copies,
  };
}
