import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { resolveSource } from "./sources.js";
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

const code = (value: string): unknown => expect.objectContaining({ code: value });
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Makes files below the test's folder. */
function files(names: readonly string[]): string {
  for (const name of names) {
    mkdirSync(dirname(join(folder.path, name)), { recursive: true });
    writeFileSync(join(folder.path, name), name);
  }
  return folder.path;
}

function options() {
  return { cache: join(folder.path, "cache"), retryDelay: 1, environment: { HF_ENDPOINT: server.origin } };
}

function contents(root: string): string[] {
  return (readdirSync(root, { recursive: true }) as string[]).map((name) => name.replaceAll("\\", "/")).sort();
}

describe("a path", () => {
  test("a file is itself", async () => {
    const root = files(["a.gguf", "b.safetensors", "c.txt"]);
    expect((await resolveSource(join(root, "a.gguf"))).kind).toBe("gguf");
    expect(await resolveSource(`file:${join(root, "b.safetensors")}`)).toMatchObject({
      kind: "safetensors",
      cached: true,
    });
    await expect(resolveSource(join(root, "c.txt"))).rejects.toThrow(code("source-no-model"));
  });

  test("what looks like a hub name is pointed to the hub", async () => {
    await expect(resolveSource("owner/name")).rejects.toThrow(
      expect.objectContaining({ code: "source-missing", fix: expect.stringContaining("hf:owner/name") as unknown }),
    );
  });
});

describe("an address", () => {
  const data = bytes("GGUF of sorts");

  test("is fetched once", async () => {
    server.handlers.set("/m.gguf", serve(data));
    const first = await resolveSource(`${server.origin}/m.gguf`, options());
    expect(first).toMatchObject({ kind: "gguf", cached: false, source: `${server.origin}/m.gguf` });
    expect(readFileSync(first.path)).toEqual(Buffer.from(data));
    expect(await resolveSource(`${server.origin}/m.gguf`, options())).toEqual({ ...first, cached: true });
    expect(server.log).toHaveLength(1);
    const marker = JSON.parse(readFileSync(join(dirname(first.path), ".thimble.json"), "utf8")) as object;
    expect(marker).toMatchObject({ files: { "m.gguf": { bytes: data.length, sha256: sha256(data) } } });
  });

  test("is fetched once by many at the same time", async () => {
    server.handlers.set("/m.gguf", serve(data));
    const all = await Promise.all([1, 2, 3, 4].map(() => resolveSource(`${server.origin}/m.gguf`, options())));
    expect(new Set(all.map((model) => model.path)).size).toBe(1);
    expect(all.filter((model) => !model.cached)).toHaveLength(1);
    expect(server.log).toHaveLength(1);
  });

  test("is fetched again when the file in the cache is damaged", async () => {
    server.handlers.set("/m.gguf", serve(data));
    const first = await resolveSource(`${server.origin}/m.gguf`, options());
    writeFileSync(first.path, "short");
    expect((await resolveSource(`${server.origin}/m.gguf`, options())).cached).toBe(false);
    expect(readFileSync(first.path)).toEqual(Buffer.from(data));
  });

  test("goes on after a failure of the whole attempt", async () => {
    const large = new Uint8Array(3_000_000);
    const cut = serve(large, { cuts: 1, piece: 1_000_000 });
    server.handlers.set("/m.gguf", (request, response) => {
      if (server.log.length === 1) cut(request, response);
      else response.writeHead(500).end();
    });
    await expect(resolveSource(`${server.origin}/m.gguf`, options())).rejects.toThrow(code("source-unreachable"));
    server.log.length = 0;
    server.handlers.set("/m.gguf", serve(large));
    await resolveSource(`${server.origin}/m.gguf`, options());
    expect(server.log).toEqual([expect.stringMatching(/^GET \/m.gguf bytes=[1-9]\d*-$/)]);
  });

  test("that is not a model, or has another checksum, leaves nothing in the cache", async () => {
    server.handlers.set("/m.gguf", serve(data));
    const wrong = resolveSource(`${server.origin}/m.gguf#sha256=${"0".repeat(64)}`, options());
    await expect(wrong).rejects.toThrow(code("source-checksum"));
    await expect(resolveSource(`${server.origin}/m.zip`, options())).rejects.toThrow(code("source-name"));
    await expect(resolveSource(`${server.origin}/a%2F..%2Fb.gguf`, options())).rejects.toThrow(code("source-name"));
    const entries = readdirSync(options().cache).filter((name) => !/\.(lock|partial)$/.test(name));
    expect(entries).toEqual([]);
  });
});

