import type { Session } from "../session/types.js";
import { Scorer, type Scores } from "./scores.js";
import type { FiniteBatches } from "./types.js";

export interface LossOf {
  /** Mean over the weighted tokens, or records where the model has a task. */
  readonly loss: number;
  readonly perplexity: number;
  /** Sum of the weights: tokens or records that count. */
  readonly tokens: number;
  /** Positions computed, padding included. */
  readonly positions: number;
  readonly seconds: number;
  /** Of a model with a task. */
  readonly scores?: Scores;
}

/** Loss and perplexity over all of `batches`, within the session's plan. Stops early on a signal. */
export async function measureLoss(
  session: Pick<Session, "evaluate">,
  batches: FiniteBatches,
  signal?: AbortSignal,
): Promise<LossOf> {
  let [lossSum, tokens, positions] = [0, 0, 0];
  let scorer: Scorer | undefined;
  const started = performance.now();
  for (let index = 0; index < batches.count && signal?.aborted !== true; index++) {
    const batch = batches.batch(index);
    const result = await session.evaluate(batch);
    lossSum += result.lossSum;
    tokens += result.weightSum;
    positions += batch.ids.length;
    if (result.logits === undefined) continue;
    scorer ??= new Scorer();
    scorer.add(batch, result.logits);
  }
  const loss = lossSum / tokens;
  const seconds = (performance.now() - started) / 1000;
  const scores = scorer === undefined ? {} : { scores: scorer.scores() };
  return { loss, perplexity: Math.exp(loss), tokens, positions, seconds, ...scores };
}
