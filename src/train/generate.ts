import { readFile } from "node:fs/promises";
import type { GenerationSettings } from "../config/generation.js";
import type { RunConfig } from "../config/schema.js";
import type { ChatMessage, ChatTemplate } from "../data/chat-template.js";
import { chooseChatTemplate } from "../data/chat-template.js";
import { StreamDecoder } from "../data/stream-decoder.js";
import type { Tokenizer } from "../data/tokenizer.js";
import { endIds } from "../data/tokenizer.js";
import { must, ThimbleError } from "../errors.js";
import type { ModelDefinition } from "../models/types.js";
import type { Session } from "../session/types.js";
import type { EvaluateOptions } from "./evaluate.js";
import { describeMachine } from "./machine.js";
import { MemoryProbe } from "./measure.js";
import { openRunModel } from "./model.js";
import { sessionOptions } from "./options.js";
import { composeAdapter, setAdapter } from "./run-methods.js";
import { sampleToken } from "./sample.js";
import { StopText } from "./stop-text.js";
import { realEnvironment } from "./train.js";
import type { PeakMemory } from "./types.js";

export type GenerateOptions = Pick<EvaluateOptions, "progress" | "onPhase" | "onNotice" | "environment"> & {
  /** Positions of the cache, prompts included; 2048, or the model's context if that is shorter, if not given. */
  readonly context?: number;
};

export interface Generation {
  readonly text: string;
  readonly ids: readonly number[];
  /** Why it ended: the model's end token, a stop text, the most tokens, the context's end, or the signal. */
  readonly ended: "end" | "stop" | "length" | "context" | "interrupted";
  readonly promptTokens: number;
  /** Of the tokens that were made, the first left out. */
  readonly tokensPerSecond: number;
}

const defaultContext = 2048;
/** Prompts are fed so many tokens at once. */
const promptChunk = 32;

/** Models with a task have nothing to go on with. */
function refuseNoText({ family, task }: ModelDefinition): void {
  if (task === undefined) return;
  throw new ThimbleError("generate-task", "The model makes no text: it tells something of whole records", {
    where: "model",
    given: `${family}, for ${task.kind}`,
    expected: "a model that predicts tokens",
    fix: "Measure it on labelled data with thimble eval.",
  });
}

/** A model that is loaded and makes text; what it has read stays in its cache from call to call. */
export class TextGenerator {
  /** Tokens whose keys and values are in the cache. */
  #cached: number[] = [];

  private constructor(
    readonly tokenizer: Tokenizer,
    readonly template: ChatTemplate,
    readonly context: number,
    private readonly session: Session,
    private readonly probe: MemoryProbe,
  ) {}

  /** Loads the model of the settings, with its adapter if there is one. Close it after use. */
  static async open(config: RunConfig, options: GenerateOptions = {}): Promise<TextGenerator> {
    const model = await openRunModel(config.model, { progress: options.progress });
    const { definition, weights } = model.files;
    try {
      refuseNoText(definition);
      const run = config.adapter === undefined ? undefined : await composeAdapter(config.adapter, definition);
      const tokenizer = await model.loadTokenizer();
      const template = chooseChatTemplate(
        tokenizer,
        config.template === undefined ? undefined : await readFile(config.template, "utf8"),
      );
      const context = Math.min(options.context ?? defaultContext, definition.contextLength);
      const shape = { ...config, seq: Math.min(config.seq, definition.contextLength) };
      const parts = { definition, weights, methods: run?.methods, segments: false, train: false, evaluate: false };
      const decode = { capacity: context, chunk: Math.min(promptChunk, context) };
      const settings = sessionOptions(shape, { ...parts, decode });
      await describeMachine(settings.target);
      for (const message of [...(run?.notices ?? []), ...tokenizer.notices]) {
        options.onNotice?.({ code: "notice", message });
      }
      const probe = new MemoryProbe();
      options.onPhase?.("compile");
      const session = await (options.environment ?? realEnvironment).openSession(settings);
      try {
        options.onPhase?.("load");
        await session.load(weights);
        if (run?.adapter !== undefined) setAdapter(session, run.adapter);
        return new TextGenerator(tokenizer, template, context, session, probe);
      } catch (error) {
        session.close();
        throw error;
      }
    } finally {
      await weights.close();
    }
  }

