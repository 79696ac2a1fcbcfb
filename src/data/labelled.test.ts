import { mkdtempSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { must, ThimbleError } from "../errors.js";
import type { ModelTask } from "../models/types.js";
import { tokenizerFixture } from "../train/testing/tiny-folder.js";
import { findInputs } from "./inputs.js";
import { classOf, labelledRecords, numberOf, taskOfData } from "./labelled-records.js";
import { openLabelled } from "./labelled.js";
import { createTokenizer } from "./tokenizer.js";
import type { Tokenizer } from "./tokenizer.js";

interface PairFixture {
  readonly post_processor: unknown;
  readonly rows: readonly {
    readonly text: string;
    readonly pair: string | null;
    readonly limit: number;
    readonly ids: readonly number[];
    readonly types: readonly number[];
  }[];
}

async function pairFixtures(): Promise<Record<string, PairFixture>> {
  const path = new URL("./fixtures/text-pairs.json", import.meta.url);
  return JSON.parse(await readFile(path, "utf8")) as Record<string, PairFixture>;
}

async function tokenizerOf(name: string, postProcessor?: unknown): Promise<Tokenizer> {
  const { tokenizer } = await tokenizerFixture(name);
  const json = postProcessor === undefined ? tokenizer : { ...tokenizer, post_processor: postProcessor };
  return createTokenizer(json, { where: name, special: { pad: 0 }, fingerprint: name });
}

const folder = mkdtempSync(join(tmpdir(), "thimble-labelled-"));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

function jsonLines(name: string, records: readonly unknown[]): string {
  return file(name, records.map((record) => JSON.stringify(record)).join("\n"));
}

async function failure(action: () => Promise<unknown>): Promise<ThimbleError> {
  try {
    await action();
  } catch (error) {
    expect(error).toBeInstanceOf(ThimbleError);
    return error as ThimbleError;
  }
  throw new Error("no error");
}

async function records(...paths: string[]): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const { where, ...record } of labelledRecords(await findInputs(paths))) {
    expect(where).toContain(folder);
    found.push(record);
  }
  return found;
}

const task: ModelTask = { kind: "classification", labels: ["bad", "good"], head: [] };

describe("pairs of texts are encoded and cut off as the Rust library does", () => {
  it.each([
    ["wordpiece", "wordpiece"],
    ["roberta", "smollm"],
  ])("%s", async (name, tokenizer) => {
    const { post_processor: processor, rows } = must((await pairFixtures())[name], name);
    const encoder = await tokenizerOf(tokenizer, processor);
    for (const { text, pair, limit, ids, types } of rows) {
      const encoded = encoder.encodePair(text, pair ?? undefined, limit);
      expect(encoded.ids, `${text} | ${pair ?? ""} in ${limit}`).toEqual(ids);
      if (name === "wordpiece") expect(ids.map((_, place) => Number(place >= encoded.second))).toEqual(types);
    }
  });

  it("and refuses rows with no room for a text", async () => {
    const encoder = await tokenizerOf("wordpiece");
    expect((await failure(async () => Promise.resolve(encoder.encodePair("a", "b", 3)))).code).toBe("tokenizer-limit");
  });
});

describe("labelled records", () => {
  it("are found by their fields", async () => {
    const path = jsonLines("fields.jsonl", [
      { text: "one", label: 1 },
      { sentence1: "a", sentence2: "b", label: "same", idx: 3 },
      { premise: "p", hypothesis: "h", labels: 2 },
      { text: "four", text_pair: null, score: 0.5 },
      { sentence: "five", label: true },
    ]);
    expect(await records(path)).toEqual([
      { text: "one", label: 1 },
      { text: "a", pair: "b", label: "same" },
      { text: "p", pair: "h", label: 2 },
      { text: "four", label: 0.5 },
      { text: "five", label: "true" },
    ]);
  });

  it("come from CSV and TSV files too", async () => {
    const csv = file("table.csv", '\uFEFFtext,label\n"one, and ""two""",good\n"over\ntwo lines",bad\n');
    const tsv = file("table.tsv", 'sentence1\tsentence2\tscore\na "quoted" one\tb\t2.5\n');
    expect(await records(csv, tsv)).toEqual([
      { text: 'one, and "two"', label: "good" },
      { text: "over\ntwo lines", label: "bad" },
      { text: 'a "quoted" one', pair: "b", label: "2.5" },
    ]);
    const broken = await failure(() => records(file("broken.csv", "text,label\na,b\nc,d,e\n")));
    expect(broken).toMatchObject({ code: "data-csv", where: expect.stringContaining("broken.csv:3") as string });
    writeFileSync(join(folder, "latin.csv"), Buffer.from([...Buffer.from("text,label\n"), 0xe9, 0x2c, 0x31, 0x0a]));
    expect((await failure(() => records(join(folder, "latin.csv")))).code).toBe("data-not-utf8");
    const quote = file("quote.csv", `text,label\n"never closed,1\n`);
    expect((await failure(() => records(quote))).code).toBe("data-csv");
    const stop = labelledRecords(await findInputs([csv]));
    await stop.next();
    await stop.return(undefined);
    const gone = labelledRecords([{ path: join(folder, "none.csv"), kind: "csv", bytes: 0 }]);
    expect((await failure(() => gone.next())).code).toBe("data-unreadable");
  });

  it.each([
    [{ label: 1 }, /no text/],
    [{ text: "a" }, /no label/],
    [{ text: 3, label: 1 }, /"text" is not a string/],
    [{ text: "a", text_pair: 1, label: 1 }, /"text_pair" is not a string/],
    [{ text: "a", label: [1] }, /neither a name nor a number/],
  ])("are refused where %j is one", async (record, message) => {
    const error = await failure(() => records(jsonLines("wrong.jsonl", [record])));
    expect(error.code).toBe("data-record");
    expect(error.message).toMatch(message);
    expect(error.where).toMatch(/wrong\.jsonl:1$/);
  });

  it("say what the task is", async () => {
    const taskOf = async (labels: readonly unknown[], kind?: ModelTask["kind"]) =>
      taskOfData(
        await findInputs([
          jsonLines(
            "task.jsonl",
            labels.map((label) => ({ text: "a", label })),
          ),
        ]),
        kind,
      );
    expect(await taskOf(["good", "bad", "good"])).toEqual({ kind: "classification", labels: ["bad", "good"] });
    expect(await taskOf([2, 0, 1, 1])).toEqual({
      kind: "classification",
      labels: ["LABEL_0", "LABEL_1", "LABEL_2"],
    });
    expect(await taskOf([5, 10, 1])).toEqual({ kind: "classification", labels: ["1", "5", "10"] });
    expect(await taskOf([1, 0.5, "2"])).toEqual({ kind: "regression", labels: ["LABEL_0"] });
    expect(await taskOf([1, 2], "regression")).toEqual({ kind: "regression", labels: ["LABEL_0"] });
    expect((await failure(() => taskOf(["one", "one"]))).code).toBe("data-labels");
    expect((await failure(async () => records(file("plain.txt", "text")))).code).toBe("data-labels");
  });

  it("have classes by name first, then by number", () => {
    const at = (label: string | number): number => classOf({ text: "", where: "x:1", label }, ["1", "5", "other"]);
    expect([at("5"), at(5), at(1), at("other"), at(2), at("0")]).toEqual([1, 1, 0, 2, 2, 0]);
    expect(() => at("strange")).toThrow(/no such class/);
    expect(() => at(7)).toThrow(/no such class/);
    expect(numberOf({ text: "", where: "", label: "2.5" })).toBe(2.5);
    expect(() => numberOf({ text: "", where: "", label: " " })).toThrow(/no number/);
  });
});

