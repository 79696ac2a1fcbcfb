import type { Node } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import type { FormedProgram } from "../passes/pipeline.js";
import type { SavedPolicy } from "../passes/saved.js";
import type { Rates } from "../plan/predict.js";
import { programSeconds } from "../plan/predict.js";
import { sum } from "../plan/sum.js";
import { drawnBatches } from "./draw.js";
import type { FormedSession } from "./form.js";
import type { SessionOptions } from "./types.js";

/** Keeping more must save at least this share of the time. */
const worthwhile = 0.02;

/** Where the session leaves it to us: keep all that backward reads if that is clearly faster, else what is dear. */
export function fastestPolicy(formed: FormedSession, program: FormedProgram, rates: Rates): SavedPolicy {
  const { saved } = formed.options;
  if (saved !== "fastest") return saved;
  if (program.program.loss === undefined) return "cheap";
  const [all, cheap] = (["all", "cheap"] as const).map((policy) =>
    programSeconds(formed.schedule(program, policy), rates),
  );
  return (all ?? 0) < (cheap ?? 0) * (1 - worthwhile) ? "all" : "cheap";
}

/** Everything that the host reads of a program. */
export function outputsOf(program: Program): Record<string, Node> {
  return program.phases.reduce<Record<string, Node>>((all, phase) => ({ ...all, ...phase.outputs }), {});
}

/** Seconds of an ordinary optimizer step, and of the choice of its rows, from those of one run of each program. */
export function stepSeconds(options: SessionOptions, programs: ReadonlyMap<string, number>): number {
  const { accumulate, split = 1, batch, methods } = options;
  const choice = Object.entries(methods?.examples?.runs(batch) ?? {});
  const runs = {
    train: 1,
    accumulate: accumulate * split,
    apply: 1,
    ...Object.fromEntries(choice.map(([name, count]) => [name, count * split * drawnBatches(options)])),
  };
  return sum(Object.entries(runs), ([name, count]) => (programs.get(name) ?? 0) * count);
}
