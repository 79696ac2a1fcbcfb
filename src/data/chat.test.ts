import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { renderTrained } from "./chat-spans.js";
import { ChatTemplate, chooseChatTemplate } from "./chat-template.js";
import type { ChatMessage } from "./chat-template.js";
import { ExampleEncoder } from "./examples.js";
import { encodeSpans } from "./span-encoding.js";
import { createTokenizer } from "./tokenizer.js";
import type { Tokenizer } from "./tokenizer.js";

interface Case {
  name: string;
  messages: ChatMessage[];
  text: string;
  prompt: string;
  marked?: string[];
}
interface TemplateFixture {
  name: string;
  template: string;
  cases: Case[];
}

async function readFixture(name: string): Promise<unknown> {
  return JSON.parse(await readFile(new URL(`fixtures/${name}.json`, import.meta.url), "utf8"));
}

const specials = [
  "<s>",
  "</s>",
  "<|im_start|>",
  "<|im_end|>",
  "<|header|>",
  "<|/header|>",
  "<|eot|>",
  "<start_of_turn>",
];
specials.push("<end_of_turn>", "<|User|>", "<|Assistant|>");

/** A small tokenizer of the fixtures with further control tokens. */
async function tokenizerWith(base: string, added: readonly string[], chatTemplate?: string): Promise<Tokenizer> {
  const { tokenizer } = (await readFixture(`tokenizer-${base}`)) as {
    tokenizer: { added_tokens: unknown[]; model: { vocab: object } };
  };
  const first = Object.keys(tokenizer.model.vocab).length;
  const ids = added.map((content, index) => ({ id: first + index, content, special: true }));
  const idOf = (content: string): number | undefined => ids.find((token) => token.content === content)?.id;
  const [bos, eos] = [idOf("<s>"), idOf("</s>")];
  const special = { ...(bos === undefined ? {} : { bos }), ...(eos === undefined ? {} : { eos }) };
  const json = { ...tokenizer, added_tokens: [...tokenizer.added_tokens, ...ids] };
  return createTokenizer(json, { where: base, special, fingerprint: base, chatTemplate });
}

function texts(rendered: { text: string; spans: readonly { start: number; end: number }[] }): string[] {
  return rendered.spans.map((span) => rendered.text.slice(span.start, span.end));
}

/** What each template has the assistant write, end of turn included. */
const written: Record<string, (content: string, last: boolean) => string> = {
  chatml: (content) => `${content}<|im_end|>`,
  headers: (content) => `${content.trim()}<|eot|>`,
  instruction: (content) => ` ${content}</s>`,
  renamed: (content) => `${content.trim()}<end_of_turn>`,
  thinking: (content, last) => {
    const answer = (content.split("</think>").at(-1) ?? "").replace(/^\n+/, "");
    return `${last ? "<think>\n\n</think>\n\n" : ""}${answer}<|im_end|>`;
  },
  // The generation prompt opens the thinking block, so the model never writes its tag.
  opened: (content) => `${content.replace(/^<think>/, "")}</s>`,
  marked: (content) => `${content}<|im_end|>`,
  // The reference, transformers, removes the line end before the tag, which then is not the content's own.
  "marked-lines": (content) => `${content}</s>`,
};

describe("chat templates", () => {
  it("render as transformers renders them, and tell what the assistant writes", async () => {
    const tokenizer = await tokenizerWith("byte-level", specials);
    for (const { name, template, cases } of (await readFixture("chat-templates")) as TemplateFixture[]) {
      const chat = new ChatTemplate(template, [], tokenizer);
      for (const { name: title, messages, text, prompt, marked } of cases) {
        const label = `${name}, ${title}`;
        const rendered = renderTrained(chat, { messages }, specials, "assistant");
        expect(rendered.text, label).toBe(text);
        expect(chat.render({ messages: messages.slice(0, -1) }, { addGenerationPrompt: true }), label).toBe(prompt);
        const answers = messages
          .filter((message) => message.role === "assistant")
          .map((message) => message.content ?? "");
        const expected = answers.map((answer, index) => written[name]?.(answer, index === answers.length - 1));
        expect(texts(rendered), label).toEqual(expected);
        expect(rendered.turnsEnd, label).toBe(true);
        if (marked !== undefined) {
          expect(texts(chat.renderMarked({ messages })), label).toEqual(marked);
        }
        const last = renderTrained(chat, { messages }, specials, "last");
        expect(texts(last), label).toEqual(expected.slice(-1));
      }
    }
  });

  it("leave out turns with weight 0, and conversations without an answer", async () => {
    const tokenizer = await tokenizerWith("byte-level", specials);
    const chat = chooseChatTemplate(tokenizer);
    const messages = [
      { role: "user", content: "a" },
      { role: "assistant", content: "b", weight: 0 },
      { role: "user", content: "c" },
      { role: "assistant", content: "d" },
    ];
    expect(texts(renderTrained(chat, { messages }, specials, "assistant"))).toEqual(["d<|im_end|>"]);
    expect(renderTrained(chat, { messages: messages.slice(0, 1) }, specials, "assistant").spans).toEqual([]);
  });

  it("fall back to ChatML or plain lines, and say so", async () => {
    const messages = [
      { role: "user", content: "a" },
      { role: "assistant", content: "b" },
    ];
    const chatMl = chooseChatTemplate(await tokenizerWith("byte-level", specials));
    expect(chatMl.notices[0]).toContain("ChatML");
    expect(chatMl.render({ messages })).toBe("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n");
    const plain = chooseChatTemplate(await tokenizerWith("byte-level", ["</s>"]));
    expect(plain.notices[0]).toContain("Assistant:");
    const rendered = renderTrained(plain, { messages }, ["</s>"], "assistant");
    expect(rendered.text).toBe("User: a\nAssistant: b</s>\n");
    expect(texts(rendered)).toEqual(["b</s>"]);
  });

  it("are refused when they are broken, refuse the roles, or hide what was written", async () => {
    const tokenizer = await tokenizerWith("byte-level", specials);
    const build = (source: string): ChatTemplate => new ChatTemplate(source, [], tokenizer);
    expect(() => build("{% for %}")).toThrow(expect.objectContaining({ code: "chat-template-broken" }));
    const refusing = build("{{ raise_exception('no system turn') }}");
    const messages = [
      { role: "user", content: "a" },
      { role: "assistant", content: "b" },
    ];
    expect(() => refusing.render({ messages })).toThrow(expect.objectContaining({ code: "chat-template-failed" }));
    for (const source of [
      "{{ messages | length }}",
      "{% generation %}x{% endgeneration %}{% generation %}y{% endgeneration %}",
    ]) {
      const hiding = build(source);
      expect(() => renderTrained(hiding, { messages }, specials, "assistant")).toThrow(
        expect.objectContaining({ code: "chat-template-unstable" }),
      );
    }
  });
});

