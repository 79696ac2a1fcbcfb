import { isUtf8 } from "node:buffer";
import { createReadStream } from "node:fs";
import { ThimbleError } from "../errors.js";
import { asObject, kindOf, messageOf } from "./json.js";
import type { JsonObject } from "./json.js";

/** A record with its place, `file:line`. */
export interface FileRecord {
  readonly record: JsonObject;
  readonly where: string;
}

const chunkBytes = 1 << 20;
/** Longer lines, and longer elements of a JSON list, are taken for damage. */
const mostRecordBytes = 64 << 20;

/** The bytes of a file, a megabyte at a time. Throws `data-unreadable`. */
export async function* readChunks(path: string): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: chunkBytes })) yield chunk as Buffer;
  } catch (error) {
    throw new ThimbleError("data-unreadable", `The data file cannot be read: ${messageOf(error)}`, {
      where: path,
      fix: "Check the path and its permissions.",
      cause: error,
    });
  }
}

/** The text of a UTF-8 file in parts; a byte order mark at its start is left out. Throws `data-not-utf8`. */
export async function* readText(path: string): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let line = 1;
  let last: Buffer = Buffer.alloc(0);
  for await (const chunk of readChunks(path)) {
    try {
      yield decoder.decode(chunk, { stream: true });
    } catch {
      throw notUtf8(`${path}:${line + linesBeforeDamage(Buffer.concat([last, chunk]), last)}`);
    }
    line += countLines(chunk);
    last = Buffer.from(chunk.subarray(Math.max(0, chunk.length - 3)));
  }
  try {
    yield decoder.decode();
  } catch {
    throw notUtf8(`${path}:${line}`);
  }
}

/** One JSON object a line; empty lines are left out. */
export async function* readJsonLines(path: string): AsyncGenerator<FileRecord> {
  let line = 0;
  for await (const bytes of readLines(path)) {
    line++;
    const record = parseObject(bytes, `${path}:${line}`);
    if (record !== undefined) yield { record, where: `${path}:${line}` };
  }
}

/** A file of JSON: a list of objects, read element by element, or else one object a line. */
export async function* readJson(path: string): AsyncGenerator<FileRecord> {
  if (await startsWithBracket(path)) yield* readJsonList(path);
  else yield* readJsonLines(path);
}

async function startsWithBracket(path: string): Promise<boolean> {
  for await (const chunk of readChunks(path)) {
    const first = chunk.toString("latin1").replace(/^ï»¿/, "").trimStart();
    if (first !== "") return first.startsWith("[");
  }
  return false;
}

async function* readLines(path: string): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  let [held, line] = [0, 1];
  for await (const chunk of readChunks(path)) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      yield Buffer.concat([...parts, chunk.subarray(start, end)]);
      [parts, held, start] = [[], 0, end + 1];
      line++;
    }
    parts.push(chunk.subarray(start));
    held += chunk.length - start;
    if (held > mostRecordBytes) throw tooLong(`${path}:${line}`);
  }
  if (held > 0) yield Buffer.concat(parts);
}

async function* readJsonList(path: string): AsyncGenerator<FileRecord> {
  const splitter = new ListSplitter(path);
  for await (const chunk of readChunks(path)) {
    for (const { bytes, line } of splitter.push(chunk)) {
      const record = parseObject(bytes, `${path}:${line}`);
      if (record === undefined) throw notJson(`${path}:${line}`, "an element of the list is missing");
      yield { record, where: `${path}:${line}` };
    }
  }
  splitter.finish();
}

/** Splits the bytes of a JSON list into its elements without holding more than one of them. */
class ListSplitter {
  private depth = 0;
  private inString = false;
  private escaped = false;
  private line = 1;
  private startLine = 1;
  private held: Buffer[] = [];
  private heldBytes = 0;
  private closed = false;
  private afterComma = false;

  constructor(private readonly path: string) {}

