import { chooseChatTemplate } from "./chat-template.js";
import type { ChatTemplate, Conversation } from "./chat-template.js";
import { renderTrained } from "./chat-spans.js";
import { encodeSpans } from "./span-encoding.js";
import type { WeightedTokens } from "./span-encoding.js";
import { endIds } from "./tokenizer.js";
import type { Tokenizer } from "./tokenizer.js";

/** One record of a data file, whatever its format. */
export type Example =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "completion"; readonly prompt: string; readonly completion: string }
  | { readonly kind: "chat"; readonly conversation: Conversation; readonly lastTurnOnly?: boolean };

/** Which tokens count: all; the assistant's turns; the completion, which in a conversation is the last such turn. */
export type TrainOn = "all" | "assistant" | "completion";

export interface ExampleOptions {
  /** Default: all of a text, the completion of a prompt, the assistant's turns of a conversation. */
  readonly trainOn?: TrainOn;
  /** A chat template in place of the tokenizer's own. */
  readonly chatTemplate?: string;
}

/** Turns examples into tokens and weights, and counts what a user should know about them. */
export class ExampleEncoder {
  /** Prompts whose last token merged with the start of the completion. */
  mergedBoundaries = 0;
  /** Conversations in which a trained turn does not end with a control token. */
  endlessTurns = 0;
  /** Conversations in which a message holds the text of a control token. */
  foreignControls = 0;
  private template: ChatTemplate | undefined;

  constructor(
    private readonly tokenizer: Tokenizer,
    private readonly options: ExampleOptions = {},
  ) {}

  /** Throws what the chat template throws. */
  encode(example: Example): WeightedTokens {
    switch (example.kind) {
      case "text":
        return { ids: this.framed(this.tokenizer.encode(example.text)) };
      case "completion":
        return this.encodeCompletion(example.prompt, example.completion);
      case "chat":
        return this.encodeChat(example.conversation, example.lastTurnOnly === true);
    }
  }

  get chatTemplate(): ChatTemplate {
    return (this.template ??= chooseChatTemplate(this.tokenizer, this.options.chatTemplate));
  }

  notices(): string[] {
    const notices = [...(this.template?.notices ?? [])];
    if (this.mergedBoundaries > 0) {
      notices.push(
        `In ${this.mergedBoundaries} records the prompt's last token merged with the completion's first; such a token ` +
          "counts as completion. End prompts before the space, not behind it.",
      );
    }
    if (this.endlessTurns > 0) {
      notices.push(
        `In ${this.endlessTurns} conversations a trained turn does not end with a control token, so the model may not ` +
          "learn to stop. Use a chat template that ends turns with one.",
      );
    }
    if (this.foreignControls > 0) {
      notices.push(
        `In ${this.foreignControls} conversations a message holds the text of a control token, which is read as that ` +
          "token. Take such texts out unless they are meant.",
      );
    }
    return notices;
  }

  /** The ids with the EOS token at the end, unless the tokenizer has put it there already. */
  private framed(ids: number[]): number[] {
    const [end] = endIds(this.tokenizer.special);
    if (end !== undefined && ids.at(-1) !== end) ids.push(end);
    return ids;
  }

  private encodeCompletion(prompt: string, completion: string): WeightedTokens {
    const { bos } = this.tokenizer.special;
    const start = this.tokenizer.addBos && bos !== undefined ? [bos] : [];
    const text = prompt + completion;
    const { ids, weights } = encodeSpans(this.tokenizer, text, [{ start: prompt.length, end: text.length }]);
    const promptIds = prompt === "" ? [] : this.tokenizer.encode(prompt, { addSpecial: false });
    if (!promptIds.every((id, index) => ids[index] === id)) this.mergedBoundaries++;
    const framed = this.framed([...start, ...ids]);
    if (this.options.trainOn === "all") return { ids: framed };
    const all = new Uint8Array(framed.length).fill(1);
    all.fill(0, 0, start.length);
    all.set(weights, start.length);
    return { ids: framed, weights: all };
  }

  private encodeChat(conversation: Conversation, lastTurnOnly: boolean): WeightedTokens {
    if (conversation.messages.some((message) => this.hasControl(message.content))) this.foreignControls++;
    if (this.options.trainOn === "all") {
      return { ids: this.tokenizer.encode(this.chatTemplate.render(conversation), { addSpecial: false }) };
    }
    const which = lastTurnOnly || this.options.trainOn === "completion" ? "last" : "assistant";
    const rendered = renderTrained(this.chatTemplate, conversation, this.tokenizer.specialTexts, which);
    if (!rendered.turnsEnd) this.endlessTurns++;
    return encodeSpans(this.tokenizer, rendered.text, rendered.spans);
  }

  private hasControl(content: string | null): boolean {
    return content !== null && this.tokenizer.specialTexts.some((special) => content.includes(special));
  }
}