describe("encodeSpans", () => {
  it.each(["byte-level", "llama-prepend", "wordpiece-cased"])("gives the ids of the whole text (%s)", async (base) => {
    const tokenizer = await tokenizerWith(base, specials);
    const text = "<s>Hello, where is the sea?</s> I'll go to the sea</s>";
    const start = text.indexOf("I'll");
    const { ids, weights } = encodeSpans(tokenizer, text, [{ start, end: text.length }]);
    expect(ids).toEqual(tokenizer.encode(text, { addSpecial: false }));
    const trained = tokenizer.decode(ids.filter((_, index) => weights[index] === 1));
    expect(trained.replaceAll(" ", "")).toBe("I'llgotothesea</s>");
  });

  it("counts a token that reaches over either end", async () => {
    const tokenizer = await tokenizerWith("byte-level", []);
    const text = "the whale and the sea";
    const whole = tokenizer.encode(text, { addSpecial: false });
    // The span cuts " and" after its first letter on the left and " the" on the right.
    const { ids, weights } = encodeSpans(tokenizer, text, [{ start: text.indexOf("nd"), end: text.indexOf("e sea") }]);
    expect(ids).toEqual(whole);
    expect(tokenizer.decode(ids.filter((_, index) => weights[index] === 1))).toBe(" and the");
  });
});

describe("ExampleEncoder", () => {
  it("trains a text with its end, and a completion without its prompt", async () => {
    const tokenizer = await tokenizerWith("byte-level", ["<s>", "</s>"]);
    const encoder = new ExampleEncoder(tokenizer);
    const text = encoder.encode({ kind: "text", text: "the sea" });
    expect(tokenizer.decode(text.ids)).toBe("the sea</s>");
    expect(text.weights).toBeUndefined();
    const pair = encoder.encode({ kind: "completion", prompt: "2 + 2 =", completion: " 4" });
    expect(tokenizer.decode(pair.ids)).toBe("2 + 2 = 4</s>");
    expect(tokenizer.decode(pair.ids.filter((_, index) => pair.weights?.[index] === 1))).toBe(" 4</s>");
    expect(encoder.notices()).toEqual([]);
  });

  it("says when a prompt merges with its completion", async () => {
    const tokenizer = await tokenizerWith("byte-level", ["</s>"]);
    const encoder = new ExampleEncoder(tokenizer);
    encoder.encode({ kind: "completion", prompt: "whale and t", completion: "he sea" });
    expect(encoder.notices()[0]).toContain("In 1 records");
  });

  it("trains on what is asked for", async () => {
    const tokenizer = await tokenizerWith("byte-level", specials);
    const conversation = {
      messages: ["a", "b", "c", "d"].map((content, index) => ({
        role: index % 2 === 0 ? "user" : "assistant",
        content,
      })),
    };
    const trained = (trainOn: "all" | "assistant" | "completion"): string => {
      const { ids, weights } = new ExampleEncoder(tokenizer, { trainOn }).encode({ kind: "chat", conversation });
      return tokenizer.decode(ids.filter((_, index) => (weights?.[index] ?? 1) === 1));
    };
    expect(trained("assistant")).toBe("b<|im_end|>d<|im_end|>");
    expect(trained("completion")).toBe("d<|im_end|>");
    expect(trained("all")).toContain("<|im_start|>user\na<|im_end|>");
  });

  it("warns of turns that do not end", async () => {
    const tokenizer = await tokenizerWith("byte-level", specials);
    const chatTemplate = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    const encoder = new ExampleEncoder(tokenizer, { chatTemplate });
    const messages = [
      { role: "user", content: "a" },
      { role: "assistant", content: "b" },
    ];
    encoder.encode({ kind: "chat", conversation: { messages } });
    expect(encoder.notices().join()).toContain("does not end");
  });

  it("warns of control tokens in messages", async () => {
    const encoder = new ExampleEncoder(await tokenizerWith("byte-level", specials));
    const messages = [
      { role: "user", content: "a<|im_end|>" },
      { role: "assistant", content: "b" },
    ];
    encoder.encode({ kind: "chat", conversation: { messages } });
    expect(encoder.notices().join()).toContain("control token");
  });
});
