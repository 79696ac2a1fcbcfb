import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { ThimbleError } from "../errors.js";
import { cacheDirectory } from "../runtime/platform.js";
import { cacheNames, isIntact, readHead, recordBytes, TokenWriter, writeHead } from "./cache-files.js";
import type { CacheHead } from "./cache-files.js";
import { messageOf } from "./json.js";
import type { JsonObject } from "./json.js";
import { decodeIds, readRange } from "./raw-tokens.js";
import type { TokenSource } from "./token-source.js";

/** Where tokenised data is kept: `THIMBLE_CACHE` or the user's cache directory. */
export function dataCacheDirectory(): string {
  return join(cacheDirectory(), "data-1");
}

/** A key for everything that decides about the tokens, as 64 hexadecimal digits. */
export function cacheKey(facts: JsonObject): string {
  return createHash("sha256").update(JSON.stringify(facts)).digest("hex");
}

/** A cache and how it was come by. */
export interface OpenedCache {
  readonly tokens: CachedTokens;
  /** `found` as it was, `made` for the first time, or `remade` since it was damaged. */
  readonly state: "found" | "made" | "remade";
}

/**
 * Opens the cache of a key, or makes it with `fill`. A cache is written under a temporary name and renamed when it is
 * complete, so that a killed run leaves none; it is checked by lengths and digests each time it is opened, and made
 * again if anything differs. Several processes may do this at once.
 */
export async function openCache(
  directory: string,
  key: string,
  bytesPerToken: 2 | 4,
  fill: (writer: TokenWriter) => Promise<JsonObject>,
): Promise<OpenedCache> {
  const folder = join(directory, key);
  makeDirectory(directory);
  removeLeftovers(directory, key);
  const present = readHeadOf(folder);
  if (present !== undefined) {
    const tokens = await openIntact(folder, present);
    if (tokens !== undefined) return { tokens, state: "found" };
    rmSync(folder, { recursive: true, force: true });
  }
  await make(directory, key, bytesPerToken, fill);
  const head = readHeadOf(folder);
  const tokens = head === undefined || head === "damaged" ? undefined : await openIntact(folder, head);
  if (tokens !== undefined) return { tokens, state: present === undefined ? "made" : "remade" };
  throw cacheError(folder, "what was written does not read back the same");
}

async function openIntact(folder: string, head: CacheHead | "damaged"): Promise<CachedTokens | undefined> {
  return head !== "damaged" && (await isIntact(folder, head)) ? new CachedTokens(folder, head) : undefined;
}

function readHeadOf(folder: string): CacheHead | "damaged" | undefined {
  try {
    return readHead(readFileSync(join(folder, cacheNames.head), "utf8")) ?? "damaged";
  } catch {
    // A folder gets its name when it is complete, so one without a head has lost it.
    return existsSync(folder) ? "damaged" : undefined;
  }
}

async function make(
  directory: string,
  key: string,
  bytesPerToken: 2 | 4,
  fill: (writer: TokenWriter) => Promise<JsonObject>,
): Promise<void> {
  const temporary = join(directory, `${key}.${process.pid}.${randomBytes(4).toString("hex")}.tmp`);
  try {
    mkdirSync(temporary, { mode: 0o700 });
    await write(temporary, bytesPerToken, fill);
    publish(temporary, join(directory, key));
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    if (error instanceof ThimbleError) throw error;
    throw cacheError(directory, messageOf(error), error);
  }
}

async function write(
  folder: string,
  bytesPerToken: 2 | 4,
  fill: (writer: TokenWriter) => Promise<JsonObject>,
): Promise<void> {
  const writer = new TokenWriter(folder, bytesPerToken);
  let report: JsonObject;
  try {
    report = await fill(writer);
  } catch (error) {
    writer.abandon();
    throw error;
  }
  writeFileSync(join(folder, cacheNames.head), writeHead(writer.finish(report)), { mode: 0o600, flush: true });
}

