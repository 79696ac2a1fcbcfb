import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { Graph } from "../ir/node.js";
import { nodesOf } from "../ir/program.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import type { FormedProgram, PassOptions } from "../passes/pipeline.js";
import { formKernels, orderKernels } from "../passes/pipeline.js";
import { streamFromDisk } from "../passes/place.js";
import type { Schedule } from "../passes/schedule.js";
import { assignments } from "../passes/schedule.js";
import { memoFacts } from "../plan/memo-facts.js";
import type { PersistentLayout, TargetFacts, Tier } from "../plan/plan.js";
import { layOutLeaves } from "../plan/plan.js";
import type { TrainingPrograms } from "../step/build.js";
import { buildEvaluation, buildTraining } from "../step/build.js";
import { buildDecode } from "../step/decode.js";
import type { BuiltProgram } from "../step/programs.js";
import { buildPrograms, stateLeaf } from "../step/programs.js";
import { leavesOnDisk, placeOptions } from "./place.js";
import { statesOfBlocks } from "./block-states.js";
import type { SessionOptions } from "./types.js";

/** A session's programs as kernels, and where what outlives them lies; what is recomputed is still open. */
export interface FormedSession {
  readonly options: SessionOptions;
  readonly facts: TargetFacts;
  readonly training: TrainingPrograms | undefined;
  /** The methods' own programs, which are among `programs` too. */
  readonly own: readonly BuiltProgram[];
  readonly programs: readonly FormedProgram[];
  /** Leaves by name, from whichever program has them. */
  readonly leaves: ReadonlyMap<string, Node>;
  readonly layout: PersistentLayout;
  /** The order of a program's kernels with a decision on its saved values. */
  schedule(program: FormedProgram, saved: PassOptions["saved"]): Schedule;
}

/**
 * Builds all programs of a session and divides them into kernels; of one that was planned `before`, with other blocks in
 * turn, its steps alone.
 */
export function formSession(
  options: SessionOptions,
  targetFacts: TargetFacts,
  before?: Pick<FormedSession, "own" | "leaves">,
): FormedSession {
  const facts = memoFacts(targetFacts);
  const { optimizer, clip, segments, length, definition, methods, storedFormat, active, split = 1 } = options;
  const batch = options.batch / split;
  const turns = active === undefined ? {} : { active };
  const forward = { definition, methods, batch, length, activation: options.dtype, storedFormat };
  const accumulate = options.accumulate * split;
  const build = (more: { readonly active?: readonly number[] }): TrainingPrograms =>
    buildTraining({ ...forward, optimizer, clip, accumulate, segments, ...more });
  const training = methods === undefined || !options.train ? undefined : statesOfBlocks(options, build(turns), build);
  const own = before?.own ?? (training === undefined ? [] : buildPrograms({ ...forward, segments }));
  const sources = [...(training?.programs ?? []), ...(before === undefined ? own : []).map(({ program }) => program)];
  if (options.evaluate && before === undefined) sources.push(buildEvaluation({ ...forward, segments }));
  for (const tokens of before === undefined ? decodeLengths(options.decode) : []) {
    const capacity = must(options.decode, "decoding").capacity + (methods?.prefix ?? 0);
    sources.push(buildDecode({ ...forward, tokens, capacity }));
  }
  const programs = sources.map((program) => formKernels(program, facts));
  const leaves = new Map(before?.leaves);
  for (const { program } of programs) for (const leaf of nodesOf(program)) addLeaf(leaves, leaf);
  const states = training === undefined ? [] : (methods?.states ?? []).map((state) => stateLeaf(new Graph(), state));
  // What methods hold fixed is there for every block, whether or not it is read while others have their turn.
  const fixed = training?.forward.fixed.values() ?? [];
  for (const leaf of [...(training?.states ?? []), ...states, ...fixed]) addLeaf(leaves, leaf);
  const onDisk = leavesOnDisk(
    options,
    programs.map(({ program }) => ({ steps: [], assigned: assignments(program) })),
  );
  const tierOf = (leaf: Node): Tier => (onDisk(leaf) ? "disk" : "device");
  return {
    options,
    facts,
    training,
    own,
    programs,
    leaves,
    layout: options.layout ?? layOutLeaves(leaves.values(), facts.alignment, facts.limits, tierOf),
    schedule: (program, saved) => streamFromDisk(orderKernels(program, saved), onDisk, placeOptions(options)),
  };
}

function addLeaf(leaves: Map<string, Node>, node: Node): void {
  if (node.op !== leafOp) return;
  const { name } = leafAttributes(node);
  if (!leaves.has(name)) leaves.set(name, node);
}

/** One token at a time, and prompts in chunks. */
function decodeLengths(decode: SessionOptions["decode"]): number[] {
  if (decode === undefined) return [];
  return decode.chunk > 1 ? [1, decode.chunk] : [1];
}