  get peak(): PeakMemory {
    return this.probe.peak(this.session);
  }

  close(): void {
    this.session.close();
  }

  /** Goes on from a text. `onText` gets the new text as it settles. */
  generate(
    prompt: string,
    settings: GenerationSettings,
    onText?: (text: string) => void,
    signal?: AbortSignal,
  ): Promise<Generation> {
    const ids = this.tokenizer.encode(prompt);
    const ends = endIds(this.tokenizer.special);
    if (this.tokenizer.addEos && ends.includes(ids.at(-1) ?? -1)) ids.pop();
    return this.continueIds(ids, settings, onText, signal);
  }

  /** Answers the last message of a conversation. */
  chat(
    messages: readonly ChatMessage[],
    settings: GenerationSettings,
    onText?: (text: string) => void,
    signal?: AbortSignal,
  ): Promise<Generation> {
    const text = this.template.render({ messages }, { addGenerationPrompt: true });
    return this.continueIds(this.tokenizer.encode(text, { addSpecial: false }), settings, onText, signal);
  }

  /** Goes on from token ids. */
  async continueIds(
    prompt: readonly number[],
    settings: GenerationSettings,
    onText: (text: string) => void = () => undefined,
    signal?: AbortSignal,
  ): Promise<Generation> {
    const ids = prompt.length > 0 ? [...prompt] : this.#start();
    this.#refuseLongPrompt(ids.length);
    const ends = new Set(endIds(this.tokenizer.special));
    const decoder = new StreamDecoder(this.tokenizer, { skipSpecial: true });
    const stop = new StopText(settings.stop);
    const made: number[] = [];
    let text = "";
    const show = (piece: string): void => {
      text += piece;
      if (piece !== "") onText(piece);
    };
    let logits = await this.#feed(ids);
    const started = performance.now();
    let ended: Generation["ended"] | undefined;
    while (ended === undefined) {
      const id = sampleToken(logits, settings, made.length);
      if (ends.has(id)) {
        ended = "end";
        break;
      }
      made.push(id);
      ids.push(id);
      show(stop.push(decoder.push(id)));
      if (stop.stopped) ended = "stop";
      else if (made.length >= settings.maxTokens) ended = "length";
      else if (ids.length >= this.context) ended = "context";
      else if (signal?.aborted === true) ended = "interrupted";
      else logits = await this.#feed(ids);
    }
    const seconds = (performance.now() - started) / 1000;
    show(stop.push(decoder.flush()));
    show(stop.flush());
    const promptTokens = ids.length - made.length;
    const tokensPerSecond = seconds > 0 ? Math.max(0, made.length - 1) / seconds : 0;
    return { text, ids: made, ended, promptTokens, tokensPerSecond };
  }

  /** Puts what is new of `ids` into the cache; the logits after the last of them. */
  async #feed(ids: readonly number[]): Promise<Float32Array> {
    let same = 0;
    while (same < ids.length - 1 && ids[same] === this.#cached[same]) same++;
    this.#cached = this.#cached.slice(0, same);
    const logits = await this.session.decode(Int32Array.from(ids.slice(same)), same);
    this.#cached = [...ids];
    return logits;
  }

  /** What stands before a text where nothing else does. */
  #start(): number[] {
    const { special } = this.tokenizer;
    const start = special.bos ?? endIds(special)[0];
    if (start !== undefined) return [start];
    throw new ThimbleError("generate-empty", "There is nothing to go on from: the model has no start token", {
      fix: "Give a prompt.",
    });
  }

  #refuseLongPrompt(length: number): void {
    if (length < this.context) return;
    throw new ThimbleError("generate-context", "The prompt does not fit into the context", {
      given: `${length} tokens`,
      expected: `fewer than ${must(this.context, "context")}`,
      fix: "Shorten the prompt, or give a larger --context.",
    });
  }
}
