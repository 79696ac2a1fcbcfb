import type { RunConfig } from "../config/schema.js";
import { openSession } from "../session/open.js";
import { diskFiles } from "./files.js";
import { runTraining } from "./loop.js";
import type { PrepareOptions } from "./prepare.js";
import { prepareRun } from "./prepare.js";
import { refuseUsedFolder } from "./start.js";
import type { Environment, TrainEvents, TrainResult } from "./types.js";

/** The world as it is. */
export const realEnvironment: Environment = {
  openSession,
  files: diskFiles,
  now: () => Date.now() / 1000,
};

/**
 * Trains as the settings say. On the signal, the step at hand is finished, a checkpoint written, and the result is
 * marked as interrupted; everything that can be refused is refused before a weight is read.
 */
export async function train(
  config: RunConfig,
  events: TrainEvents & PrepareOptions = {},
  signal?: AbortSignal,
): Promise<TrainResult> {
  if (!config.resume) await refuseUsedFolder(diskFiles, config.out);
  const run = await prepareRun(config, { progress: events.progress });
  try {
    return await runTraining(run, realEnvironment, events, signal);
  } finally {
    await run.close();
  }
}
