import type { Node } from "../../ir/node.js";
import type { ForwardValues, SavedValues } from "../../passes/saved.js";
import type { Rates } from "../predict.js";
import type { Kept, ValueGroup } from "./groups.js";
import { dropLadder, groupValues } from "./groups.js";
import { checkpointLevels } from "./levels.js";
import type { Division, Stages } from "./stages.js";
import { findStages } from "./stages.js";

/** What can be chosen about the saved values of one program. */
export interface Choices {
  readonly values: ForwardValues;
  readonly stages: Stages;
  readonly groups: readonly ValueGroup[];
  /** Sets of kept groups, from all to none. */
  readonly ladder: readonly Kept[];
}

/** One way to choose. */
export interface Choice {
  /** By block: the set of the ladder that it keeps. */
  readonly rungs: readonly number[];
  /** Single values for which it is the other way round: number of the group + number of groups * block. */
  readonly toggled?: readonly number[];
  /** Fewer values than one a stage are kept between the stages. */
  readonly sparse?: Sparse;
}

export interface Sparse {
  readonly division: Division;
  readonly slots: number;
  readonly repeats: number;
}

export function findChoices(values: ForwardValues, rates: Rates): Choices {
  const stages = findStages(values);
  const groups = groupValues(stages.blocks, values);
  return { values, stages, groups, ladder: dropLadder(groups, values, rates) };
}

/** Whether a choice keeps the value of a group (by number) in a block. */
export function isKept({ groups, ladder }: Choices, { rungs, toggled }: Choice, group: number, block: number): boolean {
  const one = groups[group];
  const kept = one !== undefined && ladder[rungs[block] ?? 0]?.has(one) === true;
  return toggled?.includes(group + groups.length * block) === true ? !kept : kept;
}

/** The values that a choice makes again. */
export function savedValues(choices: Choices, choice: Choice): SavedValues {
  const { values, stages, groups } = choices;
  const { sparse } = choice;
  const recomputed = new Set<Node>();
  groups.forEach((group, index) => {
    group.nodes.forEach((node, block) => {
      if (node !== undefined && !isKept(choices, choice, index, block)) recomputed.add(node);
    });
  });
  if (sparse === undefined) return { recomputed: without(recomputed, values.atLoss) };
  const { stageOf, inputs } = stages.division[sparse.division];
  const levels = new Map<Node, number>();
  checkpointLevels(inputs.length, sparse.slots, sparse.repeats).forEach((level, stage) => {
    for (const node of inputs[stage] ?? []) {
      // A value that an earlier stage starts from too is as early as that.
      const known = levels.get(node);
      levels.set(node, known === undefined ? level : Math.min(known, level));
    }
  });
  for (const [node, level] of levels) {
    if (level > 0) recomputed.add(node);
    else recomputed.delete(node);
  }
  return { recomputed: without(recomputed, values.atLoss), stages: stageOf, levels };
}

function without(nodes: Set<Node>, others: ReadonlySet<Node>): Set<Node> {
  for (const node of others) nodes.delete(node);
  return nodes;
}
