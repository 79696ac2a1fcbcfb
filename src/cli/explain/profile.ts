import type { RunConfig } from "../../config/schema.js";
import { ThimbleError } from "../../errors.js";
import { openSession, planOnly } from "../../session/open.js";
import type { SessionPlan } from "../../session/plan.js";
import { median } from "../../train/measure.js";
import type { PrepareOptions, TrainRun } from "../../train/prepare.js";
import { prepareRun } from "../../train/prepare.js";
import { setAdapter } from "../../train/run-methods.js";
import { explainPlan } from "./run.js";

/** Time of one kernel in a step, all its runs together. */
export interface KernelProfile {
  readonly kernel: string;
  /** What it does, by the first step that runs it. */
  readonly label: string;
  readonly runs: number;
  readonly seconds: number;
  /** Of the step's time. */
  readonly share: number;
  readonly operationsPerSecond: number;
  readonly bytesPerSecond: number;
}

export interface Profile {
  readonly steps: number;
  /** Medians over the steps: of the whole step, and of the kernels together. */
  readonly stepSeconds: number;
  readonly kernelSeconds: number;
  readonly kernels: readonly KernelProfile[];
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
  const session = await openSession(plan, { timed: true });
  try {
    await session.load(run.weights);
    if (run.methods.adapter !== undefined) setAdapter(session, run.methods.adapter);
    const names = plan.plans.map(({ name }) => name).filter((name) => ["train", "accumulate", "apply"].includes(name));
    const measured: { readonly seconds: number; readonly times: readonly number[][] }[] = [];
    const { accumulate } = run.options;
    for (let step = 0; step <= steps; step++) {
      const batches = Array.from({ length: accumulate }, (_, at) => run.batches.batch(step * accumulate + at));
      const { seconds } = await session.step(batches, { rate: run.rate * run.factor(step), step });
      onStep?.(step, seconds);
      if (step > 0) measured.push({ seconds, times: names.map((name) => session.times(name)) });
    }
    return summarise(plan, names, measured, accumulate);
  } finally {
    session.close();
  }
}

function summarise(
  plan: SessionPlan,
  names: readonly string[],
  measured: readonly { readonly seconds: number; readonly times: readonly number[][] }[],
  accumulate: number,
): Profile {
  const { programs } = explainPlan(plan);
  const stepSeconds = median(measured.map(({ seconds }) => seconds));
  const kernels = new Map<
    string,
    { label: string; runs: number; seconds: number; operations: number; bytes: number }
  >();
  names.forEach((name, program) => {
    const runs = name === "accumulate" ? accumulate : 1;
    let entry = 0;
    for (const step of programs.find((one) => one.name === name)?.steps ?? []) {
      // A step is its kernel, then the copies of outputs into their places.
      const entries = 1 + step.copies;
      const times = measured.map((one) => sumOf((one.times[program] ?? []).slice(entry, entry + entries)));
      entry += entries;
      const known = kernels.get(step.kernel) ?? { label: step.label, runs: 0, seconds: 0, operations: 0, bytes: 0 };
      known.runs += runs;
      known.seconds += runs * median(times);
      known.operations += runs * step.operations;
      known.bytes += runs * step.bytesMoved;
      kernels.set(step.kernel, known);
    }
  });
  const list = [...kernels].map(([kernel, { label, runs, seconds, operations, bytes }]) => ({
    kernel,
    label,
    runs,
    seconds,
    share: seconds / stepSeconds,
    operationsPerSecond: seconds > 0 ? operations / seconds : 0,
    bytesPerSecond: seconds > 0 ? bytes / seconds : 0,
  }));
  return {
    steps: measured.length,
    stepSeconds,
    kernelSeconds: sumOf(list.map(({ seconds }) => seconds)),
    kernels: list.sort((a, b) => b.seconds - a.seconds),
  };
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