  push(chunk: Buffer): { bytes: Buffer; line: number }[] {
    const elements: { bytes: Buffer; line: number }[] = [];
    let start = 0;
    const take = (end: number): void => {
      const bytes = Buffer.concat([...this.held, chunk.subarray(start, end)]);
      [this.held, this.heldBytes, start] = [[], 0, end + 1];
      elements.push({ bytes, line: this.startLine + countLines(bytes.subarray(0, leadingSpace(bytes))) });
      this.startLine = this.line;
    };
    for (let at = 0; at < chunk.length; at++) {
      const byte = chunk[at] ?? 0;
      if (byte === 10) this.line++;
      if (this.inString) {
        this.stepInString(byte);
      } else if (this.closed) {
        if (!isSpace(byte)) throw notJson(`${this.path}:${this.line}`, "there is text behind the list");
        start = at + 1;
      } else if (byte === 0x22) {
        this.inString = true;
      } else if (byte === 0x5b || byte === 0x7b) {
        if (this.depth++ === 0) [start, this.startLine] = [at + 1, this.line];
      } else if (byte === 0x5d || byte === 0x7d) {
        if (--this.depth === 0) this.close(chunk, start, at, take);
      } else if (byte === 0x2c && this.depth === 1) {
        take(at);
        this.afterComma = true;
      }
    }
    if (!this.closed) this.hold(chunk.subarray(start));
    return elements;
  }

  finish(): void {
    if (!this.closed) throw notJson(`${this.path}:${this.line}`, "the list does not end");
  }

  private close(chunk: Buffer, start: number, end: number, take: (end: number) => void): void {
    this.closed = true;
    const rest = Buffer.concat([...this.held, chunk.subarray(start, end)]);
    if (this.afterComma || leadingSpace(rest) < rest.length) take(end);
    this.held = [];
  }

  private stepInString(byte: number): void {
    if (this.escaped) this.escaped = false;
    else if (byte === 0x5c) this.escaped = true;
    else if (byte === 0x22) this.inString = false;
  }

  private hold(rest: Buffer): void {
    this.held.push(Buffer.from(rest));
    this.heldBytes += rest.length;
    if (this.heldBytes > mostRecordBytes) throw tooLong(`${this.path}:${this.startLine}`);
  }
}

/** A line or element as an object, or undefined where it is empty. */
function parseObject(bytes: Buffer, where: string): JsonObject | undefined {
  if (!isUtf8(bytes)) throw notUtf8(where);
  const text = bytes.toString("utf8").replace(/^\uFEFF/, "");
  if (text.trim() === "") return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw notJson(where, messageOf(error));
  }
  const object = asObject(value);
  if (object !== undefined) return object;
  throw new ThimbleError("data-record", "The record is not a JSON object", {
    where,
    given: kindOf(value),
    expected: 'an object, such as {"text": "..."}',
    fix: "Write one object a line (.jsonl) or a list of objects (.json).",
  });
}

function notJson(where: string, reason: string): ThimbleError {
  return new ThimbleError("data-not-json", `The data is not valid JSON: ${reason}`, {
    where,
    expected: "one JSON object a line (.jsonl), or a list of objects (.json)",
    fix: "Correct this line, or write the file again; it may have been cut off.",
  });
}

function notUtf8(where: string): ThimbleError {
  return new ThimbleError("data-not-utf8", "The data is not UTF-8 text", {
    where,
    expected: "UTF-8",
    fix: "Convert it, for example with iconv -f latin1 -t utf-8.",
  });
}

function tooLong(where: string): ThimbleError {
  return new ThimbleError("data-record-too-long", "A record is longer than any record should be", {
    where,
    given: `more than ${mostRecordBytes >> 20} MiB`,
    expected: "one record a line",
    fix: "Check the line ends; use .txt for long running text.",
  });
}

function countLines(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) count++;
  return count;
}

function linesBeforeDamage(bytes: Buffer, overlap: Buffer): number {
  let start = 0;
  for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, start)) {
    // The overlap may begin in the middle of a character, so its own line is never the damaged one by itself.
    if (start >= overlap.length && !isUtf8(bytes.subarray(start, end))) break;
    start = end + 1;
  }
  return countLines(bytes.subarray(overlap.length, Math.max(start, overlap.length)));
}

function leadingSpace(bytes: Buffer): number {
  let at = 0;
  while (at < bytes.length && isSpace(bytes[at] ?? 0)) at++;
  return at;
}

function isSpace(byte: number): boolean {
  return byte === 32 || byte === 10 || byte === 13 || byte === 9;
}
