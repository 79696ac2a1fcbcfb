import type { Session } from "../session/types.js";
import type { FiniteBatches } from "./types.js";

export interface LossOf {
  /** Mean over the weighted tokens. */
  readonly loss: number;
  readonly perplexity: number;
  /** Sum of the weights: tokens that count. */
  readonly tokens: number;
  /** Positions computed, padding included. */
  readonly positions: number;
  readonly seconds: number;
}

/** Loss and perplexity over all of `batches`, within the session's plan. Stops early on a signal. */
export async function measureLoss(
  session: Pick<Session, "evaluate">,
  batches: FiniteBatches,
  signal?: AbortSignal,
): Promise<LossOf> {
  let [lossSum, tokens, positions] = [0, 0, 0];
  const started = performance.now();
  for (let index = 0; index < batches.count && signal?.aborted !== true; index++) {
    const batch = batches.batch(index);
    const result = await session.evaluate(batch);
    lossSum += result.lossSum;
    tokens += result.weightSum;
    positions += batch.ids.length;
  }
  const loss = lossSum / tokens;
  return { loss, perplexity: Math.exp(loss), tokens, positions, seconds: (performance.now() - started) / 1000 };
}
