/**
 * Evaluation passes in a process of their own, timed one by one: what `forward` is for Thimble. Its argument is the
 * settings of a run as JSON; it prints the figures that `thimble train --json` would.
 */
import { resolveConfig } from "../../src/config/config.js";
import { openSession } from "../../src/session/open.js";
import type { Session, SessionOptions } from "../../src/session/types.js";
import { evaluate } from "../../src/train/evaluate.js";
import { medianSpeed } from "../../src/train/measure.js";
import { realEnvironment } from "../../src/train/train.js";

const config = resolveConfig({ flags: JSON.parse(process.argv[2] ?? "{}") as Record<string, unknown> });
const losses: number[] = [];
const stepSeconds: number[] = [];

/** A session whose evaluations are timed. */
async function openTimed(options: SessionOptions): Promise<Session> {
  const session = await openSession(options);
  const pass = session.evaluate.bind(session);
  return Object.assign(session, {
    evaluate: async (batch: Parameters<Session["evaluate"]>[0]) => {
      const started = performance.now();
      const result = await pass(batch);
      stepSeconds.push((performance.now() - started) / 1000);
      losses.push(result.lossSum / result.weightSum);
      return result;
    },
  });
}

const { peak } = await evaluate(config, { environment: { ...realEnvironment, openSession: openTimed } });
const tokensPerSecond = medianSpeed(config.batch * config.seq, stepSeconds);
console.log(JSON.stringify({ losses, stepSeconds, tokensPerSecond, peak }));
