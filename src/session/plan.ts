import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { nodesOf } from "../ir/program.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { compileProgram } from "../passes/pipeline.js";
import type { PersistentLayout, ProgramPlan, TargetFacts } from "../plan/plan.js";
import { layOutLeaves, planProgram } from "../plan/plan.js";
import type { MemoryReport } from "../plan/report.js";
import { reportPrograms } from "../plan/report.js";
import type { TrainingPrograms } from "../step/build.js";
import { buildEvaluation, buildTraining } from "../step/build.js";
import { buildDecode } from "../step/decode.js";
import type { SessionOptions } from "./types.js";

/** A session as far as it can be known without weights or a machine: its programs and where everything lies. */
export interface SessionPlan {
  readonly options: SessionOptions;
  readonly training: TrainingPrograms | undefined;
  readonly programs: readonly Program[];
  readonly plans: readonly ProgramPlan[];
  readonly layout: PersistentLayout;
  /** Leaves by name, from whichever program has them. */
  readonly leaves: ReadonlyMap<string, Node>;
  readonly report: MemoryReport;
}

/** Builds, compiles and plans all programs of a session; reads no tensor data. */
export function planSession(options: SessionOptions, facts: TargetFacts): SessionPlan {
  const { optimizer, clip, accumulate, segments, batch, length, definition, methods, storedFormat } = options;
  const forward = { definition, methods, batch, length, activation: options.dtype, storedFormat };
  const training =
    methods === undefined || !options.train
      ? undefined
      : buildTraining({ ...forward, optimizer, clip, accumulate, segments });
  const sources = [...(training?.programs ?? [])];
  if (options.evaluate) sources.push(buildEvaluation({ ...forward, segments }));
  for (const tokens of decodeLengths(options.decode)) {
    sources.push(buildDecode({ ...forward, tokens, capacity: must(options.decode, "decoding").capacity }));
  }
  const compiled = sources.map((program) => compileProgram(program, { saved: options.saved, target: facts }));
  const leaves = new Map<string, Node>();
  for (const { program } of compiled) for (const leaf of nodesOf(program)) addLeaf(leaves, leaf);
  const layout = layOutLeaves(leaves.values(), facts.alignment, facts.limits);
  const plans = compiled.map(({ program, schedule }) => {
    const outputs = program.phases.reduce<Record<string, Node>>((all, phase) => ({ ...all, ...phase.outputs }), {});
    return planProgram(program.name, schedule, outputs, program.gradients, layout, facts);
  });
  const report = reportPrograms(plans, layout, training?.notes ?? []);
  return { options, training, programs: compiled.map(({ program }) => program), plans, layout, leaves, report };
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
