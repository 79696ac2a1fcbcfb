import { ThimbleError } from "../errors.js";
import { ExampleEncoder } from "./examples.js";
import type { Example, ExampleOptions } from "./examples.js";
import { detectFormat, formatError, parseRecord } from "./formats.js";
import type { RecordFormat } from "./formats.js";
import type { InputFile } from "./inputs.js";
import { readCsv } from "./read-csv.js";
import { readJson, readJsonLines, readText } from "./read-files.js";
import type { FileRecord } from "./read-files.js";
import { readParquet } from "./read-parquet.js";
import type { TokenSink } from "./token-source.js";
import { endIds } from "./tokenizer.js";
import type { Tokenizer } from "./tokenizer.js";

export interface IngestOptions extends ExampleOptions {
  /** The format of the records; without it the first record decides. */
  readonly format?: RecordFormat;
  /** Where documents end in text files: with the file (default), or at blank lines too. */
  readonly documents?: "file" | "blank-lines";
  /** Told now and then how far reading has come. */
  readonly onProgress?: (progress: { readonly records: number; readonly tokens: number }) => void;
}

/** What was read. */
export interface IngestReport {
  /** The format of records, or `plain text`. */
  readonly format: RecordFormat | "plain text";
  readonly files: readonly { readonly path: string; readonly records: number }[];
  /** Records with nothing in them, which were left out. */
  readonly empty: number;
  /** Fields of the records that the format does not use. */
  readonly ignoredFields: readonly string[];
  /** Where the records come from, by the numbers of their sources: what their field `source` says, else their file. */
  readonly sources: readonly RecordSource[];
  readonly notices: readonly string[];
}

/** The value of a field `source`, or the number of a file. */
export type RecordSource = string | number;

/** Sources that are told apart; further ones count as the last. */
export const mostSources = 1024;

/** A document between blank lines is held in memory; a longer one than this many UTF-16 units is refused. */
const longestDocument = 1 << 24;

/** Reads files, tokenises them and hands the tokens to the writer, record by record, in bounded memory. */
export async function ingest(
  files: readonly InputFile[],
  tokenizer: Tokenizer,
  options: IngestOptions,
  writer: TokenSink,
): Promise<IngestReport> {
  const run = new Ingestion(tokenizer, options, writer);
  const counts: { path: string; records: number }[] = [];
  for (const [number, file] of files.entries()) {
    const before = writer.records;
    run.file = number;
    if (file.kind === "text") await run.readTextFile(file.path);
    else for await (const record of recordsOf(file)) run.addRecord(record);
    counts.push({ path: file.path, records: writer.records - before });
  }
  return { ...run.report(), files: counts };
}

/** The records of a file that is no plain text, in order. */
export function recordsOf(file: InputFile): AsyncGenerator<FileRecord> {
  if (file.kind === "parquet") return readParquet(file.path);
  if (file.kind === "csv" || file.kind === "tsv") return readCsv(file.path, file.kind === "csv" ? "," : "\t");
  return file.kind === "json" ? readJson(file.path) : readJsonLines(file.path);
}

class Ingestion {
  private readonly encoder: ExampleEncoder;
  private format: RecordFormat | "plain text" | undefined;
  private empty = 0;
  private forcedCuts = 0;
  private readonly fields = new Set<string>();
  private readonly sources = new Map<RecordSource, number>();
  /** Number of the file that is being read. */
  file = 0;

  constructor(
    private readonly tokenizer: Tokenizer,
    private readonly options: IngestOptions,
    private readonly writer: TokenSink,
  ) {
    this.encoder = new ExampleEncoder(tokenizer, options);
    this.format = options.format;
  }

  report(): Omit<IngestReport, "files"> {
    const notices = [...this.tokenizer.notices, ...this.encoder.notices()];
    if (this.forcedCuts > 0) {
      notices.push(
        `${this.forcedCuts} stretches of text without any word boundary were cut; a token there may differ.`,
      );
    }
    const format = this.format ?? "plain text";
    const ignoredFields = [...this.fields].filter((field) => !usedFields[format].includes(field)).sort();
    return { format, empty: this.empty, ignoredFields, sources: [...this.sources.keys()], notices };
  }

