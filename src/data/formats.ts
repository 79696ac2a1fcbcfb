import { ThimbleError } from "../errors.js";
import type { ChatMessage, Conversation } from "./chat-template.js";
import type { Example } from "./examples.js";
import { asArray, asObject, asString, kindOf } from "./json.js";
import type { JsonObject } from "./json.js";

/** The record formats, by the fields that mark them. */
export type RecordFormat = "text" | "prompt-completion" | "messages" | "alpaca" | "sharegpt";

/** What a record has to look like, for error messages; the order is that of detection. */
const shapes: Readonly<Record<RecordFormat, string>> = {
  messages: '{"messages": [{"role": "user", "content": "..."}, ...]}',
  sharegpt: '{"conversations": [{"from": "human", "value": "..."}, ...]}',
  "prompt-completion": '{"prompt": "...", "completion": "..."}',
  alpaca: '{"instruction": "...", "input": "...", "output": "..."}',
  text: '{"text": "..."}',
};

export const recordFormats = Object.keys(shapes) as readonly RecordFormat[];

/** The format of a record by its fields, or undefined. Fields that a format does not use are no hindrance. */
export function detectFormat(record: JsonObject): RecordFormat | undefined {
  if (Array.isArray(record["messages"])) return "messages";
  if (Array.isArray(record["conversations"])) {
    return asObject(asArray(record["conversations"])?.[0])?.["role"] === undefined ? "sharegpt" : "messages";
  }
  if ("prompt" in record && "completion" in record) return "prompt-completion";
  if ("instruction" in record && "output" in record) return "alpaca";
  return "text" in record ? "text" : undefined;
}

/** Reads a record of a known format. `where` is its file and line. Throws `data-record` with both. */
export function parseRecord(record: JsonObject, format: RecordFormat, where: string): Example {
  const reader = new RecordReader(record, format, where);
  switch (format) {
    case "text":
      return { kind: "text", text: reader.string("text") };
    case "prompt-completion":
      return reader.promptCompletion();
    case "messages":
      return {
        kind: "chat",
        conversation: reader.conversation(reader.messages("messages" in record ? "messages" : "conversations")),
      };
    case "sharegpt":
      return { kind: "chat", conversation: reader.conversation(reader.shareGpt()) };
    case "alpaca":
      return { kind: "chat", conversation: reader.conversation(reader.alpaca()), lastTurnOnly: false };
  }
}

/** The error of a record in no known format, or in another format than those before it. */
export function formatError(record: JsonObject, expected: RecordFormat | undefined, where: string): ThimbleError {
  const found = detectFormat(record);
  const fields = Object.keys(record).slice(0, 12).join(", ");
  if (expected !== undefined && found !== undefined && found !== expected) {
    return new ThimbleError("data-mixed-formats", `The record has the format ${found}, those before it ${expected}`, {
      where,
      given: `the fields ${fields}`,
      expected: shapes[expected],
      fix: "Put records of different formats into different files and train on one of them, or convert them.",
    });
  }
  return new ThimbleError("data-unknown-format", "The record has none of the known formats", {
    where,
    given: fields === "" ? "an empty object" : `the fields ${fields}`,
    expected: expected === undefined ? Object.values(shapes).join("\n            ") : shapes[expected],
    fix: "Rename the fields to those of a known format.",
  });
}

const shareGptRoles: Readonly<Record<string, string>> = {
  human: "user",
  user: "user",
  gpt: "assistant",
  assistant: "assistant",
  chatgpt: "assistant",
  model: "assistant",
  bot: "assistant",
  system: "system",
  tool: "tool",
  observation: "tool",
  function_call: "assistant",
  function_response: "tool",
};

class RecordReader {
  constructor(
    private readonly record: JsonObject,
    private readonly format: RecordFormat,
    private readonly where: string,
  ) {}

  string(field: string): string {
    return asString(this.record[field]) ?? this.fail(`"${field}" is not a string`, kindOf(this.record[field]));
  }

  /** A string that may be missing or null. */
  optional(field: string): string {
    return this.record[field] === undefined || this.record[field] === null ? "" : this.string(field);
  }

