/** An HTTP server on loopback that serves files as tests script it. */
import { createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

export interface TestServer {
  readonly origin: string;
  /** `GET path` and the range asked for, in the order of arrival. */
  readonly log: string[];
  readonly handlers: Map<string, Handler>;
  readonly close: () => Promise<void>;
}

export async function startServer(): Promise<TestServer> {
  const handlers = new Map<string, Handler>();
  const log: string[] = [];
  const server = createServer((request, response) => {
    log.push([request.method, request.url, request.headers.range].filter((part) => part !== undefined).join(" "));
    const handler = handlers.get(request.url ?? "");
    if (handler !== undefined) handler(request, response);
    else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    log,
    handlers,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => {
          resolve();
        });
      }),
  };
}

export function sha256(data: Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}

/** Serves `data` with ranges and an ETag; the first `cuts` answers break off after `piece` bytes. */
export function serve(
  data: Uint8Array,
  options: { cuts?: number; piece?: number; headers?: Record<string, string> } = {},
): Handler {
  let cuts = options.cuts ?? 0;
  return (request, response) => {
    const etag = `"${sha256(data).slice(0, 16)}"`;
    const asked = /^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1];
    const start = asked !== undefined && request.headers["if-range"] === etag ? Number(asked) : 0;
    if (start >= data.length && start > 0) {
      response.writeHead(416, { "content-range": `bytes */${data.length}` }).end();
      return;
    }
    response.writeHead(start > 0 ? 206 : 200, {
      etag,
      "content-length": data.length - start,
      ...(start > 0 ? { "content-range": `bytes ${start}-${data.length - 1}/${data.length}` } : {}),
      ...options.headers,
    });
    if (cuts-- <= 0) {
      response.end(data.subarray(start));
      return;
    }
    // Ended, not destroyed: what was written still arrives, and then nothing more.
    response.write(data.subarray(start, start + (options.piece ?? 0)), () => response.socket?.end());
  };
}
