/** What plans of real shapes say of a method's memory; no weights are read and nothing runs. */
import { exampleModel } from "../../src/methods/share.js";
import type { MethodSelection } from "../../src/methods/compose.js";
import type { ModelDefinition } from "../../src/models/types.js";
import { leafAttributes } from "../../src/ops/leaves.js";
import type { Kind } from "../../src/plan/plan.js";
import { bytesOfValue } from "../../src/plan/plan.js";
import { planOnly } from "../../src/session/open.js";
import type { SessionPlan } from "../../src/session/plan.js";
import type { SessionOptions } from "../../src/session/types.js";
import { trainingOptions } from "../../src/testing/method-training.js";

export interface Shape {
  readonly model?: ModelDefinition;
  readonly optimizer?: Readonly<Record<string, unknown>>;
  readonly session?: Partial<SessionOptions>;
}

/** One row of 256 tokens of SmolLM2-135M in f32, unless a shape says otherwise; all that is dear to compute is kept. */
export function planOf(methods: readonly MethodSelection[], { model, optimizer, session }: Shape = {}): SessionPlan {
  return planOnly(
    trainingOptions({
      selection: methods,
      model: model ?? exampleModel(),
      ...(optimizer === undefined ? {} : { optimizer }),
      session: { batch: 1, length: 256, segments: false, evaluate: false, saved: "all", ...session },
    }),
  );
}

/** Bytes of the leaves of a role, such as the optimizer's states. */
export function bytesOfRole(plan: SessionPlan, role: "state" | "weight"): number {
  const leaves = [...plan.leaves.values()].filter((node) => leafAttributes(node).role === role);
  return leaves.reduce((sum, node) => sum + bytesOfValue(node), 0);
}

/** The most bytes of a kind of buffer that live at once in any program. */
export function mostAlive(plan: SessionPlan, kind: Kind): number {
  const most = plan.plans.map(({ steps, buffers }) => {
    const own = buffers.filter((buffer) => buffer.kind === kind);
    const alive = (step: number): number =>
      own.reduce((sum, { start, end, bytes }) => (start <= step && step <= end ? sum + bytes : sum), 0);
    return steps.reduce((largest, _, step) => Math.max(largest, alive(step)), 0);
  });
  return Math.max(...most);
}
