import type { RunConfig } from "../../config/schema.js";
import { drawnBatches } from "../../session/draw.js";
import { openSession, planOnly } from "../../session/open.js";
import type { SessionPlan } from "../../session/plan.js";
import { median } from "../../train/measure.js";
import type { PrepareOptions, TrainRun } from "../../train/prepare.js";
import { prepareRun } from "../../train/prepare.js";
import { setAdapter } from "../../train/run-methods.js";
import { must, ThimbleError } from "../../errors.js";
import type { KernelGroup } from "./groups.js";
import { groupOf, roofOf } from "./groups.js";
import type { MachineLimits } from "./limits.js";
import { measureLimits } from "./limits.js";
import { explainPlan } from "./run.js";

/** Time of one kernel, or of several, in a step, all runs together. */
export interface TimeShare {
  readonly runs: number;
  readonly seconds: number;
  /** Of the step's time. */
  readonly share: number;
  readonly operationsPerSecond: number;
  readonly bytesPerSecond: number;
  /**
   * The least time that the machine's limits allow over the time it took (see `roofOf`). More than 1 where values that
   * count as memory traffic lay in a cache.
   */
  readonly ofLimit: number;
}

export interface KernelProfile extends TimeShare {
  readonly kernel: string;
  /** What it does, by the first step that runs it. */
  readonly label: string;
  readonly group: KernelGroup;
  /** What holds most of its runs' least time. */
  readonly limit: "arithmetic" | "memory";
}

export interface GroupProfile extends TimeShare {
  readonly group: KernelGroup;
}

export interface Profile {
  readonly steps: number;
  /** Medians over the steps: of the whole step, and of the kernels together. */
  readonly stepSeconds: number;
  readonly kernelSeconds: number;
  /** What the machine can do, measured before the steps. */
  readonly limits: MachineLimits;
  readonly kernels: readonly KernelProfile[];
  /** The kernels summed up by kind, and all of them. */
  readonly groups: readonly GroupProfile[];
  readonly total: TimeShare;
}

export interface ProfileOptions extends PrepareOptions {
  readonly steps: number;
  readonly onStep?: (step: number, seconds: number) => void;
}

/** Runs some steps of a run with every kernel timed; nothing is written. The first step is not counted. */
export async function profileRun(config: RunConfig, options: ProfileOptions): Promise<Profile> {
  const run = await prepareRun(config, options);
  try {
    if (run.options.target !== "c") {
      throw new ThimbleError("profile-target", "Only compiled kernels are timed one by one", {
        given: `--target ${run.options.target}`,
        expected: "--target c",
      });
    }
    return await measure(run, planOnly(run.options), options);
  } finally {
    await run.close();
  }
}

async function measure(run: TrainRun, plan: SessionPlan, { steps, onStep }: ProfileOptions): Promise<Profile> {
  const limits = await measureLimits(run.options.threads);
  const session = await openSession(plan, { timed: true });
  try {
    await session.load(run.weights);
    if (run.methods.adapter !== undefined) setAdapter(session, run.methods.adapter);
    const names = plan.plans.map(({ name }) => name).filter((name) => ["train", "accumulate", "apply"].includes(name));
    const measured: Measured[] = [];
    const { accumulate } = run.options;
    const drawn = drawnBatches(run.options);
    const sources = run.sources === undefined ? {} : { sources: run.sources };
    for (let step = 0; step <= steps; step++) {
      const batches = Array.from({ length: drawn }, (_, at) => run.batches.batch(step * drawn + at));
      const { seconds } = await session.step(batches, { rate: run.rate * run.factor(step), step, ...sources });
      onStep?.(step, seconds);
      if (step > 0) measured.push({ seconds, times: names.map((name) => session.times(name)) });
    }
    return summarise(limits, sumUp(plan, limits, names, measured, accumulate), measured);
  } finally {
    session.close();
  }
}

interface Measured {
  readonly seconds: number;
  /** Of each program, of each of its entries. */
  readonly times: readonly (readonly number[])[];
}

/** What all runs of a kernel come to in a step. */
interface Sums {
  readonly kernel: string;
  readonly label: string;
  readonly group: KernelGroup;
  runs: number;
  seconds: number;
  operations: number;
  bytes: number;
  /** Least seconds by either limit. */
  readonly roof: { arithmetic: number; memory: number };
}

function sumUp(
  plan: SessionPlan,
  limits: MachineLimits,
  names: readonly string[],
  measured: readonly Measured[],
  accumulate: number,
): Sums[] {
  const { programs } = explainPlan(plan);
  const sums = new Map<string, Sums>();
  names.forEach((name, program) => {
    const runs = name === "accumulate" ? accumulate : 1;
    const planned = must(
      plan.plans.find((one) => one.name === name),
      "plan",
    ).steps;
    let entry = 0;
    programs
      .find((one) => one.name === name)
      ?.steps.forEach((step, place) => {
        // A step is its kernel, then the copies of outputs into their places.
        const entries = 1 + step.copies;
        const times = measured.map((one) => sumOf((one.times[program] ?? []).slice(entry, entry + entries)));
        entry += entries;
        const { kernel } = must(planned[place], "step").step;
        const known = sums.get(step.kernel) ?? emptySums(step.kernel, step.label, groupOf(kernel));
        const roof = roofOf(kernel, limits);
        known.runs += runs;
        known.seconds += runs * median(times);
        known.operations += runs * step.operations;
        known.bytes += runs * step.bytesMoved;
        known.roof[roof.limit] += runs * roof.seconds;
        sums.set(step.kernel, known);
      });
  });
  return [...sums.values()];
}

function emptySums(kernel: string, label: string, group: KernelGroup): Sums {
  return { kernel, label, group, runs: 0, seconds: 0, operations: 0, bytes: 0, roof: { arithmetic: 0, memory: 0 } };
}

function summarise(limits: MachineLimits, sums: readonly Sums[], measured: readonly Measured[]): Profile {
  const stepSeconds = median(measured.map(({ seconds }) => seconds));
  const shareOf = (some: readonly Sums[]): TimeShare => timeShare(some, stepSeconds);
  const kernels = sums.map((one): KernelProfile => {
    const { kernel, label, group, roof } = one;
    const limit = roof.arithmetic > roof.memory ? "arithmetic" : "memory";
    return { kernel, label, group, limit, ...shareOf([one]) };
  });
  const groups = [...new Set(sums.map(({ group }) => group))].map((group) => ({
    group,
    ...shareOf(sums.filter((one) => one.group === group)),
  }));
  const bySeconds = (a: TimeShare, b: TimeShare): number => b.seconds - a.seconds;
  return {
    steps: measured.length,
    stepSeconds,
    kernelSeconds: sumOf(sums.map(({ seconds }) => seconds)),
    limits,
    kernels: kernels.sort(bySeconds),
    groups: groups.sort(bySeconds),
    total: shareOf(sums),
  };
}

function timeShare(sums: readonly Sums[], stepSeconds: number): TimeShare {
  const total = (of: (one: Sums) => number): number => sumOf(sums.map(of));
  const seconds = total((one) => one.seconds);
  const rate = (amount: number): number => (seconds > 0 ? amount / seconds : 0);
  return {
    runs: total(({ runs }) => runs),
    seconds,
    share: seconds / stepSeconds,
    operationsPerSecond: rate(total(({ operations }) => operations)),
    bytesPerSecond: rate(total(({ bytes }) => bytes)),
    ofLimit: rate(total(({ roof }) => roof.arithmetic + roof.memory)),
  };
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