  addRecord({ record, where }: FileRecord): void {
    const found = detectFormat(record);
    const expected = this.format === "plain text" ? undefined : this.format;
    if (this.format === "plain text") throw mixedKinds(where);
    this.format ??= found;
    if (
      this.format === undefined ||
      (expected !== undefined && this.options.format === undefined && found !== expected)
    ) {
      throw formatError(record, expected, where);
    }
    if (this.fields.size < 64) for (const field of Object.keys(record)) this.fields.add(field);
    const { source } = record;
    const named = (typeof source === "string" && source !== "") || typeof source === "number";
    this.addExample(parseRecord(record, this.format, where), where, named ? String(source) : this.file);
  }

  /** The number of a source: in the order in which records of them are found. */
  private sourceNumber(source: RecordSource): number {
    const known = this.sources.get(source);
    if (known !== undefined) return known;
    if (this.sources.size === mostSources) return mostSources - 1;
    this.sources.set(source, this.sources.size);
    return this.sources.size - 1;
  }

  async readTextFile(path: string): Promise<void> {
    if (this.format !== undefined && this.format !== "plain text") throw mixedKinds(path);
    this.format = "plain text";
    if (this.options.documents === "blank-lines") {
      for await (const text of documents(readText(path), path)) this.addExample({ kind: "text", text }, path);
      return;
    }
    const before = this.writer.tokens;
    const cuts = { onForcedCut: () => this.forcedCuts++ };
    let last = -1;
    for await (const ids of this.tokenizer.encodeStream(readText(path), cuts)) {
      this.writer.add(ids);
      last = ids.at(-1) ?? last;
      this.tellProgress();
    }
    const [end] = endIds(this.tokenizer.special);
    if (end !== undefined && last !== end && this.writer.tokens > before) this.writer.add([end]);
    if (this.writer.tokens > before) this.writer.endRecord(this.sourceNumber(this.file));
    else this.empty++;
  }

  private addExample(example: Example, where: string, source: RecordSource = this.file): void {
    if (isEmpty(example)) {
      this.empty++;
      return;
    }
    const { ids, weights } = this.encodeAt(example, where);
    this.writer.add(ids, weights);
    this.writer.endRecord(this.sourceNumber(source));
    if (this.writer.records % 1000 === 0) this.tellProgress();
  }

  private tellProgress(): void {
    this.options.onProgress?.({ records: this.writer.records, tokens: this.writer.tokens });
  }

  /** Encodes an example; an error about it names its place. */
  private encodeAt(example: Example, where: string): ReturnType<ExampleEncoder["encode"]> {
    try {
      return this.encoder.encode(example);
    } catch (error) {
      if (!(error instanceof ThimbleError) || error.where !== undefined) throw error;
      const { given, expected, fix } = error;
      const detail = Object.entries({ given, expected, fix }).filter(([, value]) => value !== undefined);
      throw new ThimbleError(error.code, error.message, { ...Object.fromEntries(detail), where, cause: error });
    }
  }
}

const usedFields: Readonly<Record<RecordFormat | "plain text", readonly string[]>> = {
  "plain text": [],
  text: ["source", "text"],
  "prompt-completion": ["source", "prompt", "completion", "tools"],
  messages: ["source", "messages", "conversations", "tools"],
  sharegpt: ["source", "conversations", "system", "tools"],
  alpaca: ["source", "instruction", "input", "output", "system", "history", "tools"],
};

function isEmpty(example: Example): boolean {
  switch (example.kind) {
    case "text":
      return example.text.trim() === "";
    case "completion":
      return example.completion.trim() === "";
    case "chat":
      return example.conversation.messages.length === 0;
  }
}

/** The documents of a text, which blank lines separate. */
async function* documents(chunks: AsyncIterable<string>, path: string): AsyncGenerator<string> {
  let held = "";
  for await (const chunk of chunks) {
    const parts = (held + chunk).split(/\r?\n(?:[ \t]*\r?\n)+/);
    // The last part may go on, and a separator may be cut in two, so both stay.
    held = parts.pop() ?? "";
    yield* parts.map(withoutOuterLines);
    if (held.length > longestDocument) {
      throw new ThimbleError("data-record-too-long", "A document is longer than may be held in memory", {
        where: path,
        given: `more than ${longestDocument} characters without a blank line`,
        fix: "Read the file as one document.",
      });
    }
  }
  if (held !== "") yield withoutOuterLines(held);
}

function withoutOuterLines(text: string): string {
  return text.replace(/^(?:[ \t]*\r?\n)+/, "").replace(/(?:\r?\n[ \t]*)+$/, "");
}

function mixedKinds(where: string): ThimbleError {
  return new ThimbleError("data-mixed-formats", "Text files and files of records cannot be mixed", {
    where,
    fix: 'Convert the text to records, {"text": "..."}, or train on one kind.',
  });
}
