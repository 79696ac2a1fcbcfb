import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Download } from "./download.js";
import { download } from "./download.js";
import { temporaryFolder } from "./testing/files.js";
import type { TestServer } from "./testing/server.js";
import { serve, sha256, startServer } from "./testing/server.js";

let folder: ReturnType<typeof temporaryFolder>;
let server: TestServer;
beforeEach(async () => {
  folder = temporaryFolder();
  server = await startServer();
});
afterEach(async () => {
  await server.close();
  folder.remove();
});

const data = Uint8Array.from({ length: 3_000_000 }, (_, index) => (index * 7 + (index >> 8)) & 255);
const code = (value: string): unknown => expect.objectContaining({ code: value });

function fetchFile(path: string, more: Partial<Download> = {}): Promise<string> {
  return download({
    url: server.origin + path,
    target: join(folder.path, "file"),
    source: "the model",
    retryDelay: 1,
    ...more,
  });
}

/** Where a logged request wanted to start. */
function startOf(line: string): number {
  return Number(/bytes=(\d+)-$/.exec(line)?.[1] ?? 0);
}

function expectWhole(): void {
  expect(readFileSync(join(folder.path, "file")).equals(data)).toBe(true);
  expect(readdirSync(folder.path)).toEqual(["file"]);
}

describe("a download", () => {
  test("arrives whole, with its checksum and progress", async () => {
    server.handlers.set("/a", serve(data));
    const seen: (number | undefined)[][] = [];
    expect(await fetchFile("/a", { progress: (_file, done, total) => seen.push([done, total]) })).toBe(sha256(data));
    expectWhole();
    expect(seen.at(-1)).toEqual([data.length, data.length]);
  });

  test("goes on where the connection was cut", async () => {
    server.handlers.set("/a", serve(data, { cuts: 2, piece: 1_000_000 }));
    await fetchFile("/a", { sha256: sha256(data) });
    expectWhole();
    const [first, ...starts] = server.log.map(startOf);
    expect(first).toBe(0);
    expect(starts).toHaveLength(2);
    // What had arrived but was not yet read when the connection broke may come twice.
    expect(starts[0]).toBeGreaterThan(0);
    expect(starts[1]).toBeGreaterThan(starts[0]!);
  });

  test("goes on in a later attempt of the user", async () => {
    server.handlers.set("/a", serve(data, { cuts: 1, piece: 1_000_000 }));
    const first = server.handlers.get("/a")!;
    server.handlers.set("/a", (request, response) => {
      if (server.log.length === 1) first(request, response);
      else response.writeHead(503).end();
    });
    await expect(fetchFile("/a")).rejects.toThrow(code("source-unreachable"));
    expect(readdirSync(folder.path).sort()).toEqual(["file.part", "file.part.json"]);
    server.log.length = 0;
    server.handlers.set("/a", serve(data));
    await fetchFile("/a");
    expect(server.log).toHaveLength(1);
    expect(startOf(server.log[0]!)).toBeGreaterThan(0);
    expectWhole();
  });

  test("starts anew when the file on the server has changed", async () => {
    server.handlers.set(
      "/a",
      serve(
        data.map((byte) => byte ^ 1),
        { cuts: 1, piece: 1_000_000 },
      ),
    );
    const old = server.handlers.get("/a")!;
    server.handlers.set("/a", (request, response) => {
      if (server.log.length === 1) old(request, response);
      else serve(data)(request, response);
    });
    expect(await fetchFile("/a")).toBe(sha256(data));
    expectWhole();
  });

  test("starts anew where the server has no ranges", async () => {
    const cut = serve(data, { cuts: 1, piece: 100_000 });
    server.handlers.set("/a", (request, response) => {
      delete request.headers.range;
      cut(request, response);
    });
    await fetchFile("/a");
    expectWhole();
  });

  test("that was whole already needs no byte more", async () => {
    const etag = `"${sha256(data).slice(0, 16)}"`;
    folder.file("file.part", data);
    folder.file("file.part.json", JSON.stringify({ url: `${server.origin}/a`, validator: etag }));
    server.handlers.set("/a", serve(data));
    await fetchFile("/a", { sha256: sha256(data) });
    expectWhole();
  });

  test("is discarded when its checksum or size is wrong", async () => {
    server.handlers.set("/a", serve(data));
    await expect(fetchFile("/a", { sha256: "0".repeat(64) })).rejects.toThrow(code("source-checksum"));
    await expect(fetchFile("/a", { bytes: data.length + 1 })).rejects.toThrow(code("source-checksum"));
    await expect(fetchFile("/a", { bytes: 10 })).rejects.toThrow(code("source-checksum"));
    server.handlers.set("/a", serve(data, { headers: { "x-linked-etag": `"${"1".repeat(64)}"` } }));
    await expect(fetchFile("/a")).rejects.toThrow(code("source-checksum"));
    expect(readdirSync(folder.path)).toEqual([]);
  });

  test("tries again when the server is busy, and says so when it stays busy", async () => {
    server.handlers.set("/a", (request, response) => {
      if (server.log.length < 3) response.writeHead(503).end();
      else serve(data)(request, response);
    });
    await fetchFile("/a");
    expectWhole();
    server.handlers.set("/b", (_request, response) => response.writeHead(500, "Broken").end());
    await expect(fetchFile("/b")).rejects.toThrow(
      expect.objectContaining({
        code: "source-unreachable",
        given: "500 Broken",
        message: "the model cannot be reached",
      }),
    );
  });

  test("does not insist on what is missing or refused", async () => {
    await expect(fetchFile("/none")).rejects.toThrow(code("source-missing"));
    server.handlers.set("/gated", (_request, response) => response.writeHead(401).end());
    await expect(fetchFile("/gated")).rejects.toThrow(code("source-refused"));
    expect(server.log).toHaveLength(2);
  });

  test("names what is wrong when nobody listens", async () => {
    await server.close();
    await expect(fetchFile("/a")).rejects.toThrow(
      expect.objectContaining({
        code: "source-unreachable",
        given: expect.stringContaining("ECONNREFUSED") as unknown,
      }),
    );
    expect(existsSync(join(folder.path, "file"))).toBe(false);
  });
});

describe("redirects", () => {
  test("are followed, with the checksum that they state, and without credentials to another origin", async () => {
    const other = await startServer();
    const seen: (string | undefined)[] = [];
    other.handlers.set("/blob", (request, response) => {
      seen.push(request.headers.authorization);
      serve(data)(request, response);
    });
    server.handlers.set("/a", (request, response) => {
      seen.push(request.headers.authorization);
      response.writeHead(302, { location: "/b" }).end();
    });
    server.handlers.set("/b", (request, response) => {
      seen.push(request.headers.authorization);
      const headers = { location: `${other.origin}/blob`, "x-linked-etag": `"${sha256(data)}"` };
      response.writeHead(302, headers).end();
    });
    await fetchFile("/a", { headers: { authorization: "Bearer secret" } });
    expectWhole();
    expect(seen).toEqual(["Bearer secret", "Bearer secret", undefined]);
    await other.close();
  });

  test.each(["file:///etc/passwd", "http://[", "ftp://127.0.0.1/a"])("to %s are refused", async (location) => {
    server.handlers.set("/a", (_request, response) => response.writeHead(302, { location }).end());
    await expect(fetchFile("/a")).rejects.toThrow(code("source-insecure"));
  });

  test("without end are refused", async () => {
    server.handlers.set("/a", (_request, response) => response.writeHead(307, { location: "/a" }).end());
    await expect(fetchFile("/a")).rejects.toThrow(code("source-refused"));
  });
});
