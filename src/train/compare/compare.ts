import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { methodSelections } from "../../config/selection.js";
import type { RunConfig } from "../../config/schema.js";
import { defaultSteps } from "../../config/schema.js";
import { ThimbleError } from "../../errors.js";
import { evaluate } from "../evaluate.js";
import { diskFiles } from "../files.js";
import { describeMachine } from "../machine.js";
import { targetOf } from "../options.js";
import { holdoutOf } from "../run-data.js";
import type { PrepareOptions } from "../prepare.js";
import { refuseUsedFolder } from "../start.js";
import { train } from "../train.js";
import type { TrainEvents, TrainResult } from "../types.js";
import type { ComparedMethod, ComparedRun, Comparison, Contestant, RefusedMethod, Spread } from "./types.js";

export interface CompareEvents {
  /** A run begins: number `index` (from 0) of `count`. */
  readonly onRun?: (run: {
    readonly name: string;
    readonly seed: number;
    readonly index: number;
    readonly count: number;
  }) => void;
  readonly onRefused?: (refused: RefusedMethod) => void;
  /** What the run at hand tells. */
  readonly run?: TrainEvents & PrepareOptions;
}

/** `lora`, `qlora+lisa`, ... as combinations of methods, each with the assignments of `set` that concern it. */
export function contestantsOf(names: readonly string[], set: readonly string[]): Contestant[] {
  const repeated = names.find((name, place) => names.indexOf(name) !== place);
  if (names.length === 0 || repeated !== undefined) {
    throw new ThimbleError("compare-methods", "The methods to compare must be one or more different ones", {
      where: "methods",
      given: repeated === undefined ? "none" : `${repeated} twice`,
      expected: "such as lora,full or qlora+lisa",
    });
  }
  const all = names.map((name): Contestant => {
    const ids = name.split("+").map((id) => id.trim());
    return { name, methods: ids, set: set.filter((one) => ids.includes(one.slice(0, one.indexOf(".")))) };
  });
  const lost = set.find((one) => !all.some((contestant) => contestant.set.includes(one)));
  // The usual check names the method that is missing.
  methodSelections({ method: all.flatMap(({ methods }) => methods), set: lost === undefined ? [] : [lost] });
  return all;
}

/**
 * Trains every combination with every seed on one model, one data set and one budget, and measures each on the same
 * held-out data. A combination that is refused is listed with its reason. On the signal, what is finished is the
 * result. Runs leave their folders in `out`, one each.
 */
export async function compareMethods(
  config: RunConfig,
  contestants: readonly Contestant[],
  seeds: readonly number[],
  events: CompareEvents = {},
  signal?: AbortSignal,
): Promise<Comparison> {
  await refuseUsedFolder(diskFiles, config.out);
  const { steps = defaultSteps, evalEvery } = config;
  const common = { ...config, steps, evalEvery: evalEvery > 0 ? evalEvery : steps, saveEvery: 0, keep: 1 };
  const holdout = holdoutOf(common);
  if (holdout === undefined) {
    throw new ThimbleError("compare-holdout", "Methods are compared on held-out data, and none is held out", {
      where: "holdout",
      given: "0",
      fix: "Leave --holdout out, or name a share of the data or a file.",
    });
  }
  const before = await evaluate(
    { ...common, holdout, method: ["full"], set: [], adapter: undefined, steps: undefined },
    {},
    signal,
  );
  await mkdir(config.out, { recursive: true });
  const methods: ComparedMethod[] = [];
  const refused: RefusedMethod[] = [];
  const count = contestants.length * seeds.length;
  for (const [place, contestant] of contestants.entries()) {
    const results: Finished[] = [];
    try {
      for (const [number, seed] of seeds.entries()) {
        if (signal?.aborted === true) break;
        events.onRun?.({ name: contestant.name, seed, index: place * seeds.length + number, count });
        const result = await runOne(common, contestant, seed, events, signal);
        if (result !== undefined) results.push(result);
      }
    } catch (error) {
      // Only refusals belong into the table; a crash is one of the whole comparison.
      if (!(error instanceof ThimbleError) || results.length > 0) throw error;
      const one = { name: contestant.name, code: error.code, reason: error.message };
      refused.push(one);
      events.onRefused?.(one);
      continue;
    }
    if (results.length > 0) methods.push(await summarise(contestant.name, results));
  }
  const { model = "", data, dtype, batch, seq, memoryBudget } = config;
  const machine = await describeMachine(targetOf(config));
  const settings = {
    model,
    data,
    dtype,
    batch,
    seq,
    steps,
    seeds,
    ...(memoryBudget === undefined ? {} : { memoryBudget }),
  };
  return { ...settings, machine, before: before.loss, methods, refused };
}

interface Finished {
  readonly seed: number;
  readonly result: TrainResult;
  readonly learningRate: number;
}

async function runOne(
  config: RunConfig,
  { name, methods, set }: Contestant,
  seed: number,
  { run = {} }: CompareEvents,
  signal: AbortSignal | undefined,
): Promise<Finished | undefined> {
  const out = join(config.out, `${name.replaceAll("+", "-")}-${seed}`);
  let learningRate = NaN;
  const own: TrainEvents & PrepareOptions = {
    ...run,
    onPlan: (report, facts) => {
      learningRate = facts.rate;
      run.onPlan?.(report, facts);
    },
  };
  const result = await train({ ...config, method: methods, set: [...set], seed, out }, own, signal);
  await removeCheckpoints(out);
  return result.interrupted ? undefined : { seed, result, learningRate };
}

/** A comparison is not resumed: the checkpoints of its runs would only take room. */
async function removeCheckpoints(out: string): Promise<void> {
  const names = (await readdir(out)).filter((entry) => entry.startsWith("checkpoint-"));
  for (const name of names) await rm(join(out, name), { recursive: true });
}

async function summarise(name: string, finished: readonly Finished[]): Promise<ComparedMethod> {
  const runs = finished.map(({ seed, result: { summary, lastEvaluation } }): ComparedRun => {
    const { losses, tokensPerSecond, peak } = summary;
    return { seed, losses, heldOutLoss: lastEvaluation?.loss ?? NaN, tokensPerSecond, rssBytes: peak.rssBytes };
  });
  const results = finished.map(({ result }) => result);
  const summary = results[0]?.summary;
  const folder = results[0]?.result;
  return {
    name,
    runs,
    heldOutLoss: spreadOf(runs.map((run) => run.heldOutLoss)),
    tokensPerSecond: spreadOf(runs.map((run) => run.tokensPerSecond)),
    trainableParameters: summary?.trainableParameters ?? 0,
    planBytes: summary?.peak.planBytes ?? 0,
    composition: summary?.peak.composition ?? { weights: 0, gradients: 0, states: 0, saved: 0, workspace: 0 },
    rssBytes: Math.max(...runs.map((run) => run.rssBytes)),
    resultBytes: folder === undefined ? 0 : await folderBytes(folder),
    learningRate: finished[0]?.learningRate ?? NaN,
  };
}

export function spreadOf(values: readonly number[]): Spread {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0 };
}

async function folderBytes(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true });
  const facts = await Promise.all(names.map((name) => stat(join(folder, name))));
  return facts.reduce((sum, fact) => sum + (fact.isFile() ? fact.size : 0), 0);
}
