import type { RunConfig } from "../../config/schema.js";
import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { leafAttributes, leafOp } from "../../ops/leaves.js";
import type { Kernel } from "../../passes/kernels.js";
import type { Buffer, PlannedStep } from "../../plan/plan.js";
import { bytesOfValue } from "../../plan/plan.js";
import { planOnly } from "../../session/open.js";
import type { SessionPlan } from "../../session/plan.js";
import { lowerKernel } from "../../targets/c/lower.js";
import type { PrepareOptions } from "../../train/prepare.js";
import { planRun } from "../../train/prepare.js";
import { bytesMoved, operations } from "../../plan/cost.js";
import { scheduleText, sizeText } from "./schedule-text.js";
import type { ExplainedKernel, ExplainedStep, ExplainedValue, Explanation } from "./types.js";

export interface ExplainOptions extends PrepareOptions {
  /** A line whose schedule is wanted. */
  readonly line?: number;
}

/** What a run's programs do, kernel by kernel, from metadata alone. Sources are C, whichever target the run has. */
export async function explainRun(config: RunConfig, options: ExplainOptions = {}): Promise<Explanation> {
  const { options: session } = await planRun(config, options);
  return explainPlan(planOnly(session), options.line);
}

/** The same of a plan that is at hand. */
export function explainPlan({ plans, report, options }: SessionPlan, wanted?: number): Explanation {
  let line = 0;
  const uses = new Map<string, { readonly kernel: Kernel; readonly steps: ExplainedStep[] }>();
  const programs = plans.map((plan, program) => ({
    name: plan.name,
    steps: plan.steps.map((planned, place) => {
      const label = report.programs[program]?.timeline[place]?.label ?? "";
      const at = { line: ++line, program: plan.name, label };
      const schedule = line === wanted ? { schedule: scheduleText(planned.step.kernel) } : {};
      const step = { ...explainStep(planned, { ...at, threads: options.threads }), ...schedule };
      const use = uses.get(step.kernel) ?? { kernel: planned.step.kernel, steps: [] };
      use.steps.push(step);
      uses.set(step.kernel, use);
      return step;
    }),
  }));
  const kernels = [...uses.values()].map(({ kernel, steps }) => explainKernel(kernel, steps, options.threads));
  return { threads: options.threads, programs, kernels };
}

interface Place {
  readonly line: number;
  readonly program: string;
  readonly label: string;
  readonly threads: number;
}

function explainStep(planned: PlannedStep, { threads, ...place }: Place): ExplainedStep {
  const { kernel, again } = planned.step;
  return {
    ...place,
    kernel: lowerKernel(kernel, threads).generated.name,
    kind: kernel.kind,
    again,
    size: sizeText(kernel),
    bytesMoved: bytesMoved(kernel),
    operations: operations(kernel),
    inputs: kernel.inputs.map((node, at) => explainValue(node, must(planned.inputs[at], "input buffer"))),
    outputs: kernel.outputs.map((node, at) => explainValue(node, must(planned.outputs[at], "output buffer"))),
    workspaceBytes: planned.workspace?.bytes ?? 0,
    copies: planned.copies.length,
  };
}

function explainValue(node: Node, { name, kind }: Buffer): ExplainedValue {
  const type = node.op === leafOp ? leafAttributes(node).format : node.dtype;
  return { name, kind, type: `${type}[${node.shape.join(", ")}]`, bytes: bytesOfValue(node) };
}

function explainKernel(kernel: Kernel, steps: readonly ExplainedStep[], threads: number): ExplainedKernel {
  const { generated } = lowerKernel(kernel, threads);
  const total = (key: "operations" | "bytesMoved"): number => steps.reduce((sum, step) => sum + step[key], 0);
  return {
    name: generated.name,
    kind: kernel.kind,
    lines: steps.map(({ line }) => line),
    operations: total("operations"),
    bytesMoved: total("bytesMoved"),
    schedule: scheduleText(kernel),
    source: generated.source,
  };
}
