import type { Node } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import type { PassOptions } from "../passes/pipeline.js";
import type { PersistentLayout, ProgramPlan } from "../plan/plan.js";
import { planProgram } from "../plan/plan.js";
import type { Rates } from "../plan/predict.js";
import { defaultRates, programSeconds } from "../plan/predict.js";
import type { MemoryReport } from "../plan/report.js";
import { reportPrograms } from "../plan/report.js";
import type { TrainingPrograms } from "../step/build.js";
import type { BuiltProgram } from "../step/programs.js";
import type { FormedSession } from "./form.js";
import { fastestPolicy, outputsOf, stepSeconds } from "./predict.js";
import type { SessionOptions } from "./types.js";

/** A session as far as it can be known without weights or a machine: its programs and where everything lies. */
export interface SessionPlan {
  readonly options: SessionOptions;
  readonly training: TrainingPrograms | undefined;
  readonly programs: readonly Program[];
  readonly plans: readonly ProgramPlan[];
  /** The methods' own programs, by name. */
  readonly own: readonly BuiltProgram[];
  /** What was decided about the saved values of each program. */
  readonly saved: ReadonlyMap<string, PassOptions["saved"]>;
  readonly layout: PersistentLayout;
  /** Leaves by name, from whichever program has them. */
  readonly leaves: ReadonlyMap<string, Node>;
  readonly report: MemoryReport;
}

/** The rates that predictions go by. */
export function ratesOf({ rates, threads }: SessionOptions): Rates {
  return rates ?? defaultRates(threads);
}

/**
 * Plans a session whose saved values are decided: by program, or by the session's policy. A session that is planned
 * again, after `before`, keeps what was decided and the programs that are not its steps, in memory that is there.
 */
export function finishSession(
  formed: FormedSession,
  decided: ReadonlyMap<string, PassOptions["saved"]> = new Map(),
  before?: SessionPlan,
): SessionPlan {
  const { options, training, own, programs, layout, leaves, facts } = formed;
  const rates = ratesOf(options);
  const seconds = new Map<string, number>();
  const policies = new Map([...(before?.saved ?? []), ...decided]);
  const enough = before === undefined ? 0 : before.report.planBytes - layout.bytes;
  const planned = programs.map((one) => {
    const { program } = one;
    const saved = policies.get(program.name) ?? fastestPolicy(formed, one, rates);
    policies.set(program.name, saved);
    const schedule = formed.schedule(one, saved);
    if (before === undefined) seconds.set(program.name, programSeconds(schedule, rates));
    return planProgram(program.name, schedule, outputsOf(program), program.gradients, layout, facts, enough);
  });
  const isKept = ({ name }: { readonly name: string }): boolean => planned.every((plan) => plan.name !== name);
  const plans = [...planned, ...(before?.plans.filter(isKept) ?? [])];
  const report = reportPrograms(plans, layout, training?.notes ?? []);
  return {
    options,
    training,
    programs: [...programs.map(({ program }) => program), ...(before?.programs.filter(isKept) ?? [])],
    plans,
    own,
    saved: policies,
    layout,
    leaves,
    report: { ...report, stepSeconds: stepSeconds(options, seconds) },
  };
}
