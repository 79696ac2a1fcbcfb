import type { RunConfig } from "../config/schema.js";
import type { Progress } from "../io/download.js";
import { describeMachine } from "./machine.js";
import { MemoryProbe } from "./measure.js";
import type { LossOf } from "./held-out.js";
import { measureLoss } from "./held-out.js";
import { openRunModel } from "./model.js";
import { sessionOptions } from "./options.js";
import { evaluationBatches, needsSegments, openRunData, rowsFor } from "./run-data.js";
import { composeAdapter, setAdapter } from "./run-methods.js";
import type { Scores } from "./scores.js";
import { realEnvironment } from "./train.js";
import type { Environment, Notice, PeakMemory, Phase } from "./types.js";

export interface EvaluateOptions {
  /** Called while a model is fetched. */
  readonly progress?: Progress | undefined;
  readonly onPhase?: (phase: Phase | "evaluate") => void;
  readonly onNotice?: (notice: Notice) => void;
  /** Also measure the base without the adapter. */
  readonly compare?: boolean;
  readonly environment?: Environment;
}

/** What `eval --json` prints. */
export interface EvaluateSummary {
  readonly loss: number;
  readonly perplexity: number;
  /** Tokens that count, or records where the model has a task. */
  readonly tokens: number;
  readonly tokensPerSecond: number;
  readonly peak: PeakMemory;
  /** Without the adapter, where that was asked for. */
  readonly before?: { readonly loss: number; readonly perplexity: number; readonly scores?: Scores };
  /** Of a model with a task. */
  readonly scores?: Scores;
}

/**
 * Loss and perplexity (or scores, where it has a task) of a model, with its adapter if there is one, over the held-out data (or all, if none is held
 * out); `steps` limits the batches. On the signal, what was measured so far is the result.
 */
export async function evaluate(
  given: RunConfig,
  options: EvaluateOptions = {},
  signal?: AbortSignal,
): Promise<EvaluateSummary> {
  const model = await openRunModel(given.model, { progress: options.progress, run: given });
  const { definition, weights } = model.files;
  try {
    const run = given.adapter === undefined ? undefined : await composeAdapter(given.adapter, definition);
    const config = rowsFor(given, run?.methods);
    const parts = { definition, weights, methods: run?.methods, segments: needsSegments(config) };
    const settings = sessionOptions(config, { ...parts, train: false, evaluate: true, decode: undefined });
    await describeMachine(settings.target);
    const data = await openRunData(config, definition, () => model.loadTokenizer());
    try {
      for (const message of [...(run?.notices ?? []), ...data.dataset.report.notices]) {
        options.onNotice?.({ code: "notice", message });
      }
      const batches = evaluationBatches(data, definition, config.steps);
      const probe = new MemoryProbe();
      options.onPhase?.("compile");
      const session = await (options.environment ?? realEnvironment).openSession(settings);
      try {
        options.onPhase?.("load");
        await session.load(weights);
        options.onPhase?.("evaluate");
        const adapter = run?.adapter;
        const compares = options.compare === true && adapter !== undefined;
        const before = compares ? await measureLoss(session, batches, signal) : undefined;
        if (adapter !== undefined) setAdapter(session, adapter);
        const after = await measureLoss(session, batches, signal);
        return summaryOf(after, before, probe.peak(session));
      } finally {
        session.close();
      }
    } finally {
      data.dataset.close();
    }
  } finally {
    await weights.close();
  }
}

function summaryOf(after: LossOf, before: LossOf | undefined, peak: PeakMemory): EvaluateSummary {
  const { loss, perplexity, tokens, positions, seconds } = after;
  const scoresOf = ({ scores }: LossOf): { readonly scores?: Scores } => (scores === undefined ? {} : { scores });
  return {
    loss,
    perplexity,
    tokens,
    tokensPerSecond: seconds > 0 ? positions / seconds : 0,
    peak,
    ...scoresOf(after),
    ...(before === undefined
      ? {}
      : { before: { loss: before.loss, perplexity: before.perplexity, ...scoresOf(before) } }),
  };
}
