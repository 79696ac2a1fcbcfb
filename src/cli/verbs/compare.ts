import { join } from "node:path";
import { z } from "zod";
import type { TrainEvents } from "../../index.js";
import { compare } from "../../index.js";
import { comparisonPage, comparisonTable } from "../../report/comparison.js";
import { writeJsonAtomically, writeTextAtomically } from "../../io/atomic.js";
import { table } from "../format.js";
import { interruptible } from "../interrupt.js";
import { Display, fetchProgress } from "../progress.js";
import { defineVerb, status } from "../verb.js";
import { trainEvents } from "./train.js";

const list = (text: string): string[] =>
  text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");

const seedList = z
  .string()
  .regex(/^\s*\d{1,15}(\s*,\s*\d{1,15})*\s*$/, { error: "must be whole numbers, such as 0,1,2" });

/** Of each run its steps and what is wrong, without the views of its plan and its files. */
function briefly(display: Display): TrainEvents {
  const { onNotice, onDamaged, onStep, onEvaluate } = trainEvents(display);
  return {
    ...(onNotice === undefined ? {} : { onNotice }),
    ...(onDamaged === undefined ? {} : { onDamaged }),
    ...(onStep === undefined ? {} : { onStep }),
    ...(onEvaluate === undefined ? {} : { onEvaluate }),
  };
}

export const compareVerb = defineVerb({
  name: "compare",
  summary: "Train with several methods on one model and budget, and report them side by side",
  description:
    "Every method (or combination, as qlora+mezo) trains with every seed on the same data and is measured on the same " +
    "held-out part. Writes compare.json and compare.html, a page that stands alone, into --out; refused combinations " +
    "are listed with the reason.",
  settings: "all",
  options: z.strictObject({
    methods: z.string().min(1).describe("Methods to compare, separated by commas; + combines, as in qlora+mezo"),
    seeds: seedList.default("0").describe("Seeds of the runs, separated by commas"),
  }),
  examples: [
    {
      command: "compare --methods lora,full,galore --model file:base --data text.txt --steps 50",
      purpose: "three methods",
    },
    { command: "compare --methods lora,paca --seeds 0,1,2 --config run.yaml", purpose: "with the spread over seeds" },
    { command: "compare --methods lora,full --memory-budget 900MiB --config run.yaml", purpose: "in the same memory" },
  ],
  run: async ({ terminal, config, options }) => {
    const display = new Display(terminal);
    const names = list(options.methods);
    const seeds = [...new Set(list(options.seeds).map(Number))];
    try {
      const comparison = await interruptible(terminal, "Stopping with what is finished so far.", (signal) =>
        compare(
          config,
          { methods: names, seeds },
          {
            onRun: ({ name, seed, index, count }) => {
              display.print(terminal.colors.bold(`\n${name}, seed ${seed} (run ${index + 1} of ${count})`));
            },
            onRefused: ({ name, reason, code }) => {
              display.print(`${terminal.colors.yellow("!")} ${name} does not run here: ${reason} (${code})`);
            },
            run: { ...briefly(display), progress: fetchProgress(display) },
          },
          signal,
        ),
      );
      display.stop();
      const [data, page] = ["compare.json", "compare.html"].map((name) => join(config.out, name)) as [string, string];
      await writeJsonAtomically(data, comparison);
      await writeTextAtomically(page, await comparisonPage(comparison));
      const { heads, rows } = comparisonTable(comparison);
      const columns = heads.map((title, place) => ({ title, ...(place === 0 ? {} : { right: true }) }));
      terminal.print(["", ...table(columns, rows, terminal.colors.bold)].join("\n"));
      terminal.print(`held-out loss before training ${comparison.before.toFixed(4)}`);
      terminal.print(`${terminal.colors.green("report")} in ${terminal.colors.bold(page)}`);
      terminal.result(comparison);
      return comparison.methods.length === 0 ? status.failed : undefined;
    } finally {
      display.stop();
    }
  },
});
