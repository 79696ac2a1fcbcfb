import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ThimbleError } from "../../errors.js";
import type { ComposedMethods } from "../../methods/compose.js";
import { mezo } from "../../methods/mezo/index.js";
import type { Trajectory } from "../../methods/trajectory.js";
import { checkTrajectory, differenceName, encodeTrajectory } from "../../methods/trajectory.js";
import { noiseId } from "../../ops/normal.js";
import type { Session } from "../../session/types.js";

/** Name of the file beside a result. */
export const trajectoryFile = "trajectory.json";

interface LoggedStep {
  readonly rate?: unknown;
  readonly differences?: unknown;
}

/** Rates and differences of every step, from the text of a run's metrics.jsonl. */
export function readSteps(metrics: string): Pick<Trajectory, "rates" | "differences"> {
  const steps = metrics.split("\n").flatMap((line) => {
    if (line === "") return [];
    const { rate, differences } = JSON.parse(line) as LoggedStep;
    if (!Array.isArray(differences)) return [];
    // JSON has no NaN: what is no number was not finite, and skipped its step.
    return [{ rate: Number(rate), differences: differences.map((one) => (typeof one === "number" ? one : NaN)) }];
  });
  return { rates: steps.map(({ rate }) => rate), differences: steps.map(({ differences }) => differences) };
}

/** The head of a run's trajectory; undefined where its steps do not decide its weights to the bit. */
export function trajectoryOf(
  { methods, turns, place }: Pick<ComposedMethods, "methods" | "turns" | "place">,
  run: Pick<Trajectory, "base" | "dtype" | "optimizer" | "seed" | "tensors">,
): Omit<Trajectory, "rates" | "differences"> | undefined {
  const method = methods.find(({ id }) => id === mezo.id);
  // Weights that lie on disk in another type are rounded to it in each step.
  if (method === undefined || turns !== undefined || place?.stored !== undefined) return undefined;
  const { epsilon, directions, perturbation } = mezo.config.parse(method.config);
  return perturbation === "virtual" ? { ...run, epsilon, directions, noise: noiseId, decay: "matrices" } : undefined;
}

/** Writes the trajectory of a run whose logs lie in `out` into the folder of its result. */
export async function writeTrajectory(
  out: string,
  folder: string,
  run: Omit<Trajectory, "rates" | "differences">,
): Promise<void> {
  const metrics = await readFile(join(out, "metrics.jsonl"), "utf8");
  await writeFile(join(folder, trajectoryFile), encodeTrajectory({ ...run, ...readSteps(metrics) }));
}

/** Makes a run's weights again in a session that holds its base: one update a step, no data, no forward pass. */
export async function replayTrajectory(
  session: Pick<Session, "apply">,
  trajectory: Trajectory,
  present: { readonly base: string; readonly tensors: readonly string[] },
): Promise<void> {
  checkTrajectory(trajectory, present);
  if (session.apply === undefined) {
    throw new ThimbleError("trajectory-session", "This session cannot run updates alone", {
      fix: "Open it for training with at least two micro-batches a step.",
    });
  }
  for (const [step, differences] of trajectory.differences.entries()) {
    const sums = new Map(differences.map((value, direction) => [differenceName(direction), value]));
    await session.apply(sums, { rate: trajectory.rates[step] ?? 0, step });
  }
}
