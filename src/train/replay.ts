import { mkdir, readFile, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { RunConfig } from "../config/schema.js";
import { methodSelections } from "../config/selection.js";
import { ThimbleError } from "../errors.js";
import type { Progress } from "../io/download.js";
import type { MethodSelection } from "../methods/compose.js";
import { mezo } from "../methods/mezo/index.js";
import type { Trajectory } from "../methods/trajectory.js";
import { checkTrajectory, decodeTrajectory } from "../methods/trajectory.js";
import { makeOptimizer } from "../optim/registry.js";
import type { SessionOptions } from "../session/types.js";
import { trainedNames } from "../step/estimate.js";
import { saveAdapter, saveModel } from "./export/save.js";
import { replayTrajectory, trajectoryFile } from "./export/trajectory.js";
import { diskFiles, isMissing } from "./files.js";
import type { OpenedModel } from "./model.js";
import { openRunModel } from "./model.js";
import { sessionOptions } from "./options.js";
import { composeRun, setAdapter } from "./run-methods.js";
import type { RunMethods } from "./run-methods.js";
import { refuseUsedFolder } from "./start.js";
import { realEnvironment } from "./train.js";

export interface ReplayOptions {
  /** The file, or the folder of a result that has one. */
  readonly trajectory: string;
  /** Called while a model is fetched. */
  readonly progress?: Progress | undefined;
}

export interface ReplayResult {
  readonly out: string;
  /** Steps of the run, those included that changed nothing. */
  readonly steps: number;
  readonly saved: "adapter" | "model";
}

/** A file of a million steps is far below this. */
const largestFile = 256 * 2 ** 20;

/**
 * Makes the result of a zeroth-order run again from its base and its trajectory, without data and without forward
 * passes, and writes it to `out`. The methods are those of the run; its type, seed, optimizer and what mezo needs to know
 * are in the trajectory. Another base, generator of noise or set of tensors is refused before a weight is read.
 */
export async function replay(config: RunConfig, { trajectory: named, progress }: ReplayOptions): Promise<ReplayResult> {
  await refuseUsedFolder(diskFiles, config.out);
  const trajectory = await readTrajectory(named);
  const model = await openRunModel(config.model, progress === undefined ? {} : { progress });
  try {
    const { run, options } = await prepare(config, trajectory, model);
    const present = { base: model.fingerprint, tensors: trainedNames(options) };
    checkTrajectory(trajectory, present);
    const session = await realEnvironment.openSession(options);
    try {
      await session.load(model.files.weights);
      if (run.adapter !== undefined) setAdapter(session, run.adapter);
      await replayTrajectory(session, trajectory, present);
      const made = join(dirname(config.out), `.${basename(config.out)}.unfinished-${process.pid}`);
      try {
        await mkdir(made, { recursive: true });
        const { methods } = run;
        if (methods.saves === "adapter") await saveAdapter(session, methods, model, trajectory.seed, made);
        else await saveModel(session, methods, model, trajectory.dtype, made);
        await rm(config.out, { recursive: true, force: true });
        await rename(made, config.out);
      } finally {
        await rm(made, { recursive: true, force: true });
      }
      return {
        out: config.out,
        steps: trajectory.rates.length,
        saved: run.methods.saves === "adapter" ? "adapter" : "model",
      };
    } finally {
      session.close();
    }
  } finally {
    await model.files.weights.close();
  }
}

async function readTrajectory(named: string): Promise<Trajectory> {
  let path = named;
  try {
    if ((await stat(path)).isDirectory()) path = join(named, trajectoryFile);
    const { size } = await stat(path);
    if (size > largestFile) {
      throw new ThimbleError("trajectory-format", "The file is too large to be a trajectory", {
        where: path,
        given: `${size} bytes`,
        expected: `at most ${largestFile} bytes`,
      });
    }
    return decodeTrajectory(await readFile(path, "utf8"), path);
  } catch (error) {
    if (!isMissing(error)) throw error;
    throw new ThimbleError("trajectory-missing", "There is no trajectory here", {
      where: path,
      fix: "Name the trajectory.json beside the result of a run with mezo.",
    });
  }
}

/** A session that can run updates alone: of the run's methods, on the smallest batches there are. */
async function prepare(
  config: RunConfig,
  trajectory: Trajectory,
  { files: { definition, weights } }: OpenedModel,
): Promise<{ run: RunMethods; options: SessionOptions }> {
  const { dtype, seed } = trajectory;
  const small = { batch: 1, seq: Math.min(8, definition.contextLength), accumulate: 2, evalEvery: 0 };
  const method = selectionsOf(config, trajectory).map(({ id, settings }) => ({ id, settings: { ...settings } }));
  const chosen: RunConfig = {
    ...config,
    ...small,
    method,
    set: [],
    dtype,
    seed,
    memoryBudget: undefined,
    clip: undefined,
  };
  const run = await composeRun(chosen, definition);
  const parts = { definition, weights, methods: run.methods, segments: false, train: true, evaluate: false };
  const options = sessionOptions(chosen, { ...parts, decode: undefined });
  return { run, options: { ...options, optimizer: makeOptimizer(trajectory.optimizer) } };
}

/** The run's methods, with what the trajectory says of its noise. */
function selectionsOf(config: RunConfig, { epsilon, directions }: Trajectory): MethodSelection[] {
  const noise = { epsilon, directions, perturbation: "virtual" };
  const selected = methodSelections(config);
  const own = selected.some(({ id }) => id === mezo.id) ? selected : [...selected, { id: mezo.id, settings: {} }];
  return own.map((one) => (one.id === mezo.id ? { ...one, settings: { ...one.settings, ...noise } } : one));
}
