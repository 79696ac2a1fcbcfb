import { Template } from "@huggingface/jinja";
import { ThimbleError } from "../errors.js";
import { redirectStrip, stripFunctions } from "./jinja-strip.js";
import { messageOf } from "./json.js";
import type { JsonObject } from "./json.js";
import { endIds } from "./tokenizer.js";
import type { Tokenizer } from "./tokenizer.js";

/** One turn. Fields beside these (`tool_calls`, `name`, ...) are passed to the template as they are. */
export interface ChatMessage {
  readonly role: string;
  readonly content: string | null;
  readonly [field: string]: unknown;
}

export interface Conversation {
  readonly messages: readonly ChatMessage[];
  /** Descriptions of the tools that the assistant may call, as the template wants them. */
  readonly tools?: readonly unknown[];
}

/** Characters [start, end) of a rendered text. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** Characters of Unicode's private use area that stand for generation markers while rendering. */
const markers = { open: "\uE0F0\uE0F1", close: "\uE0F1\uE0F0" };
const generationTag = /\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}/g;

const chatMl =
  "{% for message in messages %}<|im_start|>{{ message.role }}\n" +
  "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}" +
  "{% else %}{{ message.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}";

const plainRoles =
  "{{ start }}{% for message in messages %}{% if message.role == 'assistant' %}" +
  "Assistant: {% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}{{ '\n' }}" +
  "{% else %}{{ message.role | capitalize }}: {{ message.content }}{{ '\n' }}{% endif %}{% endfor %}" +
  "{% if add_generation_prompt %}Assistant:{% endif %}";

/** A model's chat template, ready to render conversations. */
export class ChatTemplate {
  /** Whether the template itself marks what the assistant writes (`{% generation %}`). */
  readonly hasMarkers: boolean;
  private readonly plain: Template;
  private readonly marked: Template;
  private readonly variables: JsonObject;

  /** Throws `chat-template-broken` where the template is not valid Jinja. */
  constructor(
    readonly source: string,
    readonly notices: readonly string[],
    tokenizer: Tokenizer,
  ) {
    this.hasMarkers = source.search(generationTag) >= 0;
    this.plain = compile(source.replace(generationTag, (_, left: string, __, right: string) => tag(left, "", right)));
    this.marked = compile(
      source.replace(generationTag, (_, left: string, end: string | undefined, right: string) =>
        tag(left, end === undefined ? markers.open : markers.close, right),
      ),
    );
    this.variables = templateVariables(tokenizer);
  }

  /** The text of a conversation; with `addGenerationPrompt`, up to where the assistant's next turn begins. */
  render(conversation: Conversation, options: { addGenerationPrompt?: boolean } = {}): string {
    return this.run(this.plain, conversation, options.addGenerationPrompt === true);
  }

  /** The text, and what stands between the template's own generation markers. */
  renderMarked(conversation: Conversation): { text: string; spans: Span[] } {
    const rendered = this.run(this.marked, conversation, false);
    const spans: Span[] = [];
    let [text, start] = ["", -1];
    for (const part of rendered.split(new RegExp(`(${markers.open}|${markers.close})`))) {
      if (part === markers.open) start = text.length;
      else if (part !== markers.close) text += part;
      else if (start >= 0) spans.push({ start, end: text.length });
    }
    return { text, spans };
  }

  private run(template: Template, conversation: Conversation, addGenerationPrompt: boolean): string {
    const { messages, tools } = conversation;
    const given = tools === undefined ? {} : { tools };
    try {
      return template.render({ ...this.variables, ...given, messages, add_generation_prompt: addGenerationPrompt });
    } catch (error) {
      throw new ThimbleError(
        "chat-template-failed",
        `The chat template refuses the conversation: ${messageOf(error)}`,
        {
          given: `roles ${messages.map((message) => message.role).join(", ")}`,
          fix: "Check the order of roles, or give another template.",
          cause: error,
        },
      );
    }
  }
}

/**
 * The template to use: the one given, else the tokenizer's own, else ChatML where the vocabulary has its two tokens,
 * else plain `User:` and `Assistant:` lines, where the assistant's turn ends with the EOS token.
 */
export function chooseChatTemplate(tokenizer: Tokenizer, given?: string): ChatTemplate {
  if (given !== undefined) return new ChatTemplate(given, [], tokenizer);
  const own = tokenizer.chatTemplate;
  if (own !== undefined) {
    const dated = own.includes("strftime_now");
    return new ChatTemplate(
      own,
      dated ? ["The chat template writes today's date into each conversation."] : [],
      tokenizer,
    );
  }
  const known = ["<|im_start|>", "<|im_end|>"].every((token) => tokenizer.tokenId(token) !== undefined);
  const form = known ? "ChatML (<|im_start|>, <|im_end|>)" : 'lines that start with "User:" and "Assistant:"';
  const notice = `The model comes without a chat template; conversations are written as ${form}.`;
  return new ChatTemplate(known ? chatMl : plainRoles, [notice], tokenizer);
}

/** A block tag in place of a generation tag, so that Jinja treats the white space around it in the same way. */
function tag(left: string, output: string, right: string): string {
  return `{%${left} if true %}{{ "${output}" }}{% endif ${right}%}`;
}

function compile(source: string): Template {
  try {
    const template = new Template(source);
    redirectStrip(template);
    return template;
  } catch (error) {
    throw new ThimbleError("chat-template-broken", `The chat template is not valid: ${messageOf(error)}`, {
      expected: "a Jinja template",
      fix: "Take chat_template.jinja from the model's page again, or give another template.",
      cause: error,
    });
  }
}

function templateVariables(tokenizer: Tokenizer): JsonObject {
  const { bos, pad, unknown } = tokenizer.special;
  const text = (id: number | undefined): string => (id === undefined ? "" : tokenizer.tokenText(id));
  return {
    ...stripFunctions,
    bos_token: text(bos),
    eos_token: text(endIds(tokenizer.special)[0]),
    pad_token: text(pad),
    unk_token: text(unknown),
    start: tokenizer.addBos ? text(bos) : "",
  };
}
