import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { ThimbleError } from "../errors.js";
import { ingest } from "./ingest.js";
import type { FileKind } from "./inputs.js";
import { readParquet } from "./read-parquet.js";
import type { TokenSink } from "./token-source.js";
import { loadTokenizerGguf } from "./tokenizer-gguf.js";
import { createTokenizer } from "./tokenizer.js";
import type { Tokenizer } from "./tokenizer.js";

const folder = mkdtempSync(join(tmpdir(), "thimble-fuzz-"));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

function fixture(name: string): Buffer {
  return readFileSync(fileURLToPath(new URL(`fixtures/${name}`, import.meta.url)));
}

type Random = (limit: number) => number;

function random(seed: number): Random {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/** One to four changes: flipped bits, lost, doubled, swapped or foreign bytes, a cut-off end. */
function mutateBytes(bytes: Buffer, next: Random): Buffer {
  let changed = Buffer.from(bytes);
  for (let round = next(4); round >= 0; round--) {
    const at = next(changed.length);
    const length = 1 + next(12);
    const [before, part, after] = [
      changed.subarray(0, at),
      changed.subarray(at, at + length),
      changed.subarray(at + length),
    ];
    const marks = Buffer.from('{}[]",:\n0-9e\\u\u0000\uFEFF');
    const foreign = Buffer.from(Array.from(part, () => marks[next(marks.length)] ?? 0));
    const flipped = Buffer.from(part.map((byte, index) => (index === 0 ? byte ^ (1 << next(8)) : byte)));
    const other = changed.subarray(next(changed.length)).subarray(0, length);
    const choices = [
      [before, flipped, after],
      [before, after],
      [before, part, part, after],
      [before, foreign, after],
      [before, other, after],
      [before],
    ];
    changed = Buffer.concat(choices[next(choices.length)] ?? []);
    if (changed.length === 0) return changed;
  }
  return changed;
}

/** Puts a value of another kind somewhere into a JSON value. */
function mutateValue(value: unknown, next: Random): unknown {
  const odd = [null, -1, 1e15, 0.5, "", "x", [], {}, true, [[]], "(?<", { type: "Sequence" }, -0, "\\p{L}+"];
  if (typeof value !== "object" || value === null || next(8) === 0) return odd[next(odd.length)];
  const keys = Object.keys(value);
  const key = keys[next(keys.length)];
  if (key === undefined) return odd[next(odd.length)];
  const entries = Object.entries(value).map(
    ([name, entry]) => [name, name === key ? mutateValue(entry, next) : (entry as unknown)] as const,
  );
  if (next(6) === 0) return Object.fromEntries(entries.filter(([name]) => name !== key));
  return Array.isArray(value) ? entries.map(([, entry]) => entry) : Object.fromEntries(entries);
}

/** Counts outcomes; anything thrown that is not a ThimbleError with a code fails the test. */
async function outcome(action: () => unknown, counts: Map<string, number>): Promise<void> {
  let code = "fine";
  try {
    await action();
  } catch (error) {
    if (!(error instanceof ThimbleError)) throw error;
    code = error.code;
  }
  counts.set(code, (counts.get(code) ?? 0) + 1);
}

class CountingSink implements TokenSink {
  tokens = 0;
  records = 0;
  add(ids: ArrayLike<number>): void {
    this.tokens += ids.length;
  }
  endRecord(): void {
    this.records++;
  }
}

const tokenizerJson = (JSON.parse(fixture("tokenizer-byte-level.json").toString()) as { tokenizer: object }).tokenizer;

function build(json: unknown): Tokenizer {
  return createTokenizer(json, { where: "fuzz", special: { eos: 1 }, fingerprint: "fuzz" });
}

describe("damaged data files", () => {
  const tokenizer = build(tokenizerJson);
  const chat = [
    { role: "user", content: "Hi é 😀" },
    { role: "assistant", content: "Yes", tool_calls: [{ name: "f" }] },
  ];
  const sets: Record<string, readonly object[]> = {
    text: [{ text: "a" }, { text: "b\n", n: 1 }],
    pairs: [{ prompt: "p", completion: "c" }],
    messages: [{ messages: chat }, { messages: chat, tools: [] }],
    shareGpt: [
      {
        conversations: [
          { from: "human", value: "a" },
          { from: "gpt", value: "b" },
        ],
      },
    ],
    alpaca: [{ instruction: "a", input: "", output: "b", history: [["c", "d"]] }],
  };

  async function read(content: Buffer, kind: FileKind, number: number): Promise<unknown> {
    const path = join(folder, `${number % 8}.${kind}`);
    writeFileSync(path, content);
    return ingest([{ path, kind, bytes: content.length }], tokenizer, {}, new CountingSink());
  }

  it.each(Object.keys(sets))("give one clear error or are read (%s, 1500 mutations)", async (name) => {
    const records = sets[name] ?? [];
    const lines = Buffer.from([...records, ...records].map((record) => JSON.stringify(record)).join("\n"));
    const list = Buffer.from(JSON.stringify([...records, ...records], undefined, 1));
    const counts = new Map<string, number>();
    const next = random(name.length);
    for (let number = 0; number < 500; number++) {
      await outcome(() => read(mutateBytes(lines, next), "jsonl", number), counts);
      await outcome(() => read(mutateBytes(list, next), "json", number), counts);
      const changed = records.map((record) => JSON.stringify(mutateValue(record, next)));
      await outcome(() => read(Buffer.from(changed.join("\n")), "jsonl", number), counts);
    }
    // The mutations reach both outcomes, and more than one kind of error.
    expect(counts.get("fine")).toBeGreaterThan(25);
    expect(counts.get("data-not-json")).toBeGreaterThan(50);
    expect(counts.size).toBeGreaterThan(3);
  });

  it("give one clear error or are read (text, 300 mutations)", async () => {
    const text = Buffer.from("Call me Ishmael — 鯨 😀.\n\nNext paragraph.\n".repeat(5));
    const counts = new Map<string, number>();
    const next = random(99);
    for (let number = 0; number < 300; number++)
      await outcome(() => read(mutateBytes(text, next), "text", number), counts);
    expect([...counts.keys()].sort()).toEqual(["data-not-utf8", "fine"]);
  });

  it("give one clear error or are read (Parquet, 600 mutations)", async () => {
    const counts = new Map<string, number>();
    const next = random(5);
    for (const name of ["messages.parquet", "text-zstd.parquet", "alpaca-gzip.parquet"]) {
      const whole = fixture(name);
      for (let number = 0; number < 200; number++) {
        const path = join(folder, `${number % 8}.parquet`);
        writeFileSync(path, mutateBytes(whole, next));
        await outcome(async () => {
          for await (const record of readParquet(path)) expect(record.where).toContain("row");
        }, counts);
      }
    }
    expect(counts.get("data-parquet")).toBeGreaterThan(100);
  });
});

describe("damaged tokenizers", () => {
  const texts = ["Hello, world! 123 é 😀\n", "<|start|>a<|end|>", "", "the whale  \t x"];

  function use(tokenizer: Tokenizer): void {
    for (const text of texts) tokenizer.decode(tokenizer.encode(text));
  }

  it.each(["byte-level", "llama-prepend", "unigram", "wordpiece", "metaspace-first"])(
    "give one clear error or work (%s, 600 mutations)",
    async (name) => {
      const { tokenizer } = JSON.parse(fixture(`tokenizer-${name}.json`).toString()) as {
        tokenizer: { model: object };
      };
      const bytes = Buffer.from(JSON.stringify(tokenizer));
      const { model, ...rest } = tokenizer;
      const counts = new Map<string, number>();
      const next = random(name.length + 1);
      const parse = (text: string): unknown => {
        try {
          return JSON.parse(text) as unknown;
        } catch {
          return undefined;
        }
      };
      for (let number = 0; number < 200; number++) {
        const damaged = parse(mutateBytes(bytes, next).toString());
        if (damaged !== undefined)
          await outcome(() => {
            use(build(damaged));
          }, counts);
        // Most of the bytes are vocabulary, so the other parts are changed on their own, and the model's shape too.
        await outcome(() => {
          use(build({ model, ...(mutateValue(rest, next) as object) }));
        }, counts);
        await outcome(() => {
          use(build(mutateValue(tokenizer, next)));
        }, counts);
      }
      expect(counts.get("fine")).toBeGreaterThan(20);
      expect(counts.get("tokenizer-broken")).toBeGreaterThan(100);
    },
  );

  it.each(["smollm", "wordpiece", "sentencepiece"])(
    "in GGUF metadata give one clear error or work (%s)",
    async (name) => {
      const { metadata } = JSON.parse(fixture(`tokenizer-${name}.json`).toString()) as {
        metadata: Record<string, unknown>;
      };
      const counts = new Map<string, number>();
      const next = random(name.length);
      for (let number = 0; number < 300; number++) {
        const damaged = mutateValue(metadata, next);
        const given = typeof damaged === "object" && damaged !== null ? (damaged as Record<string, unknown>) : {};
        await outcome(() => {
          use(loadTokenizerGguf(given, "fuzz"));
        }, counts);
      }
      expect(counts.get("gguf-tokenizer")).toBeGreaterThan(50);
    },
  );
});
