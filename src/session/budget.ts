import { ThimbleError } from "../errors.js";
import type { FormedProgram } from "../passes/pipeline.js";
import type { SavedValues } from "../passes/saved.js";
import { forwardValues } from "../passes/saved.js";
import type { Choices } from "../plan/budget/choice.js";
import { findChoices, savedValues } from "../plan/budget/choice.js";
import type { Decision } from "../plan/budget/describe.js";
import { describeChoice } from "../plan/budget/describe.js";
import type { Found } from "../plan/budget/search.js";
import { ChoiceSearch } from "../plan/budget/search.js";
import type { TargetFacts } from "../plan/plan.js";
import { liveExtent } from "../plan/plan.js";
import { programSeconds } from "../plan/predict.js";
import { isOrdinary } from "../step/build.js";
import type { FormedSession } from "./form.js";
import { formSession } from "./form.js";
import type { Lever } from "./lever.js";
import { leversOf } from "./levers.js";
import type { SessionPlan } from "./finish.js";
import { finishSession, ratesOf } from "./finish.js";
import { outputsOf } from "./predict.js";
import type { MemoryBudget, SessionOptions } from "./types.js";

/** The saved values of each program that backpropagates, one search each. */
interface ProgramSearch {
  readonly program: FormedProgram;
  readonly choices: Choices;
  readonly search: ChoiceSearch;
}

/** A session with some levers pulled, and what can still be chosen in it. */
class Variant {
  private readonly formed: FormedSession;
  private readonly searches: readonly ProgramSearch[];
  private readonly undecided: SessionPlan;
  /** The plan without any choice made. */
  readonly plain: SessionPlan;

  constructor(
    options: SessionOptions,
    facts: TargetFacts,
    private readonly levers: readonly Lever[],
    private readonly base?: SessionPlan,
  ) {
    this.formed = formSession(options, facts);
    this.undecided = finishSession(this.formed);
    this.plain = this.withDecisions(this.undecided, []);
    this.searches = this.formed.programs.flatMap((program) => {
      const found = this.search(program);
      return found === undefined ? [] : [found];
    });
  }

  private search(one: FormedProgram): ProgramSearch | undefined {
    const { program, kernels } = one;
    const values = forwardValues(program, kernels);
    if (values === undefined) return undefined;
    const { options, layout, facts } = this.formed;
    const rates = ratesOf(options);
    const choices = findChoices(values, rates);
    if (choices.stages.blocks.length === 0) return undefined;
    const outputs = outputsOf(program);
    const measure = (saved: SavedValues): { bytes: number; seconds: number } => {
      const schedule = this.formed.schedule(one, saved);
      const bytes = liveExtent(schedule, outputs, program.gradients, layout, facts);
      return { bytes, seconds: programSeconds(schedule, rates) };
    };
    return { program: one, choices, search: new ChoiceSearch(choices, measure, effortFor(kernels.length)) };
  }

  /** The fastest plan found that takes at most so many bytes. */
  fastest(limit: number, sparse: boolean): SessionPlan | undefined {
    if (this.plain.report.planBytes <= limit) return this.plain;
    const { layout } = this.formed;
    // The search counts live bytes; where their places leave gaps, it is asked for so much less.
    let room = limit - layout.bytes;
    for (let attempt = 0; attempt < 8; attempt++) {
      const found = this.searches.map(({ search }) => search.fastest(room, sparse));
      if (found.length === 0 || found.some((one) => one === undefined)) return undefined;
      const plan = this.finish(found.flatMap((one) => one ?? []));
      const over = plan.report.planBytes - limit;
      if (over <= 0) return plan;
      // What no choice changes, such as an evaluation, may be what is too large.
      if (!this.searches.some(({ program }) => isLargest(plan, program.program.name))) return undefined;
      const most = Math.max(...found.map((one) => one?.bytes ?? 0));
      room = Math.min(room, most) - over;
    }
    return undefined;
  }

  /** The smallest plan found. */
  smallest(): SessionPlan {
    const plan = this.finish(this.searches.map(({ search }) => search.smallest()));
    return plan.report.planBytes < this.plain.report.planBytes ? plan : this.plain;
  }

  private finish(found: readonly Found[]): SessionPlan {
    const decided = new Map(
      this.searches.map(({ program, choices }, index) => [
        program.program.name,
        savedValues(choices, found[index]?.choice ?? { rungs: [] }),
      ]),
    );
    const plan = finishSession(this.formed, decided);
    const rates = ratesOf(this.formed.options);
    const decisions = this.searches.flatMap(({ program, choices }, index) => {
      const choice = found[index]?.choice;
      const saved = decided.get(program.program.name);
      if (choice === undefined || saved === undefined || !isOrdinary(program.program.name)) return [];
      return describeChoice(choices, choice, this.formed.schedule(program, saved), rates);
    });
    return this.withDecisions(plan, decisions);
  }