describe("the hub", () => {
  const commit = "a".repeat(40);

  /** Serves a repository; weights are stored as LFS files, behind a redirect. */
  function repository(contentsOf: Record<string, string>, api = "/api/models/o/n/revision/main?blobs=true"): void {
    const siblings = Object.entries(contentsOf).map(([rfilename, text]) => {
      const lfs = /safetensors$|gguf$/.test(rfilename) ? { lfs: { sha256: sha256(bytes(text)) } } : {};
      return { rfilename, size: bytes(text).length, ...lfs };
    });
    server.handlers.set(api, (_request, response) => response.end(JSON.stringify({ sha: commit, siblings })));
    for (const [name, text] of Object.entries(contentsOf)) {
      server.handlers.set(`/blob/${name}`, serve(bytes(text)));
      server.handlers.set(`/o/n/resolve/${commit}/${name}`, (_request, response) => {
        response.writeHead(302, { location: `/blob/${name}`, "x-linked-etag": `"${sha256(bytes(text))}"` }).end();
      });
    }
  }

  test("gives a checkpoint's files and no others", async () => {
    repository({
      "README.md": "read",
      "config.json": "{}",
      "consolidated.safetensors": "again",
      "model-00001-of-00002.safetensors": "one",
      "model-00002-of-00002.safetensors": "two",
      "model.safetensors.index.json": "{}",
      "onnx/model.onnx": "large",
      "onnx/config.json": "{}",
      "tokenizer.json": "{}",
      "tokenizer.model": "sp",
    });
    const model = await resolveSource("hf:o/n", options());
    expect(model).toMatchObject({ kind: "huggingface", source: "hf:o/n@main" });
    expect(contents(model.path)).toEqual([
      ".thimble.json",
      "config.json",
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
      "tokenizer.json",
      "tokenizer.model",
    ]);
    const asked = server.log.length;
    expect((await resolveSource("hf:o/n", options())).cached).toBe(true);
    expect(server.log).toHaveLength(asked);
  });

  test("gives one of several GGUF files by name, and lists them otherwise", async () => {
    repository({ "q4.gguf": "4", "q8.gguf": "8", "README.md": "" });
    await expect(resolveSource("hf:o/n", options())).rejects.toThrow(
      expect.objectContaining({ code: "source-ambiguous", given: "q4.gguf, q8.gguf" }),
    );
    const model = await resolveSource("hf:o/n/q8.gguf", options());
    expect(readFileSync(model.path, "utf8")).toBe("8");
    await expect(resolveSource("hf:o/n/q5.gguf", options())).rejects.toThrow(code("source-no-model"));
  });

  test("gives all parts of a split GGUF file, and a revision", async () => {
    const api = "/api/models/o/n/revision/v2?blobs=true";
    repository({ "m-00001-of-00002.gguf": "1", "m-00002-of-00002.gguf": "2" }, api);
    const model = await resolveSource("hf:o/n@v2", options());
    expect(model.path.endsWith("m-00001-of-00002.gguf")).toBe(true);
    expect(existsSync(join(dirname(model.path), "m-00002-of-00002.gguf"))).toBe(true);
  });

  test("does not fetch again what an earlier attempt left whole", async () => {
    repository({ "config.json": "{}", "model.safetensors": "weights", "model-2.safetensors": "more" });
    const last = `/blob/model-2.safetensors`;
    const handler = server.handlers.get(last)!;
    server.handlers.set(last, (_request, response) => response.writeHead(403).end());
    await expect(resolveSource("hf:o/n", options())).rejects.toThrow(code("source-refused"));
    server.handlers.set(last, handler);
    await resolveSource("hf:o/n", options());
    expect(server.log.filter((line) => line === "GET /blob/model.safetensors")).toHaveLength(1);
  });

  test("gets the user's token", async () => {
    const seen: (string | undefined)[] = [];
    server.handlers.set("/api/models/o/n/revision/main?blobs=true", (request, response) => {
      seen.push(request.headers.authorization);
      response.writeHead(401).end();
    });
    const { environment, ...rest } = options();
    const asked = resolveSource("hf:o/n", { ...rest, environment: { ...environment, HF_TOKEN: "secret" } });
    await expect(asked).rejects.toThrow(
      expect.objectContaining({ code: "source-refused", fix: expect.stringContaining("HF_TOKEN") as unknown }),
    );
    expect(seen).toEqual(["Bearer secret"]);
  });

  test("cannot write outside of the cache", async () => {
    repository({ "../../evil.gguf": "x" });
    await expect(resolveSource("hf:o/n", options())).rejects.toThrow(code("source-archive"));
    server.handlers.set("/api/models/o/n/revision/main?blobs=true", (_request, response) => response.end("<html>"));
    await expect(resolveSource("hf:o/n", options())).rejects.toThrow(code("source-unreachable"));
    await expect(resolveSource("hf:o/none", options())).rejects.toThrow(code("source-missing"));
  });
});
