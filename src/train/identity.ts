import { ThimbleError } from "../errors.js";
import type { Schedule } from "../optim/schedules.js";
import type { Checkpoint } from "./checkpoint.js";
import type { Manifest } from "./manifest.js";

/**
 * All that decides a run's numbers except the steps and the schedule, by setting name; values are compared as JSON.
 * The schedule is compared by what it did in the steps that are done.
 */
export type RunIdentity = Readonly<Record<string, unknown>>;

/** Settings that checkpoints may name and that change no bit of a run. */
const withoutEffect: ReadonlySet<string> = new Set(["recompute"]);

/** The learning-rate factors of the first `steps` steps, as runs of equal values. */
export function encodeRates(factor: Schedule, steps: number): Manifest["rates"] {
  const runs: [number, number][] = [];
  for (let done = 0; done < steps; done++) {
    const value = factor(done);
    const last = runs.at(-1);
    if (last !== undefined && Object.is(last[0], value)) last[1]++;
    else runs.push([value, 1]);
  }
  return runs;
}

export interface ResumeFacts {
  readonly run: RunIdentity;
  readonly machine: Readonly<Record<string, string>>;
  readonly factor: Schedule;
  readonly steps: number;
}

/**
 * Refuses a checkpoint that another run wrote, naming the first setting that differs. Returns a sentence where only
 * the machine or the code changed: the run can go on, but to rounding and not to the bit.
 */
export function checkResume({ folder, manifest }: Checkpoint, facts: ResumeFacts): string | undefined {
  for (const key of Object.keys({ ...manifest.run, ...facts.run })) {
    if (withoutEffect.has(key)) continue;
    const [was, is] = [JSON.stringify(manifest.run[key]), JSON.stringify(facts.run[key])];
    if (was !== is) throw changed(folder, key, was, is);
  }
  if (manifest.step > facts.steps) {
    throw new ThimbleError("resume-steps", "The checkpoint is past the end of the run", {
      where: folder,
      given: `steps = ${facts.steps}`,
      expected: `at least ${manifest.step}: steps are the total, those before a resume included`,
    });
  }
  const rates = JSON.stringify(encodeRates(facts.factor, manifest.step));
  if (rates !== JSON.stringify(manifest.rates)) {
    throw new ThimbleError("resume-changed", "The run cannot be resumed: its learning rates would have been others", {
      where: folder,
      given: "another schedule, warmup, minRatio or decay, or other steps under a schedule that depends on them",
      expected: `the same rates in the first ${manifest.step} steps`,
      fix: "Use the settings of the run, or start a new one from its result. wsd and constant schedules can be lengthened.",
    });
  }
  const keys = Object.keys({ ...manifest.machine, ...facts.machine });
  const differing = keys.filter((key) => manifest.machine[key] !== facts.machine[key]);
  if (differing.length === 0) return undefined;
  return `The checkpoint was written with another ${differing.join(" and ")}: the run goes on, equal to rounding only.`;
}

function changed(folder: string, key: string, was: string | undefined, is: string | undefined): ThimbleError {
  return new ThimbleError("resume-changed", `The run cannot be resumed with another ${key}`, {
    where: folder,
    given: `${key} = ${shorten(is)}`,
    expected: `${key} = ${shorten(was)}, as in the checkpoint`,
    fix: "Use the settings of the run, or give another --out to start a new one.",
  });
}

function shorten(text: string | undefined): string {
  if (text === undefined) return "nothing";
  return text.length > 200 ? `${text.slice(0, 197)}...` : text;
}
