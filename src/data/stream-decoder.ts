import type { Tokenizer } from "./tokenizer.js";

/** Longest run of tokens that is decoded again and again while its text is not settled. */
const longestWindow = 64;
/** Tokens kept before the window, so that decoders which treat a text's first token differently see it as usual. */
const contextTokens = 4;

/** What a decoder writes for bytes that are not (yet) text. */
const unsettled = "\uFFFD";

/**
 * Decodes generated tokens one by one. Text is given out as soon as it can no longer change: a character whose bytes
 * are spread over several tokens appears with its last one.
 */
export class StreamDecoder {
  private context: number[] = [];
  private window: number[] = [];
  private emitted = 0;

  constructor(
    private readonly tokenizer: Tokenizer,
    private readonly options: { skipSpecial?: boolean } = {},
  ) {}

  /** Adds a token; returns the text that it settles, often empty for parts of a character. */
  push(id: number): string {
    this.window.push(id);
    const text = this.windowText();
    let settled = text.length;
    while (settled > 0 && text[settled - 1] === unsettled) settled--;
    const fresh = text.slice(this.emitted, settled);
    this.emitted = Math.max(this.emitted, settled);
    if (settled === text.length) this.advance();
    else if (this.window.length >= longestWindow) return fresh + this.flush();
    return fresh;
  }

  /** The rest, including bytes that never became a character. */
  flush(): string {
    const rest = this.windowText().slice(this.emitted);
    this.advance();
    return rest;
  }

  private windowText(): string {
    const before = this.tokenizer.decode(this.context, this.options);
    return this.tokenizer.decode([...this.context, ...this.window], this.options).slice(before.length);
  }

  private advance(): void {
    this.context = [...this.context, ...this.window].slice(-contextTokens);
    this.window = [];
    this.emitted = 0;
  }
}
