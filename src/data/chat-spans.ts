import { ThimbleError } from "../errors.js";
import type { ChatTemplate, Conversation, Span } from "./chat-template.js";

/** A rendered conversation and what in it the assistant wrote, end-of-turn token included. */
export interface RenderedConversation {
  readonly text: string;
  /** One span for each trained turn, in order. */
  readonly spans: readonly Span[];
  /** Whether each of these turns ends with a control token, so that the model can learn to stop. */
  readonly turnsEnd: boolean;
}

/**
 * Renders a conversation and finds the assistant's turns among its characters: from the template's own generation
 * markers; or, without them, by rendering the conversation up to before and up to behind each turn; or, where the
 * template changes earlier turns as the conversation goes on, by rendering with placeholders for the contents.
 *
 * A message with `weight: 0` is not trained. Throws `chat-template-unstable` if no way gives a certain answer.
 */
export function renderTrained(
  template: ChatTemplate,
  conversation: Conversation,
  specialTexts: readonly string[],
  which: "assistant" | "last",
): RenderedConversation {
  const turns = assistantTurns(conversation);
  if (turns.length === 0) return { text: template.render(conversation), spans: [], turnsEnd: true };
  const { text, spans } = locate(template, conversation, turns, specialTexts);
  const chosen = spans.filter((_, index) => {
    const turn = turns[index] ?? -1;
    return conversation.messages[turn]?.["weight"] !== 0 && (which === "assistant" || index === turns.length - 1);
  });
  const turnsEnd = chosen.every((span) => endsWithSpecial(text.slice(span.start, span.end), specialTexts));
  return { text, spans: chosen, turnsEnd };
}

function assistantTurns(conversation: Conversation): number[] {
  return conversation.messages.flatMap((message, index) => (message.role === "assistant" ? [index] : []));
}

function locate(
  template: ChatTemplate,
  conversation: Conversation,
  turns: readonly number[],
  specialTexts: readonly string[],
): { text: string; spans: Span[] } {
  if (template.hasMarkers) {
    const { text, spans } = template.renderMarked(conversation);
    if (spans.length === turns.length)
      return { text, spans: spans.map((span) => withEndToken(text, span, specialTexts)) };
    throw unstable(`it marks ${spans.length} generated parts for ${turns.length} assistant turns`);
  }
  const text = template.render(conversation);
  const appended = fromPrefixes(template, conversation, turns, text);
  if (appended !== undefined) return { text, spans: appended.map((span) => trimmed(text, span, specialTexts)) };
  const aligned = fromPlaceholders(template, conversation, turns, text);
  if (aligned !== undefined) return { text, spans: aligned.map((span) => withEndToken(text, span, specialTexts)) };
  throw unstable("it writes earlier turns differently as the conversation goes on");
}

/** The spans by rendering up to before each turn (with the generation prompt) and up to behind it. */
function fromPrefixes(
  template: ChatTemplate,
  conversation: Conversation,
  turns: readonly number[],
  text: string,
): Span[] | undefined {
  const spans: Span[] = [];
  for (const turn of turns) {
    const before = renderUpTo(template, conversation, turn, false);
    const prompted = renderUpTo(template, conversation, turn, true);
    const behind = renderUpTo(template, conversation, turn + 1, false);
    if (before === undefined || prompted === undefined || behind === undefined) return undefined;
    if (!text.startsWith(behind) || !behind.startsWith(before)) return undefined;
    // The prompt may hold what a finished turn lacks (an opened thinking block): the common part is the prompt proper.
    const start = commonLength(prompted, behind);
    if (start < before.length || start === behind.length) return undefined;
    spans.push({ start, end: behind.length });
  }
  return spans;
}

/** The first turns as text, or undefined where the template refuses them. */
function renderUpTo(
  template: ChatTemplate,
  conversation: Conversation,
  end: number,
  addGenerationPrompt: boolean,
): string | undefined {
  try {
    return template.render({ ...conversation, messages: conversation.messages.slice(0, end) }, { addGenerationPrompt });
  } catch {
    return undefined;
  }
}