/** Gives a complete folder its name. Where another process was faster, its result is as good. */
function publish(temporary: string, folder: string): void {
  try {
    renameSync(temporary, folder);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "ENOTEMPTY" && code !== "EEXIST" && code !== "EPERM") throw error;
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** Removes what runs that were killed left of this key. */
function removeLeftovers(directory: string, key: string): void {
  for (const name of readdirSync(directory)) {
    const [, owner] = new RegExp(`^${key}\\.(\\d+)\\.[0-9a-f]+\\.tmp$`).exec(name) ?? [];
    if (owner !== undefined && !isRunning(Number(owner)))
      rmSync(join(directory, name), { recursive: true, force: true });
  }
}

function isRunning(owner: number): boolean {
  try {
    process.kill(owner, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw cacheError(directory, messageOf(error), error);
  }
}

function cacheError(where: string, reason: string, cause?: unknown): ThimbleError {
  return new ThimbleError("data-cache", `The cache of tokenised data cannot be written: ${reason}`, {
    where,
    fix: "Check that the disk has room, or set THIMBLE_CACHE to another directory.",
    cause,
  });
}

/** A token source on disk; only the table of records is held in memory. */
export class CachedTokens implements TokenSource {
  readonly tokenCount: number;
  readonly recordCount: number;
  readonly allTrained: boolean;
  readonly report: JsonObject;
  private readonly ids: number;
  private readonly weights: number;
  private readonly starts: Float64Array;
  private readonly trained: Uint32Array;
  private readonly hashes: Float64Array;
  private readonly sources: Uint32Array;

  constructor(
    readonly folder: string,
    private readonly head: CacheHead,
  ) {
    this.tokenCount = head.tokens;
    this.recordCount = head.records;
    this.allTrained = head.allTrained;
    this.report = head.report;
    this.starts = new Float64Array(head.records + 1);
    this.trained = new Uint32Array(head.records);
    this.hashes = new Float64Array(head.records);
    this.sources = new Uint32Array(head.records);
    this.readTable();
    this.ids = openSync(join(folder, cacheNames.ids), "r");
    this.weights = openSync(join(folder, cacheNames.weights), "r");
  }

  start(record: number): number {
    return this.starts[record] ?? 0;
  }

  targets(record: number): number {
    return this.trained[record] ?? 0;
  }

  hash(record: number): number {
    return this.hashes[record] ?? 0;
  }

  sourceOf(record: number): number {
    return this.sources[record] ?? 0;
  }

  readIds(start: number, into: Int32Array): void {
    const { bytesPerToken } = this.head;
    decodeIds(
      readRange(this.ids, start * bytesPerToken, into.length * bytesPerToken, this.folder),
      bytesPerToken,
      into,
    );
  }

  readWeights(start: number, into: Uint8Array): void {
    const first = Math.floor(start / 8);
    const bits = readRange(this.weights, first, Math.ceil((start + into.length) / 8) - first, this.folder);
    for (let index = 0; index < into.length; index++) {
      const bit = start + index - 8 * first;
      into[index] = ((bits[bit >>> 3] ?? 0) >>> (bit & 7)) & 1;
    }
  }

  close(): void {
    closeSync(this.ids);
    closeSync(this.weights);
  }

  private readTable(): void {
    const table = openSync(join(this.folder, cacheNames.records), "r");
    try {
      const step = 1 << 16;
      for (let first = 0; first < this.recordCount; first += step) {
        const count = Math.min(step, this.recordCount - first);
        const bytes = readRange(table, first * recordBytes, count * recordBytes, this.folder);
        for (let index = 0; index < count; index++) this.readEntry(bytes, index * recordBytes, first + index);
      }
    } finally {
      closeSync(table);
    }
  }

  private readEntry(bytes: Buffer, at: number, record: number): void {
    this.starts[record + 1] = (this.starts[record] ?? 0) + bytes.readUInt32LE(at);
    this.trained[record] = bytes.readUInt32LE(at + 4);
    this.hashes[record] = bytes.readDoubleLE(at + 8);
    this.sources[record] = bytes.readUInt32LE(at + 16);
  }
}
