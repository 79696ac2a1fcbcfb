import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ThimbleError } from "../errors.js";
import { compileLibrary, type KernelSource } from "./compiler.js";
import { findCompiler } from "./find-compiler.js";
import { KernelCache } from "./kernel-cache.js";
import { librarySuffix } from "./platform.js";

const shared = "static inline int twice(int x) { return 2 * x; }";

function kernel(name: string, value: number): KernelSource {
  return { name, source: `int ${name}(void) { return twice(${value}); }`, includes: [shared] };
}

async function failure(promise: Promise<unknown>): Promise<ThimbleError> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ThimbleError)) throw new Error(`expected a ThimbleError, got ${String(error)}`);
  return error;
}

let root = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "thimble-compiler-"));
});
afterEach(() => {
  rmSync(root, { recursive: true, force: true });
});

describe("compileLibrary", () => {
  it("compiles what is missing and finds the rest", async () => {
    const cache = new KernelCache(root);
    const first = await compileLibrary([kernel("one", 1), kernel("two", 2), kernel("three", 3)], {
      cache,
      processes: 2,
    });
    expect(first.compiled).toBe(3);
    expect(readdirSync(cache.directory).filter((name) => name.startsWith("unit-"))).toHaveLength(2);
    const call = first.handle("three").func("three", "int", []) as unknown as () => number;
    expect(call()).toBe(6);
    expect(first.address("one")).toBeGreaterThan(0n);

    const second = await compileLibrary([kernel("two", 2), kernel("four", 4)], { cache });
    expect(second.compiled).toBe(1);
    expect(second.address("two")).toBe(first.address("two"));
    expect(readdirSync(cache.directory).filter((name) => name.startsWith("tmp-"))).toEqual([]);
    if (process.platform !== "win32") expect(statSync(cache.directory).mode & 0o777).toBe(0o700);
  });

  it("starts warm in well under 0.3 s", async () => {
    const cache = new KernelCache(root);
    const kernels = Array.from({ length: 40 }, (_, index) => kernel(`warm${String(index)}`, index));
    await compileLibrary(kernels, { cache });
    const start = performance.now();
    expect((await compileLibrary(kernels, { cache })).compiled).toBe(0);
    expect(performance.now() - start).toBeLessThan(300);
  });

  it("rebuilds an object that was changed on disk", async () => {
    const cache = new KernelCache(root);
    await compileLibrary([kernel("spoilt", 5)], { cache });
    const unit = readdirSync(cache.directory).find((name) => name.startsWith("unit-")) ?? "";
    const path = join(cache.directory, unit, `unit${librarySuffix()}`);
    const bytes = readFileSync(path);
    rmSync(path);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 0xff;
    writeFileSync(path, bytes);
    const again = await compileLibrary([kernel("spoilt", 5)], { cache });
    expect(again.compiled).toBe(1);
    expect((await compileLibrary([kernel("spoilt", 5)], { cache })).compiled).toBe(0);
    rmSync(path);
    expect((await compileLibrary([kernel("spoilt", 5)], { cache })).compiled).toBe(1);
  });

  it("keys objects by the compiler", async () => {
    const cache = new KernelCache(root);
    const compiler = await findCompiler();
    await compileLibrary([kernel("keyed", 6)], { cache, compiler });
    const other = { ...compiler, version: `${compiler.version} changed` };
    expect((await compileLibrary([kernel("keyed", 6)], { cache, compiler: other })).compiled).toBe(1);
  });

  it("names the kernel that does not compile, shows the log and keeps the source", async () => {
    const cache = new KernelCache(root);
    const broken = { name: "broken", source: "int broken(void) { return undeclared_name; }" };
    const error = await failure(compileLibrary([kernel("sound", 7), broken], { cache, processes: 1 }));
    expect(error.code).toBe("compile-failed");
    expect(error.given).toContain("undeclared_name");
    const path = /kept in (.*)$/.exec(error.where ?? "")?.[1] ?? "";
    expect(error.where).toMatch(/^broken,/);
    expect(readFileSync(path, "utf8")).toContain("undeclared_name");
    expect((await compileLibrary([kernel("sound", 7)], { cache })).compiled).toBe(0);
  });

  it("may run in several processes at once", async () => {
    const kernels = Array.from({ length: 6 }, (_, index) => kernel(`both${String(index)}`, index));
    const module = new URL("./compiler.ts", import.meta.url).href;
    const script = `import { compileLibrary } from ${JSON.stringify(module)};
      const library = await compileLibrary(${JSON.stringify(kernels)});
      console.log(library.handle("both5").func("both5", "int", [])());`;
    const parameters = ["--import", "tsx", "--input-type=module", "-e", script];
    const start = () =>
      promisify(execFile)(process.execPath, parameters, { env: { ...process.env, THIMBLE_CACHE: root } });
    const outputs = await Promise.all([start(), start()]);
    expect(outputs.map(({ stdout }) => stdout.trim())).toEqual(["10", "10"]);
    expect(readdirSync(join(root, "compiled-1")).filter((name) => name.startsWith("tmp-"))).toEqual([]);
    expect((await compileLibrary(kernels, { cache: new KernelCache(root) })).compiled).toBe(0);
  });
});

describe("findCompiler", () => {
  it("says what to install when there is none", async () => {
    const error = await failure(findCompiler({ PATH: "" }));
    expect(error.code).toBe("compiler-missing");
    expect(error.fix).toMatch(/install/i);
    expect((await failure(findCompiler({ PATH: root }))).code).toBe("compiler-missing");
  });

  it("does not pass over a CC that does not run", async () => {
    const error = await failure(findCompiler({ PATH: process.env["PATH"], CC: "no-such-compiler -m64" }));
    expect(error.code).toBe("compiler-missing");
    expect(error.given).toBe("CC=no-such-compiler -m64");
  });

  it("honours CC", async () => {
    const found = await findCompiler();
    const chosen = await findCompiler({ ...process.env, PATH: "", CC: [found.path, ...found.prefix].join(" ") });
    expect(chosen).toEqual(found);
  });
});

describe.skipIf(process.getuid?.() !== 0)("a cache directory of another user", () => {
  it("is refused", async () => {
    const cache = new KernelCache(root);
    await promisify(execFile)("chown", ["1", cache.directory]);
    expect(() => new KernelCache(root)).toThrow(expect.objectContaining({ code: "cache-unsafe" }) as Error);
  });
});