/** What the template writes to have the assistant begin a turn. */
function generationPrompt(template: ChatTemplate, conversation: Conversation, turn: number): string {
  const before = renderUpTo(template, conversation, turn, false) ?? "";
  const prompted = renderUpTo(template, conversation, turn, true) ?? "";
  return prompted.startsWith(before) ? prompted.slice(before.length) : "";
}

/** The spans by rendering once with a placeholder for each assistant content and aligning what stands between them. */
function fromPlaceholders(
  template: ChatTemplate,
  conversation: Conversation,
  turns: readonly number[],
  text: string,
): Span[] | undefined {
  const placeholder = (turn: number): string => `\uE0F2${turn}\uE0F3`;
  const messages = conversation.messages.map((message, index) =>
    turns.includes(index) ? { ...message, content: placeholder(index) } : message,
  );
  const parts = template.render({ ...conversation, messages }).split(/\uE0F2(\d+)\uE0F3/);
  const found = parts.filter((_, index) => index % 2 === 1).map(Number);
  if (found.length !== turns.length || !found.every((turn, index) => turn === turns[index])) return undefined;
  const spans: Span[] = [];
  let at = 0;
  for (const [index, turn] of turns.entries()) {
    const lead = parts[2 * index] ?? "";
    if (!text.startsWith(lead, at)) return undefined;
    const content = at + lead.length;
    const end = contentEnd(text, content, conversation.messages[turn]?.content, parts[2 * index + 2] ?? "");
    if (end === undefined) return undefined;
    // What stands between the generation prompt and the content is for the assistant to write, too.
    const prompt = generationPrompt(template, conversation, turn);
    const prompted = prompt === "" ? -1 : lead.lastIndexOf(prompt);
    spans.push({ start: prompted < 0 ? content : at + prompted + prompt.length, end });
    at = end;
  }
  return text.slice(at) === parts.at(-1) ? spans : undefined;
}

/** Where a content that starts at `start` ends, given the text that the template writes behind it. */
function contentEnd(text: string, start: number, content: unknown, behind: string): number | undefined {
  for (const written of typeof content === "string" ? [content, content.trim(), content.trimStart()] : []) {
    if (text.startsWith(written + behind, start)) return start + written.length;
  }
  // A template that shortens contents (drops thinking from earlier turns): up to where the known text goes on.
  const end = behind === "" ? text.length : text.indexOf(behind, start);
  return end < 0 ? undefined : end;
}

/** The span with the control token that follows it directly. */
function withEndToken(text: string, span: Span, specialTexts: readonly string[]): Span {
  if (endsWithSpecial(text.slice(span.start, span.end), specialTexts)) return span;
  const next = specialTexts.filter((special) => text.startsWith(special, span.end));
  return next.length === 0
    ? span
    : { start: span.start, end: span.end + Math.max(...next.map((special) => special.length)) };
}

/** The span without the white space that the template puts behind its end-of-turn token. */
function trimmed(text: string, span: Span, specialTexts: readonly string[]): Span {
  const written = text.slice(span.start, span.end).trimEnd();
  return endsWithSpecial(written, specialTexts) ? { start: span.start, end: span.start + written.length } : span;
}

function endsWithSpecial(text: string, specialTexts: readonly string[]): boolean {
  return specialTexts.some((special) => text.endsWith(special));
}

function commonLength(left: string, right: string): number {
  let length = 0;
  while (length < left.length && left[length] === right[length]) length++;
  return length;
}

function unstable(reason: string): ThimbleError {
  return new ThimbleError(
    "chat-template-unstable",
    `The chat template does not tell what the assistant wrote: ${reason}`,
    {
      expected: "a template with {% generation %} markers, or one that only appends as the conversation goes on",
      fix: "Put {% generation %} and {% endgeneration %} around the assistant's content in the template, or train on all.",
    },
  );
}