describe("labelled batches", () => {
  it("have one record a row, with its label, its parts and its padding", async () => {
    const tokenizer = await tokenizerOf("wordpiece");
    const path = jsonLines("rows.jsonl", [
      { text: "Call me Ishmael.", label: "good" },
      { text: "some years", text_pair: "ago", label: "bad" },
      { text: "the watery part of the world and nothing particular to interest me on shore", label: "good" },
    ]);
    const options = { train: path, sequence: 10, batch: 2, seed: 0, order: "sequential", task } as const;
    const { dataset, labelsOf } = await openLabelled(options, tokenizer);
    const batch = dataset.train.batch(0);
    const told = labelsOf(batch);
    expect([...told.labels]).toEqual([1, 0]);
    expect([...told.weights]).toEqual([1, 1]);
    const pair = tokenizer.encodePair("some years", "ago", 10);
    expect([...batch.ids.subarray(10, 10 + pair.ids.length)]).toEqual(pair.ids);
    expect([...told.types.subarray(10)]).toEqual(
      Array.from({ length: 10 }, (_, place) => Number(place >= pair.second && place < pair.ids.length)),
    );
    expect([...batch.segments.subarray(10)]).toEqual(
      Array.from({ length: 10 }, (_, place) => (place < pair.ids.length ? 0 : -1)),
    );
    const last = dataset.train.batch(1);
    // The long record is cut off, its last special token kept.
    expect(last.ids[9]).toBe(3);
    expect(dataset.report.notices).toContain("1 records are longer than a row and were cut off.");
  });

  it("are held out by content, and padded at the end without weight", async () => {
    const tokenizer = await tokenizerOf("wordpiece");
    const lines = Array.from({ length: 12 }, (_, index) => ({ text: "sail ".repeat(index + 1), label: index % 2 }));
    const path = jsonLines("many.jsonl", lines);
    const options = { train: path, holdout: 0.25, sequence: 16, batch: 2, seed: 1, task } as const;
    const { dataset, heldLabelsOf } = await openLabelled(options, tokenizer);
    const held = must(dataset.holdout, "held-out part");
    expect([dataset.train.rowsPerEpoch, held.rowsPerEpoch]).toEqual([9, 3]);
    expect([...heldLabelsOf(held.batch(1)).weights]).toEqual([1, 0]);
    const seen = new Set(Array.from({ length: 3 }, (_, row) => held.batch(row >> 1).records[row % 2]?.record));
    expect(seen.size).toBe(3);
  });

  it("tell numbers in a regression", async () => {
    const tokenizer = await tokenizerOf("wordpiece");
    const path = jsonLines("numbers.jsonl", [
      { text: "a", label: 0.5 },
      { text: "b", label: -2 },
    ]);
    const regression: ModelTask = { kind: "regression", labels: ["LABEL_0"], head: [] };
    const options = { train: path, sequence: 8, batch: 2, seed: 0, order: "sequential", task: regression } as const;
    const { dataset, labelsOf } = await openLabelled(options, tokenizer);
    expect([...labelsOf(dataset.train.batch(0)).targets]).toEqual([0.5, -2]);
    const wrong = { ...options, train: jsonLines("wrong.jsonl", [{ text: "a", label: "good" }]) };
    expect((await failure(() => openLabelled(wrong, tokenizer))).code).toBe("data-label");
  });
});
