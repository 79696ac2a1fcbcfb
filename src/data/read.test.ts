import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { detectFormat, parseRecord } from "./formats.js";
import type { RecordFormat } from "./formats.js";
import { findInputs } from "./inputs.js";
import type { JsonObject } from "./json.js";
import { readJson, readJsonLines, readText } from "./read-files.js";
import type { FileRecord } from "./read-files.js";
import { readParquet } from "./read-parquet.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-read-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

let files = 0;
async function file(content: string | Uint8Array, name = `${files++}.dat`): Promise<string> {
  await writeFile(join(folder, name), content);
  return join(folder, name);
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

function fixturePath(name: string): string {
  return fileURLToPath(new URL(`fixtures/${name}`, import.meta.url));
}

function lineNumbers(records: readonly FileRecord[]): number[] {
  return records.map((record) => Number(record.where.split(":").at(-1)));
}

describe("readJsonLines", () => {
  it("reads objects with their lines, past empty lines, a byte order mark and Windows line ends", async () => {
    const path = await file('\uFEFF{"a":1}\r\n\r\n{"a":"é\\n"}\n  \n{"a":3}');
    const records = await collect(readJsonLines(path));
    expect(records.map((entry) => entry.record["a"])).toEqual([1, "é\n", 3]);
    expect(lineNumbers(records)).toEqual([1, 3, 5]);
  });

  it("reads lines that are longer than a chunk", async () => {
    const lines = [10, 3_000_000, 1_048_576 - 9, 5].map((length) => JSON.stringify({ a: "x".repeat(length) }));
    const records = await collect(readJsonLines(await file(lines.join("\n"))));
    expect(records.map((entry) => String(entry.record["a"]).length)).toEqual([10, 3_000_000, 1_048_567, 5]);
  });

  it.each([
    ["a cut-off line", '{"a":1}\n{"a":', 2, "data-not-json"],
    ["text that is no JSON", '{"a":1}\n\nhello\n', 3, "data-not-json"],
    ["a number", "1\n", 1, "data-record"],
    ["a list", '{"a":1}\n[{"a":1}]\n', 2, "data-record"],
    [
      "bytes that are no UTF-8",
      Uint8Array.from([...Buffer.from('{"a":1}\n{"a":"'), 0xff, 0x22, 0x7d]),
      2,
      "data-not-utf8",
    ],
  ])("names the line of %s", async (_, content, line, code) => {
    const path = await file(content);
    await expect(collect(readJsonLines(path))).rejects.toMatchObject({ code, where: `${path}:${line}` });
  });

  it("says when there is no file", async () => {
    await expect(collect(readJsonLines(join(folder, "none")))).rejects.toMatchObject({ code: "data-unreadable" });
  });
});

describe("readJson", () => {
  it("reads a list element by element, with the line where each starts", async () => {
    const list = [{ a: 'br[ac]k,et{s" \\' }, { a: { b: [1, { c: [] }] } }, { a: null }];
    for (const text of [JSON.stringify(list), `\n\n ${JSON.stringify(list, undefined, 2)} \n`]) {
      const records = await collect(readJson(await file(text)));
      expect(records.map((entry) => entry.record)).toEqual(list);
    }
    const pretty = await collect(readJson(await file(`\n${JSON.stringify(list, undefined, 2)}`)));
    expect(lineNumbers(pretty)).toEqual([3, 6, 16]);
    expect(await collect(readJson(await file("[ ]")))).toEqual([]);
  });

  it("reads lists of several chunks", async () => {
    const list = Array.from({ length: 30_000 }, (_, index) => ({
      index,
      text: `entry ${index}, [with] {marks} "${"x".repeat(index % 90)}`,
    }));
    const records = await collect(readJson(await file(JSON.stringify(list, undefined, 1))));
    expect(records.map((entry) => entry.record)).toEqual(list);
  });

  it("takes a file that starts with an object for lines", async () => {
    expect(await collect(readJson(await file('{"a":1}\n{"a":2}\n')))).toHaveLength(2);
  });

  it.each([
    ["a list that does not end", '[{"a":1},\n{"a":2}', 2, "data-not-json"],
    ["text behind the list", '[{"a":1}]\nx', 2, "data-not-json"],
    ["an element that is missing", '[{"a":1},\n,{"a":2}]', 2, "data-not-json"],
    ["a comma at the end", '[{"a":1},\n]', 2, "data-not-json"],
    ["an element that is no object", '[{"a":1},\n\n"b"]', 3, "data-record"],
    ["brackets that do not match", '[{"a":1],\n{"a":2}}', 1, "data-not-json"],
  ])("names the line of %s", async (_, content, line, code) => {
    const path = await file(content);
    await expect(collect(readJson(path))).rejects.toMatchObject({ code, where: `${path}:${line}` });
  });
});

describe("readText", () => {
  it("gives the text as it is, without its byte order mark", async () => {
    const text = "Grüße 鯨 😀\r\nline\n".repeat(150_000);
    expect((await collect(readText(await file(`\uFEFF${text}`)))).join("")).toBe(text);
  });

  it.each([0, 1, 70_000, 90_000])("names the line of a byte that is no UTF-8 (%i lines before)", async (lines) => {
    const before = Buffer.from("Grüße 鯨 😀 😀\n".repeat(lines));
    const path = await file(Buffer.concat([before, Buffer.from([0x41, 0xc3, 0x28, 10]), before]));
    await expect(collect(readText(path))).rejects.toMatchObject({
      code: "data-not-utf8",
      where: `${path}:${lines + 1}`,
    });
  });

  it("refuses a text that ends within a character", async () => {
    const path = await file(Buffer.from("a\n😀").subarray(0, 4));
    await expect(collect(readText(path))).rejects.toMatchObject({ code: "data-not-utf8", where: `${path}:2` });
  });
});

describe("readParquet", () => {
  it("reads rows of several groups, with lists of messages", async () => {
    const records = await collect(readParquet(fixturePath("messages.parquet")));
    expect(records.map((entry) => entry.record["id"])).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(records[5]?.record["messages"]).toEqual([
      { role: "user", content: "What is 5 + 5?" },
      { role: "assistant", content: "It is 10." },
    ]);
    expect(records[5]?.where).toContain("row 6");
  });

  it("reads zstd and gzip", async () => {
    const texts = await collect(readParquet(fixturePath("text-zstd.parquet")));
    expect(texts.map((entry) => entry.record["text"])).toEqual([0, 1, 2, 3, 4].map((i) => `Line ${i} über 鯨`));
    const rows = await collect(readParquet(fixturePath("alpaca-gzip.parquet")));
    expect(rows[1]?.record).toMatchObject({ instruction: "Name", output: "Ishmael" });
  });

  it("gives one clear error for damaged files", async () => {
    const whole = await readFile(fixturePath("messages.parquet"));
    for (const length of [0, 3, 11, 100, whole.length - 1, whole.length - 9]) {
      const path = await file(whole.subarray(0, length), `cut-${length}.parquet`);
      await expect(collect(readParquet(path))).rejects.toMatchObject({ code: "data-parquet", where: path });
    }
  });
});

describe("formats", () => {
  const chat = (record: JsonObject): unknown => {
    const format = detectFormat(record);
    const example = parseRecord(record, format as RecordFormat, "x:1");
    return example.kind === "chat" ? example.conversation : example;
  };
  const user = (content: string): JsonObject => ({ role: "user", content });
  const assistant = (content: string): JsonObject => ({ role: "assistant", content });

  it.each([
    [{ text: "a", id: 1 }, "text"],
    [{ prompt: "a", completion: "b" }, "prompt-completion"],
    [{ prompt: "a", messages: [] }, "messages"],
    [{ conversations: [{ from: "human", value: "a" }] }, "sharegpt"],
    [{ conversations: [{ role: "user", content: "a" }] }, "messages"],
    [{ instruction: "a", output: "b" }, "alpaca"],
    [{ content: "a" }, undefined],
  ])("are found by the fields of %j", (record, format) => {
    expect(detectFormat(record)).toBe(format);
  });

  it("become conversations", () => {
    expect(chat({ instruction: "Add", input: "1, 2", output: "3" })).toEqual({
      messages: [user("Add\n\n1, 2"), assistant("3")],
    });
    expect(chat({ instruction: "Add", input: null, output: "3", system: "Be brief", history: [["a", "b"]] })).toEqual({
      messages: [{ role: "system", content: "Be brief" }, user("a"), assistant("b"), user("Add"), assistant("3")],
    });
    expect(
      chat({
        conversations: [
          { from: "human", value: "a" },
          { from: "gpt", value: "b" },
        ],
        system: "s",
      }),
    ).toEqual({
      messages: [{ role: "system", content: "s" }, user("a"), assistant("b")],
    });
    expect(
      chat({
        messages: [
          {
            role: "user",
            content: [
              { type: "text", text: "a" },
              { type: "text", text: "b" },
            ],
          },
        ],
      }),
    ).toEqual({
      messages: [user("ab")],
    });
    expect(chat({ prompt: [user("a")], completion: [assistant("b")] })).toEqual({
      messages: [user("a"), assistant("b")],
    });
    expect(chat({ messages: [{ role: "assistant", tool_calls: [1] }], tools: '[{"name":"t"}]' })).toEqual({
      messages: [{ role: "assistant", content: null, tool_calls: [1] }],
      tools: [{ name: "t" }],
    });
  });

  it.each([
    { text: 1 },
    { prompt: "a", completion: null },
    { prompt: ["a"], completion: "b" },
    { messages: [{ content: "a" }] },
    { messages: ["a"] },
    { messages: [{ role: "user", content: 3 }] },
    { messages: [{ role: "user", content: [{ type: "image_url" }] }] },
    { messages: [], tools: "{" },
    { conversations: [{ from: "nobody", value: "a" }] },
    { conversations: [null] },
    { instruction: "a", output: 3 },
    { instruction: "a", output: "b", history: ["a"] },
  ])("name the place of a wrong record %j", (record) => {
    expect(() => chat(record)).toThrow(expect.objectContaining({ code: "data-record", where: "x:1" }));
  });
});

describe("findInputs", () => {
  it("finds paths and patterns, each file once, in order", async () => {
    for (const name of ["b.jsonl", "a.jsonl", "c.parquet"]) await file("{}", name);
    const found = await findInputs([
      join(folder, "c.parquet"),
      `${folder.replaceAll("\\", "/")}/*.jsonl`,
      join(folder, "a.jsonl"),
    ]);
    expect(found.map((entry) => [entry.path.slice(folder.length + 1), entry.kind])).toEqual([
      ["c.parquet", "parquet"],
      ["a.jsonl", "jsonl"],
      ["b.jsonl", "jsonl"],
    ]);
  });

  it("says what is missing or unknown", async () => {
    await expect(findInputs([join(folder, "none.txt")])).rejects.toMatchObject({ code: "data-not-found" });
    await expect(findInputs([join(folder, "none*.txt")])).rejects.toMatchObject({ code: "data-not-found" });
    await expect(findInputs([folder])).rejects.toMatchObject({ code: "data-not-found" });
    await expect(findInputs([await file("x", "a.docx")])).rejects.toMatchObject({ code: "data-unknown-kind" });
  });
});
