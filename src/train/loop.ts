import { join } from "node:path";
import { drawnBatches } from "../session/draw.js";
import type { HostTensors } from "../methods/types.js";
import type { Session } from "../session/types.js";
import { calibrate } from "./calibrate.js";
import type { Checkpoint } from "./checkpoint.js";
import { pruneCheckpoints, restoreCheckpoint, writeCheckpoint } from "./checkpoint.js";
import { diskError, replaceFolder, syncFolder } from "./files.js";
import { findNonFinite, lossNotFinite, weightsNotFinite } from "./finite.js";
import { measureLoss } from "./held-out.js";
import { encodeRates } from "./identity.js";
import { RunLogs } from "./logs.js";
import { MemoryProbe, medianSpeed } from "./measure.js";
import { findStart } from "./start.js";
import type { Environment, EvaluateEvent, PreparedRun, TrainEvents, TrainResult, TrainSummary } from "./types.js";
import { LossWatch, oddRate } from "./watch.js";

/**
 * Trains a prepared run to its last step, or until the signal: then the step at hand is finished and a checkpoint
 * written. Whatever stops the process, the out folder can be resumed from its last checkpoint.
 */
export async function runTraining(
  run: PreparedRun,
  environment: Environment,
  events: TrainEvents = {},
  signal?: AbortSignal,
): Promise<TrainResult> {
  try {
    return await train(run, environment, events, signal);
  } catch (error) {
    throw diskError(error);
  }
}

async function train(
  run: PreparedRun,
  environment: Environment,
  events: TrainEvents,
  signal: AbortSignal | undefined,
): Promise<TrainResult> {
  const checkpoint = await findStart(run, environment, events);
  for (const message of run.notices) events.onNotice?.({ code: "notice", message });
  const odd = oddRate(run.rate, run.suggestedRate);
  if (odd !== undefined) events.onNotice?.(odd);
  const probe = new MemoryProbe();
  events.onPhase?.("compile");
  const calibrated = checkpoint === undefined ? await calibration(run, environment, events) : undefined;
  const session = await environment.openSession(run.options);
  try {
    const { report, trainableParameters, target, threads, compileSeconds } = session;
    events.onPlan?.(report, { trainableParameters, rate: run.rate, target, threads, compileSeconds });
    events.onPhase?.("load");
    await load(run, environment, session, { checkpoint, calibrated });
    const loop = await TrainingLoop.start(run, environment, events, session, probe, checkpoint);
    return await loop.run(signal);
  } finally {
    session.close();
  }
}

/** What the methods need to know of the model and the data at the start of a run; its memory is free again behind it. */
async function calibration(
  run: PreparedRun,
  environment: Environment,
  events: TrainEvents,
): Promise<HostTensors | undefined> {
  const wanted = run.options.methods?.calibrate;
  if (wanted === undefined || run.startFrom !== undefined) return undefined;
  return calibrate(run, wanted, environment, events.onNotice);
}

async function load(
  run: PreparedRun,
  { files }: Environment,
  session: Session,
  { checkpoint, calibrated }: { checkpoint: Checkpoint | undefined; calibrated: HostTensors | undefined },
): Promise<void> {
  await session.load(run.weights, calibrated);
  if (checkpoint !== undefined) await restoreCheckpoint(files, checkpoint, session);
  else await run.startFrom?.(session);
}

/** Steps in a row that may be skipped before the run ends. */
const mostSkipped = 10;

function skippedMessage(step: number): string {
  return `Step ${step} changed nothing: a loss beside the weights was not a finite number.`;
}

class TrainingLoop {
  private readonly watch = new LossWatch();
  private readonly losses: number[];
  private readonly stepSeconds: number[];
  private readonly tokens: number;
  private lastCheckpoint: string | undefined;
  /** Steps skipped in a row, because a zeroth-order loss was not finite. */
  private skipped = 0;
  private lastEvaluation: EvaluateEvent | undefined;

  private constructor(
    private readonly prepared: PreparedRun,
    private readonly environment: Environment,
    private readonly events: TrainEvents,
    private readonly session: Session,
    private readonly probe: MemoryProbe,
    private readonly logs: RunLogs,
    private step: number,
    private savedStep: number,
  ) {
    const { batch, length, accumulate } = prepared.options;
    this.tokens = batch * length * accumulate;
    this.losses = [...(logs.history?.losses ?? [])];
    this.stepSeconds = [...(logs.history?.stepSeconds ?? [])];
    for (const loss of this.losses) this.watch.add(loss);
  }

  static async start(
    run: PreparedRun,
    environment: Environment,
    events: TrainEvents,
    session: Session,
    probe: MemoryProbe,
    checkpoint: Checkpoint | undefined,
  ): Promise<TrainingLoop> {
    const { files, now } = environment;
    const { out } = run.loop;
    await files.mkdir(out, { recursive: true });
    const { step, metricsBytes } = checkpoint?.manifest ?? { step: 0, metricsBytes: 0 };
    const logs = await RunLogs.open({ files, out, step, metricsBytes, now });
    if (logs.history === undefined) {
      const message = `metrics.jsonl no longer holds the first ${step} steps; it starts anew at step ${step + 1}.`;
      events.onNotice?.({ code: "metrics-lost", message });
    }
    const loop = new TrainingLoop(run, environment, events, session, probe, logs, step, checkpoint ? step : -1);
    loop.lastCheckpoint = checkpoint?.folder;
    return loop;
  }