  private withDecisions(plan: SessionPlan, decisions: readonly Decision[]): SessionPlan {
    const { accumulate, split = 1 } = plan.options;
    const runs = accumulate * split;
    const perStep = decisions.map((one) => ({ ...one, seconds: one.seconds * runs }));
    return { ...plan, report: { ...plan.report, decisions: [...this.pulled(), ...perStep] } };
  }

  /** What the levers together save and cost, beside what is recomputed. */
  private pulled(): Decision[] {
    const { base } = this;
    if (base === undefined) return [];
    const { planBytes, stepSeconds } = this.undecided.report;
    return [
      {
        what: this.levers.map(({ what }) => what).join(", "),
        savedBytes: base.report.planBytes - planBytes,
        seconds: stepSeconds - base.report.stepSeconds,
        exact: this.levers.every(({ exact }) => exact),
      },
    ];
  }
}

/** Small programs are searched more thoroughly: a plan takes time in proportion to its kernels. */
function effortFor(kernels: number): number {
  return Math.max(20, Math.floor(25_000 / kernels));
}

function isLargest({ report: { programs } }: SessionPlan, name: string): boolean {
  const own = programs.find((program) => program.name === name)?.planBytes ?? 0;
  return programs.every(({ planBytes }) => planBytes <= own);
}

/** So many ways to pull levers are searched even if one is found to fit. */
const eager = 3;

/** `min` is the fastest plan that is at most so much larger than the smallest: the last bytes are the dearest by far. */
const minimumRoom = 1.05;

/** The plan of least predicted time that keeps to the budget; refuses a budget that no plan found keeps to. */
export function planWithin(options: SessionOptions, budget: MemoryBudget, facts: TargetFacts): SessionPlan {
  const variants = new Variants(options, budget, facts);
  const limit =
    budget.bytes === "min" ? variants.smallest().report.planBytes * minimumRoom : budget.bytes - budget.overheadBytes;
  const found = variants.fastest(limit);
  if (found !== undefined) return found;
  const smallest = variants.smallest();
  if (smallest.report.planBytes <= limit) return smallest;
  throw tooSmall(budget, smallest);
}

/** All ways to pull levers, each built when it is first asked for. */
class Variants {
  private readonly made = new Map<number, Variant>();
  private least: SessionPlan | undefined;
  private readonly levers: readonly (readonly Lever[])[];

  constructor(
    private readonly options: SessionOptions,
    budget: MemoryBudget,
    private readonly facts: TargetFacts,
  ) {
    const plain = new Variant(options, facts, []);
    this.made.set(0, plain);
    this.levers = leversOf(options, plain.plain, budget.allowLossy);
  }

  private at(index: number): Variant {
    const known = this.made.get(index);
    if (known !== undefined) return known;
    const levers = this.levers[index] ?? [];
    const options = levers.reduce((changed, lever) => lever.apply(changed), this.options);
    const variant = new Variant(options, this.facts, levers, this.made.get(0)?.plain);
    this.made.set(index, variant);
    return variant;
  }

  fastest(limit: number): SessionPlan | undefined {
    return this.fastestOf(limit, false) ?? this.fastestOf(limit, true);
  }

  private fastestOf(limit: number, sparse: boolean): SessionPlan | undefined {
    let best: SessionPlan | undefined;
    for (let index = 0; index < this.levers.length; index++) {
      if (best !== undefined && index >= eager) break;
      const plan = this.at(index).fastest(limit, sparse);
      if (plan === undefined) continue;
      if (best === undefined || plan.report.stepSeconds < best.report.stepSeconds) best = plan;
      if (plan === this.at(0).plain) break;
    }
    return best;
  }

  smallest(): SessionPlan {
    this.least ??= this.levers
      .map((_, index) => this.at(index).smallest())
      .reduce((best, plan) => (plan.report.planBytes < best.report.planBytes ? plan : best));
    return this.least;
  }
}

function tooSmall({ bytes, overheadBytes }: MemoryBudget, smallest: SessionPlan): ThimbleError {
  const { planBytes, programs } = smallest.report;
  const least = planBytes + overheadBytes;
  const [first, ...rest] = programs;
  const largest = rest.reduce((best, one) => ((best?.planBytes ?? 0) >= one.planBytes ? best : one), first);
  const standing = largest?.peak.largest.slice(0, 5).map((one) => `${one.name} (${mebibytes(one.bytes)})`) ?? [];
  return new ThimbleError("budget-too-small", "No plan of this run keeps to the memory budget", {
    given: `${String(bytes)} bytes, of which ${overheadBytes} are for what the process takes beside the plan`,
    expected: `at least ${least} bytes (${mebibytes(least)})`,
    where: `at the peak, ${largest?.peak.label ?? "a program"}: ${standing.join(", ")}`,
    fix: `Use --memory-budget ${least} or more, shorter rows, a smaller batch, or a method that needs less.`,
    facts: { smallestBudget: least, smallestPlan: planBytes },
  });
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
