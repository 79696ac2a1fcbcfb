import { join } from "node:path";
import { interpretFacts } from "../targets/interpret/execute.js";
import { cFacts } from "../targets/c/facts.js";
import type { TargetFacts } from "../plan/plan.js";
import { DiskWeights } from "../runtime/disk-weights.js";
import { cacheDirectory } from "../runtime/platform.js";
import type { Backend, BackendOptions } from "./backend.js";
import { InterpretBackend } from "./interpret-backend.js";
import { createNativeBackend } from "./native-backend.js";
import type { SessionPlan } from "./plan.js";
import { planSession } from "./plan.js";
import { RunningSession } from "./session.js";
import type { SessionOptions, TargetName } from "./types.js";

/** What the planner needs to know of a target at so many threads. */
export function factsOf(target: TargetName, threads: number): TargetFacts {
  return target === "c" ? cFacts(threads) : interpretFacts;
}

const planned = new WeakMap<SessionOptions, SessionPlan>();

/** The plan of a session, without weights, memory or a compiler; made once for each options object. */
export function planOnly(options: SessionOptions, before?: SessionPlan): SessionPlan {
  const plan = planned.get(options) ?? planSession(options, factsOf(options.target, options.threads), before);
  planned.set(options, plan);
  return plan;
}

/**
 * Plans a session, compares it with the memory that is free, compiles its kernels and takes its memory. Weights are
 * read by `load`.
 */
export async function openSession(
  options: SessionOptions | SessionPlan,
  { poison = false, timed = false } = {},
): Promise<RunningSession> {
  const plan = "plans" in options ? options : planOnly(options);
  const { target, threads } = plan.options;
  const backend = await createBackend(target, { threads, poison, timed });
  let started = performance.now();
  try {
    backend.allocate(plan.report.planBytes);
    started = performance.now();
    await backend.prepare(plan.plans);
  } catch (error) {
    backend.close();
    throw error;
  }
  const session = new RunningSession(plan, backend, { disk: diskWeights(plan), planAgain: planOnly });
  session.compileSeconds = (performance.now() - started) / 1000;
  return session;
}

function diskWeights({ options, layout }: SessionPlan): DiskWeights | undefined {
  const tensors = [...layout.buffers.values()].filter(({ tier }) => tier === "disk");
  if (tensors.length === 0) return undefined;
  const { folder = join(cacheDirectory(), "weights"), uncached = false } = options.place ?? {};
  return new DiskWeights(tensors, { folder, uncached });
}

async function createBackend(target: TargetName, options: BackendOptions): Promise<Backend> {
  return target === "c" ? createNativeBackend(options) : new InterpretBackend(options);
}