  promptCompletion(): Example {
    if (!Array.isArray(this.record["prompt"]) && !Array.isArray(this.record["completion"])) {
      return { kind: "completion", prompt: this.string("prompt"), completion: this.string("completion") };
    }
    const turns = [...this.messages("prompt"), ...this.messages("completion")];
    return { kind: "chat", conversation: this.conversation(turns), lastTurnOnly: true };
  }

  conversation(messages: readonly ChatMessage[]): Conversation {
    const given = this.record["tools"];
    if (given === undefined || given === null || given === "") return { messages };
    const tools = typeof given === "string" ? this.parseTools(given) : asArray(given);
    return tools === undefined ? this.fail('"tools" is not a list', kindOf(given)) : { messages, tools };
  }

  messages(field: string): ChatMessage[] {
    const list = asArray(this.record[field]) ?? this.fail(`"${field}" is not a list`, kindOf(this.record[field]));
    return list.map((entry, index) => this.message(entry, `${field}[${index}]`));
  }

  shareGpt(): ChatMessage[] {
    const system = this.optional("system");
    const turns = (asArray(this.record["conversations"]) ?? []).map((entry, index) => {
      const turn = asObject(entry);
      const from = asString(turn?.["from"]);
      const role = from === undefined ? undefined : shareGptRoles[from.toLowerCase()];
      const content = asString(turn?.["value"]);
      if (role !== undefined && content !== undefined) return { role, content };
      const known = Object.keys(shareGptRoles).join(", ");
      return this.fail(
        `conversations[${index}] has no known "from" (${known}) or no "value"`,
        JSON.stringify(entry).slice(0, 80),
      );
    });
    return system === "" ? turns : [{ role: "system", content: system }, ...turns];
  }

  /** Instruction and input become the user's turn, the output the assistant's, earlier rounds what they were. */
  alpaca(): ChatMessage[] {
    const [system, input] = [this.optional("system"), this.optional("input")];
    const history = (asArray(this.record["history"]) ?? []).flatMap((round, index) => {
      const [question, answer] = asArray(round) ?? [];
      if (typeof question !== "string" || typeof answer !== "string")
        return this.fail(`history[${index}] is not two strings`);
      return [user(question), assistant(answer)];
    });
    const instruction = this.string("instruction");
    return [
      ...(system === "" ? [] : [{ role: "system", content: system }]),
      ...history,
      user(input === "" ? instruction : `${instruction}\n\n${input}`),
      assistant(this.string("output")),
    ];
  }

  private message(value: unknown, name: string): ChatMessage {
    const message = asObject(value) ?? this.fail(`${name} is not an object`, kindOf(value));
    const role = asString(message["role"]) ?? this.fail(`${name} has no role`, kindOf(message["role"]));
    return { ...message, role, content: this.content(message["content"], name) };
  }

  /** Text as it is; a list of text parts as one text. */
  private content(value: unknown, name: string): string | null {
    if (value === undefined || value === null) return null;
    if (typeof value === "string") return value;
    const parts = asArray(value) ?? this.fail(`the content of ${name} is not text`, kindOf(value));
    const texts = parts.map((part) => asString(asObject(part)?.["text"]) ?? asString(part));
    if (texts.every((text) => text !== undefined)) return texts.join("");
    return this.fail(`the content of ${name} has parts that are not text`, "images and sound are not supported");
  }

  private parseTools(text: string): readonly unknown[] | undefined {
    try {
      return asArray(JSON.parse(text));
    } catch {
      return this.fail('"tools" is not JSON');
    }
  }

  private fail(what: string, given?: string): never {
    throw new ThimbleError("data-record", `The record cannot be used: ${what}`, {
      where: this.where,
      ...(given === undefined ? {} : { given }),
      expected: shapes[this.format],
      fix: "Correct this record or take it out.",
    });
  }
}

function user(content: string): ChatMessage {
  return { role: "user", content };
}

function assistant(content: string): ChatMessage {
  return { role: "assistant", content };
}
