/** The memory plan as people see it: bytes by kind at the peak, where the peak is, and the course over the steps. */
import type { Kind } from "../plan/plan.js";
import type { Composition, MemoryReport, ProgramReport, TimelineEntry } from "../plan/report.js";
import { processBytes } from "../session/overhead.js";
import { bar, bytes, duration, percent, shortened, table, wrapped } from "./format.js";
import type { Colors, Terminal } from "./terminal.js";

const kinds: readonly Kind[] = ["weights", "gradients", "states", "saved", "workspace"];

const meanings: Readonly<Record<Kind, string>> = {
  weights: "the model, and what trains",
  gradients: "waiting for their update",
  states: "the optimizer's",
  saved: "kept by forward for backward",
  workspace: "everything else",
};

function painter(colors: Colors, kind: Kind): (text: string) => string {
  const { blue, magenta, cyan, yellow, gray } = colors;
  return { weights: blue, gradients: magenta, states: cyan, saved: yellow, workspace: gray }[kind];
}

/** The program whose peak is the plan's. */
export function peakProgram({ programs }: MemoryReport): ProgramReport | undefined {
  const [first, ...rest] = programs;
  return rest.reduce((best, program) => (program.planBytes > (best?.planBytes ?? 0) ? program : best), first);
}

/** The plan in numbers and bars, and where its peak is. */
export function memoryView(report: MemoryReport, terminal: Terminal): string[] {
  const { colors } = terminal;
  const program = peakProgram(report);
  return [
    `${colors.bold("Memory")}  ${colors.bold(bytes(report.planBytes))} at the peak`,
    ...compositionView(report.composition, terminal),
    ...(program === undefined ? [] : peakView(program, report.programs.length > 1, terminal)),
    ...diskView(report.disk),
    ...report.notes.map((note) => `  ${note}`),
    ...decisionsView(report, terminal),
  ];
}

/** What lies on disk, and what is read from there. */
function diskView(disk: MemoryReport["disk"]): string[] {
  if (disk === undefined) return [];
  const moved = disk.programs.map(({ name, read, written }) =>
    [`${name} reads ${bytes(read)}`, ...(written > 0 ? [`writes ${bytes(written)}`] : [])].join(" and "),
  );
  const frozen = disk.programs.some(({ written }) => written > 0) ? "" : "frozen ";
  return [`  on disk   ${bytes(disk.bytes).padStart(9)} of ${frozen}weights; each run of ${moved.join(", of ")}`];
}

/** What the plan does to keep to a budget, and what that costs. */
function decisionsView({ decisions, planBytes, stepSeconds }: MemoryReport, { colors }: Terminal): string[] {
  if (stepSeconds === 0) return [];
  const process = `with the process about ${bytes(planBytes + processBytes)}`;
  return [
    `  ${process}; a step takes about ${duration(stepSeconds)} (predicted)`,
    ...decisions.flatMap(({ what, savedBytes, seconds, exact }) => [
      ...wrapped(`- ${what}`, 100).map((line, index) => `${index === 0 ? "  " : "    "}${line}`),
      colors.dim(
        `    saves ${bytes(savedBytes)}, +${seconds.toFixed(2)} s a step (predicted)${exact ? "" : "; changes how values round"}`,
      ),
    ]),
  ];
}

function compositionView(composition: Composition, { colors, width }: Terminal): string[] {
  const all = kinds.reduce((sum, kind) => sum + composition[kind], 0);
  const barWidth = Math.max(8, Math.min(32, width - 64));
  return kinds.map((kind) => {
    const share = all === 0 ? 0 : composition[kind] / all;
    const drawn = bar(share, barWidth).padEnd(barWidth);
    const numbers = `${bytes(composition[kind]).padStart(9)}  ${percent(composition[kind], all).padStart(6)}`;
    return `  ${kind.padEnd(9)} ${numbers}  ${painter(colors, kind)(drawn)}  ${colors.dim(meanings[kind])}`;
  });
}

function peakView({ name, peak, timeline }: ProgramReport, named: boolean, { colors, width }: Terminal): string[] {
  const place = `step ${peak.step + 1} of ${timeline.length}${named ? ` of ${name}` : ""}`;
  const largest = peak.largest.slice(0, 3).map((one) => `${one.name} ${bytes(one.bytes)}`);
  return [
    `  peak at ${place}: ${peak.label}`,
    ...(largest.length === 0 ? [] : [colors.dim(shortened(`  largest: ${largest.join(", ")}`, width))]),
  ];
}

const rising = "▁▂▃▄▅▆▇█";
const chartHeight = 8;

/** Bytes alive over the steps of a program, as a chart with the peak marked. */
export function timelineChart(program: ProgramReport, { colors, width }: Terminal): string[] {
  const { timeline, peak } = program;
  if (timeline.length === 0) return [];
  const values = timeline.map((entry) => entry.bytes);
  const columns = Math.min(timeline.length, Math.max(10, width - 13));
  const heights = Array.from({ length: columns }, (_, column) => {
    const [from, to] = [column, column + 1].map((edge) => Math.floor((edge * values.length) / columns));
    return Math.max(...values.slice(from, Math.max((from ?? 0) + 1, to ?? 0)));
  });
  const [lowest, highest] = [Math.min(...values), Math.max(...values)];
  const lines = Array.from({ length: chartHeight }, (_, index) => {
    const row = chartHeight - 1 - index;
    const label = row === chartHeight - 1 ? bytes(highest) : row === 0 ? bytes(lowest) : "";
    return `${label.padStart(9)} ${colors.cyan(heights.map((height) => cell(height, row, lowest, highest)).join(""))}`;
  });
  const place = Math.min(columns - 1, Math.floor((peak.step * columns) / timeline.length));
  const steps = `1 … ${timeline.length} steps of ${program.name}`;
  return [...lines, `${" ".repeat(10 + place)}${colors.bold("▲")} peak`, `${" ".repeat(10)}${colors.dim(steps)}`];
}

function cell(height: number, row: number, lowest: number, highest: number): string {
  const span = highest - lowest;
  const eighths = span === 0 ? 8 : Math.max(1, Math.round(((height - lowest) / span) * chartHeight * 8));
  const here = Math.max(0, Math.min(8, eighths - row * 8));
  return here === 0 ? " " : (rising[here - 1] ?? " ");
}

/** Every step of a program with the bytes alive while it runs. */
export function timelineRows({ timeline }: ProgramReport, { colors, width }: Terminal): string[] {
  const rows = timeline.map(({ step, bytes: count, label }: TimelineEntry) => [
    String(step + 1),
    bytes(count),
    shortened(label, width - 20),
  ]);
  const columns = [{ title: "step", right: true }, { title: "alive", right: true }, { title: "what runs" }];
  return table(columns, rows, colors.bold);
}
