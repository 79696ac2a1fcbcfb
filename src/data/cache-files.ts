import { createHash } from "node:crypto";
import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { asBoolean, asCount, asObject, asString } from "./json.js";
import type { JsonObject } from "./json.js";
import { readChunks } from "./read-files.js";
import { RecordHash } from "./token-source.js";
import type { TokenSink } from "./token-source.js";

/** Written into every cache; a cache of another version is made again. */
export const cacheVersion = 2;

/** Names of the files of a cache folder. */
export const cacheNames = {
  ids: "ids.bin",
  weights: "weights.bin",
  records: "records.bin",
  head: "cache.json",
} as const;

/** Bytes of a record's entry: length, targets (uint32), hash (float64), source (uint32), little-endian. */
export const recordBytes = 20;

/** Length and SHA-256 of one file of a cache. */
interface FileSeal {
  readonly bytes: number;
  readonly sha256: string;
}

/** cache.json: what the other files hold, and how they must look. */
export interface CacheHead {
  readonly version: number;
  readonly bytesPerToken: 2 | 4;
  readonly tokens: number;
  readonly records: number;
  readonly allTrained: boolean;
  readonly ids: FileSeal;
  readonly weights: FileSeal;
  readonly recordTable: FileSeal;
  /** What was found while the data was read; opaque here. */
  readonly report: JsonObject;
}

/** Appends to a file through a buffer of one megabyte and keeps its length and digest. */
class SealedFile {
  private readonly descriptor: number;
  private readonly hash = createHash("sha256");
  private readonly buffer = Buffer.allocUnsafe(1 << 20);
  private filled = 0;
  private bytes = 0;

  constructor(path: string) {
    this.descriptor = openSync(path, "wx", 0o600);
  }

  /** Room for `length` bytes at the returned place of the buffer. */
  reserve(length: number): { buffer: Buffer; at: number } {
    if (this.filled + length > this.buffer.length) this.flush();
    const at = this.filled;
    this.filled += length;
    return { buffer: this.buffer, at };
  }

  finish(): FileSeal {
    this.flush();
    fsyncSync(this.descriptor);
    closeSync(this.descriptor);
    return { bytes: this.bytes, sha256: this.hash.digest("hex") };
  }

  abandon(): void {
    closeSync(this.descriptor);
  }

  private flush(): void {
    const full = this.buffer.subarray(0, this.filled);
    this.hash.update(full);
    for (let done = 0; done < full.length;) done += writeSync(this.descriptor, full, done);
    this.bytes += full.length;
    this.filled = 0;
  }
}

/** Writes the files of a cache folder, token by token, in bounded memory. */
export class TokenWriter implements TokenSink {
  tokens = 0;
  records = 0;
  private readonly ids: SealedFile;
  private readonly weights: SealedFile;
  private readonly table: SealedFile;
  private hash = new RecordHash();
  private length = 0;
  private bits = 0;
  private allTrained = true;

  constructor(
    folder: string,
    private readonly bytesPerToken: 2 | 4,
  ) {
    this.ids = new SealedFile(join(folder, cacheNames.ids));
    this.weights = new SealedFile(join(folder, cacheNames.weights));
    this.table = new SealedFile(join(folder, cacheNames.records));
  }

  add(ids: ArrayLike<number>, weights?: ArrayLike<number>): void {
    for (let index = 0; index < ids.length; index++) this.addToken(ids[index] ?? 0, weights?.[index] ?? 1);
  }

  endRecord(source = 0): void {
    const { buffer, at } = this.table.reserve(recordBytes);
    buffer.writeUInt32LE(this.length, at);
    buffer.writeUInt32LE(this.hash.targets, at + 4);
    buffer.writeDoubleLE(this.hash.value, at + 8);
    buffer.writeUInt32LE(source, at + 16);
    this.records++;
    this.hash = new RecordHash();
    this.length = 0;
  }

  /** Completes the files; the head has to be written last. */
  finish(report: JsonObject): CacheHead {
    if (this.tokens % 8 !== 0) this.pushBits();
    const seals = { ids: this.ids.finish(), weights: this.weights.finish(), recordTable: this.table.finish() };
    const { bytesPerToken, tokens, records, allTrained } = this;
    return { version: cacheVersion, bytesPerToken, tokens, records, allTrained, ...seals, report };
  }

  abandon(): void {
    for (const file of [this.ids, this.weights, this.table]) file.abandon();
  }

  private addToken(id: number, weight: number): void {
    const { buffer, at } = this.ids.reserve(this.bytesPerToken);
    if (this.bytesPerToken === 2) buffer.writeUInt16LE(id, at);
    else buffer.writeUInt32LE(id, at);
    this.hash.add(id, weight);
    this.length++;
    if (weight !== 0) this.bits |= 1 << (this.tokens % 8);
    else this.allTrained = false;
    this.tokens++;
    if (this.tokens % 8 === 0) this.pushBits();
  }

  private pushBits(): void {
    const { buffer, at } = this.weights.reserve(1);
    buffer[at] = this.bits;
    this.bits = 0;
  }
}

/** The head as text, followed by its own digest. */
export function writeHead(head: CacheHead): string {
  const text = JSON.stringify(head);
  return `${text}\n${digest(text)}`;
}

/** Reads a head; undefined where it is damaged or of another version. */
export function readHead(text: string): CacheHead | undefined {
  const [json = "", sha256] = text.split("\n");
  if (digest(json) !== sha256) return undefined;
  const value = asObject(JSON.parse(json));
  if (value?.["version"] !== cacheVersion) return undefined;
  const [tokens, records, report] = [asCount(value["tokens"]), asCount(value["records"]), asObject(value["report"])];
  const [ids, weights, recordTable] = [seal(value["ids"]), seal(value["weights"]), seal(value["recordTable"])];
  const allTrained = asBoolean(value["allTrained"]);
  if (tokens === undefined || records === undefined || report === undefined || allTrained === undefined)
    return undefined;
  if (ids === undefined || weights === undefined || recordTable === undefined) return undefined;
  const bytesPerToken = value["bytesPerToken"] === 2 ? 2 : 4;
  return { version: cacheVersion, bytesPerToken, tokens, records, allTrained, ids, weights, recordTable, report };
}

/** Whether the files of a cache folder are complete and unharmed. Reads them once, a megabyte at a time. */
export async function isIntact(folder: string, head: CacheHead): Promise<boolean> {
  const sizes = [
    head.ids.bytes === head.tokens * head.bytesPerToken,
    head.recordTable.bytes === head.records * recordBytes,
    head.weights.bytes === Math.ceil(head.tokens / 8),
  ];
  if (sizes.includes(false)) return false;
  const { ids, weights, records } = cacheNames;
  const files = [[ids, head.ids] as const, [weights, head.weights] as const, [records, head.recordTable] as const];
  for (const [name, expected] of files) {
    if (!(await hasSeal(join(folder, name), expected))) return false;
  }
  return true;
}

async function hasSeal(path: string, expected: FileSeal): Promise<boolean> {
  const size = await stat(path).then(
    (status) => status.size,
    () => -1,
  );
  return size === expected.bytes && (await fileDigest(path)) === expected.sha256;
}

/** SHA-256 of a file. */
export async function fileDigest(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of readChunks(path)) hash.update(chunk);
  return hash.digest("hex");
}

function seal(value: unknown): FileSeal | undefined {
  const object = asObject(value);
  const [bytes, sha256] = [asCount(object?.["bytes"]), asString(object?.["sha256"])];
  return bytes === undefined || sha256 === undefined ? undefined : { bytes, sha256 };
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
