/** Downloads that survive a cut connection: they go on where they stopped, and are checked at the end. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ThimbleError } from "../errors.js";
import { writeJsonAtomically } from "./atomic.js";
import { get, reason, TransientError } from "./http.js";
import { unreachable } from "./source-error.js";

/** Called while bytes arrive; `total` is known where the server states it. */
export type Progress = (file: string, done: number, total: number | undefined) => void;

export interface Download {
  readonly url: string;
  /** Where the file goes. Until it is whole, `${target}.part` and `${target}.part.json` stand there. */
  readonly target: string;
  /** What is fetched, as the user named it: for messages. */
  readonly source: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly sha256?: string | undefined;
  readonly bytes?: number | undefined;
  readonly progress?: Progress | undefined;
  /** Milliseconds before the second attempt; every further wait is twice as long. 500 if not given. */
  readonly retryDelay?: number | undefined;
}

/** Attempts in a row that bring nothing new before it gives up. */
const maximumAttempts = 5;
/** Nothing arriving for this long counts as a cut connection. */
const idleTimeout = 60_000;

/** Downloads a file and gives its SHA-256, which is compared with what the caller or the server states. */
export async function download(request: Download): Promise<string> {
  const part = `${request.target}.part`;
  await mkdir(dirname(request.target), { recursive: true });
  const stated = await fetchAll(request, part);
  const sha256 = await hashFile(part);
  const expected = request.sha256 ?? stated;
  const { size } = await stat(part);
  if ((expected !== undefined && sha256 !== expected) || (request.bytes !== undefined && size !== request.bytes)) {
    await removePart(part);
    throw new ThimbleError("source-checksum", `${request.source} did not arrive as it should`, {
      where: request.url,
      given: `sha256 ${sha256}, ${size} bytes`,
      expected: [
        expected === undefined ? "" : `sha256 ${expected}`,
        request.bytes === undefined ? "" : `${request.bytes} bytes`,
      ]
        .filter((text) => text !== "")
        .join(", "),
      fix: "The download was discarded. Try again; if it happens again, the source is damaged or not what it says.",
    });
  }
  await rename(part, request.target);
  await removePart(part);
  return sha256;
}

async function removePart(part: string): Promise<void> {
  await rm(part, { force: true });
  await rm(`${part}.json`, { force: true });
}

/** Brings the whole file into `part`; gives the checksum that the server states, if it does. */
async function fetchAll(request: Download, part: string): Promise<string | undefined> {
  let failures = 0;
  for (;;) {
    const before = await sizeOf(part);
    try {
      return await attempt(request, part);
    } catch (error) {
      if (!(error instanceof TransientError)) throw error;
      failures = (await sizeOf(part)) > before ? 0 : failures + 1;
      if (failures >= maximumAttempts) throw unreachable(request.source, error.message, error);
      await sleep((request.retryDelay ?? 500) * 2 ** failures);
    }
  }
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    (info) => info.size,
    () => 0,
  );
}

/** What tells that the rest on the server belongs to the part on disk. */
interface Resume {
  readonly url: string;
  readonly validator: string;
}

async function readResume(part: string, url: string): Promise<string | undefined> {
  try {
    const resume = JSON.parse(await readFile(`${part}.json`, "utf8")) as Partial<Resume> | null;
    return resume?.url === url && typeof resume.validator === "string" ? resume.validator : undefined;
  } catch {
    return undefined;
  }
}

async function attempt(request: Download, part: string): Promise<string | undefined> {
  const validator = await readResume(part, request.url);
  const have = validator === undefined ? 0 : await sizeOf(part);
  const range = have > 0 && validator !== undefined ? { range: `bytes=${have}-`, "if-range": validator } : {};
  const headers = { "accept-encoding": "identity", ...request.headers, ...range };
  const { response, sha256 } = await get(request.url, headers, request.source);
  if (response.status === 416) {
    await response.body?.cancel();
    // Nothing after what is here: the part is whole, or not a part of this file.
    if (response.headers.get("content-range") === `bytes */${have}`) return sha256;
    await removePart(part);
    throw new TransientError("the server does not go on where it stopped");
  }
  const start = response.status === 206 ? startOf(response) : 0;
  if (start !== 0 && start !== have) {
    await response.body?.cancel();
    await removePart(part);
    throw new TransientError("the server sends another part than asked for");
  }
  if (start === 0) await rememberValidator(response, part, request.url);
  await receive(response, part, start, request);
  return sha256;
}

function startOf(response: Response): number {
  return Number(/^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1] ?? NaN);
}

/** Only a strong validator can promise that two parts belong together. */
async function rememberValidator(response: Response, part: string, url: string): Promise<void> {
  await removePart(part);
  const etag = response.headers.get("etag");
  const validator = etag !== null && !etag.startsWith("W/") ? etag : response.headers.get("last-modified");
  if (validator !== null) await writeJsonAtomically(`${part}.json`, { url, validator } satisfies Resume);
}

async function receive(response: Response, part: string, start: number, request: Download): Promise<void> {
  const length = response.headers.get("content-length");
  const total = length === null ? undefined : start + Number(length);
  const limit = request.bytes ?? Infinity;
  let done = start;
  const handle = await open(part, start === 0 ? "w" : "a");
  try {
    for await (const chunk of chunksOf(response)) {
      done += chunk.length;
      // Larger than it may be: the check of the size will say so.
      if (done > limit) return;
      await handle.writeFile(chunk);
      request.progress?.(request.target, done, total ?? request.bytes);
    }
  } finally {
    await handle.close();
  }
  if (total !== undefined && done < total)
    throw new TransientError(`the connection was cut after ${done} of ${total} bytes`);
}

/** The body, with what cuts it short as a {@link TransientError}. */
async function* chunksOf(response: Response): AsyncGenerator<Uint8Array> {
  if (response.body === null) return;
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  try {
    for (;;) {
      const { done, value } = await withTimeout(reader.read());
      if (done) return;
      yield value;
    }
  } finally {
    // Not awaited: a connection that hangs would hang here too.
    void reader.cancel().catch(() => undefined);
  }
}

async function withTimeout<T>(action: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`nothing arrived for ${idleTimeout / 1000} s`));
    }, idleTimeout);
  });
  try {
    return await Promise.race([action, late]);
  } catch (cause) {
    throw new TransientError(reason(cause), { cause });
  } finally {
    clearTimeout(timer);
  }
}

/** SHA-256 of a file, in hexadecimal. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) hash.update(chunk as Uint8Array);
  return hash.digest("hex");
}
