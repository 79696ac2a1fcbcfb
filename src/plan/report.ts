import type { Decision } from "./budget/describe.js";
import { liveBytes } from "./offsets.js";
import { sum } from "./sum.js";
import type { Kind, PersistentLayout, ProgramPlan } from "./plan.js";

export type Composition = Readonly<Record<Kind, number>>;

export interface TimelineEntry {
  readonly step: number;
  readonly label: string;
  /** Bytes alive while the step runs, persistent ones included. */
  readonly bytes: number;
}

export interface ProgramReport {
  readonly name: string;
  readonly planBytes: number;
  /** What no placement of the same order could go below. */
  readonly boundBytes: number;
  /** What lives at the moment of the peak; sums to `planBytes` (gaps between buffers count as workspace). */
  readonly composition: Composition;
  readonly peak: {
    readonly step: number;
    readonly label: string;
    readonly largest: readonly { name: string; kind: Kind; bytes: number }[];
  };
  readonly timeline: readonly TimelineEntry[];
}

/** Tensors that lie on disk: their bytes, and what each program moves when it runs once. */
export interface DiskReport {
  readonly bytes: number;
  readonly programs: readonly { readonly name: string; readonly read: number; readonly written: number }[];
}

/** What a run will take, before it runs. */
export interface MemoryReport {
  /** Bytes that the runtime allocates: the persistent ones and the largest program's. */
  readonly planBytes: number;
  /** Bytes of each allocation; targets without a limit have one. */
  readonly shards: readonly number[];
  readonly boundBytes: number;
  readonly composition: Composition;
  readonly programs: readonly ProgramReport[];
  /** Why gradients are not consumed by their updates at birth, if they are not. */
  readonly notes: readonly string[];
  /** What the plan does to need less memory, by a budget's leave. */
  readonly decisions: readonly Decision[];
  /** Predicted seconds of an optimizer step; 0 where nothing trains. */
  readonly stepSeconds: number;
  /** Present if tensors lie on disk. */
  readonly disk?: DiskReport;
}

export function reportProgram(plan: ProgramPlan, layout: PersistentLayout): ProgramReport {
  const live = liveBytes(plan.buffers);
  const bytes = plan.steps.map((_, index) => layout.bytes + (live[index] ?? 0));
  const peak = bytes.reduce((best, value, index) => (value > (bytes[best] ?? 0) ? index : best), 0);
  const planBytes = layout.bytes + plan.extent;
  const atPeak = [
    ...[...layout.buffers.values()].filter(({ tier }) => tier !== "disk"),
    ...plan.buffers.filter((buffer) => buffer.start <= peak && peak <= buffer.end),
  ];
  const composition = { weights: 0, gradients: 0, states: 0, saved: 0, workspace: 0 };
  for (const buffer of atPeak) composition[buffer.kind] += buffer.bytes;
  composition.workspace += planBytes - sum(atPeak, (buffer) => buffer.bytes);
  const largest = [...atPeak].sort((a, b) => b.bytes - a.bytes).slice(0, 12);
  return {
    name: plan.name,
    planBytes,
    boundBytes: layout.bytes + plan.bound,
    composition,
    peak: {
      step: peak,
      label: labelOf(plan, peak),
      largest: largest.map(({ name, kind, bytes: size }) => ({ name, kind, bytes: size })),
    },
    timeline: bytes.map((value, step) => ({ step, label: labelOf(plan, step), bytes: value })),
  };
}

function labelOf(plan: ProgramPlan, index: number): string {
  const step = plan.steps[index]?.step;
  const output = step?.kernel.outputs[0];
  if (step === undefined || output === undefined) return "";
  const what = step.kernel.kind === "fixed" ? step.kernel.node.op.name : step.kernel.kind;
  return `${output.scope === "" ? output.op.name : output.scope} ${what}${step.again ? " (again)" : ""}`;
}

/** The report of programs that share one arena. */
export function reportPrograms(
  plans: readonly ProgramPlan[],
  layout: PersistentLayout,
  notes: readonly string[],
): MemoryReport {
  const programs = plans.map((plan) => reportProgram(plan, layout));
  const first = programs[0];
  const largest = programs.reduce(
    (best, program) => (program.planBytes > best.planBytes ? program : best),
    first ?? empty,
  );
  const shards = largestShards([layout.shards, ...plans.map((plan) => plan.shards)]);
  const planBytes = sum(shards, (bytes) => bytes);
  const { workspace } = largest.composition;
  return {
    planBytes,
    shards,
    boundBytes: Math.max(layout.bytes, ...programs.map((program) => program.boundBytes)),
    // Programs that are largest in different shards need, together, more than any of them.
    composition: { ...largest.composition, workspace: workspace + Math.max(0, planBytes - largest.planBytes) },
    programs,
    notes,
    decisions: [],
    stepSeconds: 0,
    ...(layout.diskBytes === 0 ? {} : { disk: reportDisk(plans, layout) }),
  };
}

function reportDisk(plans: readonly ProgramPlan[], { diskBytes }: PersistentLayout): DiskReport {
  const moved = ({ transfers }: ProgramPlan, wanted: "read" | "write"): number =>
    sum(transfers, ({ direction, stored }) => (direction === wanted ? stored.bytes : 0));
  const programs = plans.map((plan) => ({ name: plan.name, read: moved(plan, "read"), written: moved(plan, "write") }));
  return { bytes: diskBytes, programs };
}

function largestShards(all: readonly (readonly number[])[]): number[] {
  const count = all.reduce((most, shards) => Math.max(most, shards.length), 0);
  return Array.from({ length: count }, (_, index) =>
    all.reduce((most, shards) => Math.max(most, shards[index] ?? 0), 0),
  );
}

const empty: ProgramReport = {
  name: "",
  planBytes: 0,
  boundBytes: 0,
  composition: { weights: 0, gradients: 0, states: 0, saved: 0, workspace: 0 },
  peak: { step: 0, label: "", largest: [] },
  timeline: [],
};
