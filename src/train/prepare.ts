import { defaultSteps } from "../config/schema.js";
import type { RunConfig } from "../config/schema.js";
import type { Progress } from "../io/download.js";
import type { MemoryReport } from "../plan/report.js";
import { trainedNames } from "../step/estimate.js";
import type { Rates } from "../plan/predict.js";
import { knownRates, measuredRates } from "../session/calibrate.js";
import { releaseHeap } from "../runtime/heap.js";
import { planOnly } from "../session/open.js";
import type { SessionOptions } from "../session/types.js";
import { describeMachine } from "./machine.js";
import type { OpenedModel } from "./model.js";
import { openMetadata, openRunModel } from "./model.js";
import { optimizerSettings, scheduleOf, sessionOptions } from "./options.js";
import { saveAdapter, saveModel } from "./export/save.js";
import { trajectoryOf, writeTrajectory } from "./export/trajectory.js";
import type { RunData } from "./run-data.js";
import { holdoutOf, needsSegments, openRunData, rowsFor, sourceTable } from "./run-data.js";
import type { RunMethods } from "./run-methods.js";
import { composeRun, setAdapter } from "./run-methods.js";
import type { PreparedRun } from "./types.js";

export interface PrepareOptions {
  /** Called while a model is fetched. */
  readonly progress?: Progress | undefined;
}

/** A prepared run with what a person may want to see of it. */
export interface TrainRun extends PreparedRun {
  readonly model: OpenedModel;
  readonly data: RunData;
  readonly methods: RunMethods;
}

/**
 * Opens everything that a training run needs and refuses what cannot work, before any weight is read: model, methods,
 * tokenizer, data, compiler.
 */
export async function prepareRun(given: RunConfig, { progress }: PrepareOptions = {}): Promise<TrainRun> {
  const model = await openRunModel(given.model, { progress, run: given });
  try {
    const { definition, weights } = model.files;
    const methods = await composeRun(given, definition, () => model.loadTokenizer());
    const config = rowsFor(given, methods.methods);
    const unrated = trainingOptions(config, methods, { definition, weights });
    const machine = await describeMachine(unrated.target);
    const options = await withRates(unrated, unrated.budget === undefined ? knownRates : measuredRates);
    const data = await openRunData(config, definition, () => model.loadTokenizer());
    const rounding = roundingOf(options);
    if (options.budget !== undefined) await releaseHeap();
    return assemble({ config, model, methods, options, machine: { ...machine, ...rounding }, data });
  } catch (error) {
    await model.files.weights.close();
    throw error;
  }
}

function trainingOptions(
  config: RunConfig,
  { methods }: RunMethods,
  model: { definition: SessionOptions["definition"]; weights: OpenedModel["files"]["weights"] | undefined },
): SessionOptions {
  const evaluate = config.evalEvery > 0 && holdoutOf(config) !== undefined;
  const parts = { ...model, methods, segments: needsSegments(config), train: true, evaluate, decode: undefined };
  return sessionOptions(config, parts);
}

/** What a budget changed of how values round: a run that resumes with another is told so. */
function roundingOf(options: SessionOptions): Record<string, string> {
  if (options.budget === undefined) return {};
  const { split = 1, batch, dtype } = planOnly(options).options;
  return {
    ...(split === 1 ? {} : { "number of rows at a time": String(batch / split) }),
    ...(dtype === options.dtype ? {} : { "type of values": dtype }),
  };
}

/** The session with what this machine is known to do; a run with a budget measures it, a plan never does. */
async function withRates(
  options: SessionOptions,
  find: (threads: number) => Promise<Rates | undefined>,
): Promise<SessionOptions> {
  return options.target === "c" ? { ...options, rates: await find(options.threads) } : options;
}

interface Parts {
  readonly config: RunConfig;
  readonly model: OpenedModel;
  readonly methods: RunMethods;
  readonly options: SessionOptions;
  readonly machine: Readonly<Record<string, string>>;
  readonly data: RunData;
}

function assemble(parts: Parts): TrainRun {
  const { config, model, methods, options, machine, data } = parts;
  const { out, resume, saveEvery, evalEvery, keep, seed } = config;
  const { methods: composed, adapter } = methods;
  const rate = config.lr ?? composed.learningRate;
  const chosen = config.lr === undefined ? [`Learning rate ${rate}, which suits the method.`] : [];
  const { examples } = composed;
  const sources = examples === undefined ? undefined : sourceTable(data.dataset);
  return {
    loop: { out, resume, saveEvery, evalEvery, keep, steps: config.steps ?? defaultSteps },
    options,
    rate,
    suggestedRate: composed.learningRate,
    factor: scheduleOf(config),
    identity: identityOf(parts, rate),
    machine,
    batches: data.batches,
    ...(sources === undefined ? {} : { sources }),
    ...(data.heldOut === undefined ? {} : { heldOut: data.heldOut }),
    weights: model.files.weights,
    ...(adapter === undefined
      ? {}
      : {
          startFrom: (session) => {
            setAdapter(session, adapter);
            return Promise.resolve();
          },
        }),
    saveResult: async (session, folder) => {
      if (composed.saves === "adapter") await saveAdapter(session, composed, model, seed, folder);
      else await saveModel(session, composed, model, config.dtype, folder);
      const { dtype } = config;
      const trajectory = trajectoryOf(composed, {
        base: model.fingerprint,
        dtype,
        optimizer: optimizerSettings(config, composed),
        seed,
        tensors: trainedNames(options),
      });
      if (trajectory !== undefined) await writeTrajectory(out, folder, trajectory);
    },
    resultName: composed.saves === "adapter" ? "adapter" : "model",
    notices: [
      ...chosen,
      ...methods.notices,
      ...data.dataset.report.notices,
      ...(sources === undefined ? [] : (examples?.check(sources) ?? [])),
    ],
    model,
    data,
    methods,
    close: async () => {
      data.dataset.close();
      await model.files.weights.close();
    },
  };
}

/** Everything that decides the numbers of a run, by the names of its settings; see identity.ts. */
function identityOf({ config, model, methods, options, data }: Parts, rate: number): Record<string, unknown> {
  const { dtype, batch, seq, accumulate, seed, clip } = config;
  const { target, segments } = options;
  const facts = {
    model: model.fingerprint,
    data: data.fingerprint,
    method: methods.methods.methods.map(({ id, config: settings }) => ({ id, settings })),
    adapter: methods.adapterFingerprint ?? null,
    lr: rate,
    optimizer: optimizerSettings(config, methods.methods),
    clip: clip ?? null,
  };
  return { ...facts, dtype, batch, seq, accumulate, seed, target, segments };
}

/** The memory that a run will take, from metadata alone: no data, no weights, no compiler; a config.json is enough. */
export async function planRun(given: RunConfig, { progress }: PrepareOptions = {}): Promise<PlannedRun> {
  const { definition, weights } = await openMetadata(given.model, { progress, run: given });
  try {
    const methods = await composeRun(given, definition);
    const config = rowsFor(given, methods.methods);
    const options = await withRates(trainingOptions(config, methods, { definition, weights }), knownRates);
    const { report, training } = planOnly(options);
    const trainableParameters = (training?.trainables ?? []).reduce(
      (sum, { node }) => sum + node.shape.reduce((product, size) => product * size, 1),
      0,
    );
    return { report, options, trainableParameters };
  } finally {
    await weights?.close();
  }
}

export interface PlannedRun {
  readonly report: MemoryReport;
  readonly options: SessionOptions;
  readonly trainableParameters: number;
}
