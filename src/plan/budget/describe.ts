import type { Schedule } from "../../passes/schedule.js";
import type { Rates } from "../predict.js";
import { kernelSeconds } from "../predict.js";
import { sum } from "../sum.js";
import type { Choice, Choices } from "./choice.js";
import { isKept } from "./choice.js";
import { checkpointLevels } from "./levels.js";
import type { ValueGroup } from "./groups.js";
import { bytesOfNode } from "./stages.js";

/** One thing that a plan does to need less memory. */
export interface Decision {
  /** In words, as in `recompute gate_proj, up_proj of blocks 0-26`. */
  readonly what: string;
  /** Bytes of values that are not kept for it. */
  readonly savedBytes: number;
  /** Predicted seconds that it adds to a step. */
  readonly seconds: number;
  /** Whether the numbers of the run stay the same to the last bit. */
  readonly exact: boolean;
}

/** What a choice means, with the time of making values again shared out among its parts. */
export function describeChoice(choices: Choices, choice: Choice, schedule: Schedule, rates: Rates): Decision[] {
  const parts = [...recomputedGroups(choices, choice), ...sparseInputs(choices, choice)];
  const of = new Map(parts.flatMap((part, index) => [...part.nodes].map((node) => [node, index] as const)));
  const seconds = parts.map(() => 0);
  let unnamed = 0;
  for (const { kernel, again } of schedule.steps) {
    if (!again) continue;
    const index = kernel.outputs.map((output) => of.get(output)).find((one) => one !== undefined);
    if (index === undefined) unnamed += kernelSeconds(kernel, rates);
    else seconds[index] = (seconds[index] ?? 0) + kernelSeconds(kernel, rates);
  }
  const named = sum(seconds, (one) => one);
  return parts.map(({ what, nodes }, index) => ({
    what,
    savedBytes: sum(nodes, bytesOfNode),
    seconds: (seconds[index] ?? 0) * (named === 0 ? 1 : 1 + unnamed / named),
    exact: true,
  }));
}

interface Part {
  readonly what: string;
  readonly nodes: ReadonlySet<ReturnType<typeof nodesOf>[number]>;
}

/** Groups that backward would have kept, by the blocks in which it does not. */
function recomputedGroups(choices: Choices, choice: Choice): Part[] {
  const { groups, ladder, values } = choices;
  const byBlocks = new Map<string, { blocks: readonly number[]; together: ValueGroup[] }>();
  groups.forEach((group, index) => {
    if (ladder[0]?.has(group) !== true) return;
    const blocks = choice.rungs.flatMap((_, block) => (isKept(choices, choice, index, block) ? [] : [block]));
    if (blocks.length === 0) return;
    const words = ranges(blocks);
    const known = byBlocks.get(words);
    if (known === undefined) byBlocks.set(words, { blocks, together: [group] });
    else known.together.push(group);
  });
  return [...byBlocks].map(([words, { blocks, together }]) => ({
    what: `recompute ${together.map(({ name }) => name).join(", ")} of blocks ${words}`,
    nodes: new Set(together.flatMap((group) => nodesOf(group, blocks)).filter((node) => values.read.has(node))),
  }));
}

function nodesOf({ nodes }: ValueGroup, blocks: readonly number[]): NonNullable<ValueGroup["nodes"][number]>[] {
  return blocks.flatMap((block) => nodes[block] ?? []);
}

function sparseInputs({ stages }: Choices, { sparse }: Choice): Part[] {
  if (sparse === undefined) return [];
  const { inputs } = stages.division[sparse.division];
  const levels = checkpointLevels(inputs.length, sparse.slots, sparse.repeats);
  const made = levels.flatMap((level, stage) => (level > 0 ? (inputs[stage] ?? []) : []));
  const kept = levels.filter((level) => level === 0).length;
  const unit = sparse.division === "block" ? "blocks" : "parts of blocks";
  return [
    {
      what: `keep the inputs of ${kept} of ${inputs.length} ${unit}, make the others again from them`,
      nodes: new Set(made),
    },
  ];
}

/** `0-3, 7` of 0, 1, 2, 3, 7. */
function ranges(numbers: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const number of numbers) {
    const last = runs.at(-1);
    if (last?.[1] === number - 1) last[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([from, to]) => (from === to ? String(from) : `${from}-${to}`)).join(", ");
}