  async run(signal: AbortSignal | undefined): Promise<TrainResult> {
    try {
      this.events.onPhase?.("train");
      const { steps } = this.prepared.loop;
      while (this.step < steps && signal?.aborted !== true) await this.oneStep();
      const interrupted = this.step < steps;
      if (this.savedStep !== this.step && this.step > 0) await this.checkpoint();
      const result = interrupted ? undefined : await this.saveResult();
      const { task } = this.prepared.options.definition;
      return {
        summary: this.summary(),
        step: this.step,
        interrupted,
        ...(result === undefined ? {} : { result }),
        ...(task === undefined ? {} : { task: task.kind }),
        ...(this.lastEvaluation === undefined ? {} : { lastEvaluation: this.lastEvaluation }),
      };
    } finally {
      await this.logs.close();
    }
  }

  private async oneStep(): Promise<void> {
    const { options, factor, rate: highest, batches, loop, sources } = this.prepared;
    const drawn = drawnBatches(options);
    const micro = Array.from({ length: drawn }, (_, index) => batches.batch(this.step * drawn + index));
    const rate = highest * factor(this.step);
    const done = await this.session.step(micro, {
      rate,
      step: this.step,
      data: (index) => batches.batch(index),
      ...(sources === undefined ? {} : { sources }),
    });
    const { loss, seconds, gradientNorm, regularisation, differences, logged, chosen } = done;
    const step = this.step + 1;
    this.skipped = differences?.every(Number.isFinite) === false ? this.skipped + 1 : 0;
    const broken = this.skipped === 0 ? !Number.isFinite(loss) : step === 1 || this.skipped >= mostSkipped;
    if (broken) throw lossNotFinite(loss, step, this.lastCheckpoint);
    if (this.skipped > 0) this.events.onNotice?.({ code: "step-skipped", message: skippedMessage(step) });
    this.step = step;
    this.losses.push(loss);
    this.stepSeconds.push(seconds);
    const norm = gradientNorm === undefined ? {} : { gradientNorm };
    const estimate = {
      ...(differences === undefined ? {} : { differences }),
      ...(regularisation === undefined ? {} : { regularisation }),
      ...(logged === undefined ? {} : { logged }),
      ...(chosen === undefined ? {} : { chosen }),
    };
    await this.logs.step({ step, loss, rate, seconds, tokens: this.tokens, ...norm, ...estimate });
    const tokensPerSecond = this.tokens / seconds;
    this.events.onStep?.({ step, steps: loop.steps, loss, rate, seconds, tokensPerSecond, ...norm });
    const warning = this.watch.add(loss);
    if (warning !== undefined) this.events.onNotice?.(warning);
    if (loop.evalEvery > 0 && (step % loop.evalEvery === 0 || step === loop.steps)) await this.evaluate();
    if ((loop.saveEvery > 0 && step % loop.saveEvery === 0) || step === loop.steps) await this.checkpoint();
  }

  private async evaluate(): Promise<void> {
    const { heldOut } = this.prepared;
    if (heldOut === undefined) return;
    const { loss, perplexity, scores: told } = await measureLoss(this.session, heldOut);
    const scores = told === undefined ? {} : { scores: told };
    this.lastEvaluation = { step: this.step, loss, perplexity, ...scores };
    await this.logs.evaluation({ step: this.step, heldOutLoss: loss, heldOutPerplexity: perplexity, ...scores });
    this.events.onEvaluate?.(this.lastEvaluation);
  }

  private async checkpoint(): Promise<void> {
    const { files } = this.environment;
    const { identity, machine, factor, loop } = this.prepared;
    const broken = findNonFinite(this.session);
    if (broken !== undefined) throw weightsNotFinite(broken, this.step, this.lastCheckpoint);
    await this.logs.sync();
    const folder = await writeCheckpoint(files, loop.out, this.session, {
      step: this.step,
      metricsBytes: this.logs.metricsBytes,
      run: { ...identity },
      rates: encodeRates(factor, this.step),
      machine: { ...machine },
    });
    this.savedStep = this.step;
    this.lastCheckpoint = folder;
    await pruneCheckpoints(files, loop.out, loop.keep, this.step);
    this.events.onCheckpoint?.({ step: this.step, folder });
  }

  /** Writes the adapter or model under another name first, so that a kill leaves the old one or none, never a part. */
  private async saveResult(): Promise<string> {
    const { files } = this.environment;
    const { loop, resultName, saveResult } = this.prepared;
    this.events.onPhase?.("save");
    await this.session.settle?.();
    const made = join(loop.out, `.unfinished-${resultName}`);
    const folder = join(loop.out, resultName);
    await files.rm(made, { recursive: true, force: true });
    await files.mkdir(made, { recursive: true });
    await saveResult(this.session, made);
    await syncFolder(files, made);
    await replaceFolder(files, made, folder, join(loop.out, `.unfinished-old-${resultName}`));
    await syncFolder(files, loop.out);
    this.events.onSaved?.(folder);
    return folder;
  }

  private summary(): TrainSummary {
    const { trainableParameters, target, threads } = this.session;
    const { options, loop } = this.prepared;
    return {
      losses: this.losses,
      stepSeconds: this.stepSeconds,
      tokensPerSecond: medianSpeed(this.tokens, this.stepSeconds),
      trainableParameters,
      target,
      dtype: options.dtype,
      threads,
      peak: this.probe.peak(this.session),
      out: loop.out,
    };
  }
}
