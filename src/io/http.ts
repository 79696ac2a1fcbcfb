/** HTTP requests that follow redirects by hand, because what a redirect says matters. */
import { ThimbleError } from "../errors.js";

/** The transfer failed in a way that trying again may mend. */
export class TransientError extends Error {}

export interface Answer {
  readonly response: Response;
  /** SHA-256 of the whole file, where the server or a redirect on the way states it (Hugging Face's LFS files). */
  readonly sha256: string | undefined;
}

const maximumRedirects = 10;
const headerTimeout = 60_000;

/** GETs an address. Credentials do not follow a redirect to another origin, and https never falls back to http. */
export async function get(address: string, headers: Readonly<Record<string, string>>, source: string): Promise<Answer> {
  let url = new URL(address);
  let sent = { ...headers };
  let sha256: string | undefined;
  for (let hop = 0; hop <= maximumRedirects; hop++) {
    const response = await request(url, sent);
    sha256 ??= /^(?:W\/)?"?([0-9a-f]{64})"?$/.exec(response.headers.get("x-linked-etag") ?? "")?.[1];
    const location = response.headers.get("location");
    if (response.status < 300 || response.status >= 400 || response.status === 304 || location === null) {
      checkStatus(response, source, url);
      return { response, sha256 };
    }
    await response.body?.cancel();
    const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined;
    if (
      next === undefined ||
      !["http:", "https:"].includes(next.protocol) ||
      (url.protocol === "https:" && next.protocol !== "https:")
    ) {
      throw new ThimbleError("source-insecure", `${source} redirects to where Thimble does not follow`, {
        given: location,
      });
    }
    if (next.origin !== url.origin)
      sent = Object.fromEntries(Object.entries(sent).filter(([name]) => name !== "authorization"));
    url = next;
  }
  throw new ThimbleError("source-refused", `${source} redirects without end`, { where: address });
}

async function request(url: URL, headers: Readonly<Record<string, string>>): Promise<Response> {
  const controller = new AbortController();
  const timer = setTimeout(() => {
    controller.abort(new Error(`no answer within ${headerTimeout / 1000} s`));
  }, headerTimeout);
  try {
    return await fetch(url, { redirect: "manual", headers, signal: controller.signal });
  } catch (cause) {
    throw new TransientError(reason(cause), { cause });
  } finally {
    clearTimeout(timer);
  }
}

/** What went wrong, from the inside: `fetch failed` says nothing. */
export function reason(error: unknown): string {
  const causes: Error[] = [];
  for (let current = error; current instanceof Error && causes.length < 5; current = current.cause)
    causes.push(current);
  const innermost = causes.at(-1);
  if (innermost === undefined) return String(error);
  if (innermost instanceof AggregateError && innermost.errors.length > 0) return reason(innermost.errors[0]);
  return innermost.message === "" ? innermost.name : innermost.message;
}

function checkStatus(response: Response, source: string, url: URL): void {
  const { status } = response;
  if (response.ok || status === 416) return;
  void response.body?.cancel();
  const said = `${status} ${response.statusText}`.trim();
  if (status === 408 || status === 429 || status >= 500) throw new TransientError(said);
  const where = url.origin + url.pathname;
  if (status === 404 || status === 410) {
    throw new ThimbleError("source-missing", `${source} is not there`, {
      where,
      given: said,
      fix: "Check the name and the revision.",
    });
  }
  throw new ThimbleError("source-refused", `${source} is not given to us`, {
    where,
    given: said,
    fix: "If it is a gated or private model of Hugging Face, accept its terms there and set HF_TOKEN.",
  });
}
