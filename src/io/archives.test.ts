import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { create as createTar } from "tar";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { unpackTarball, unpackZip } from "./archives.js";
import { temporaryFolder } from "./testing/files.js";
import { zipFile } from "./testing/zip.js";

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => {
  folder.remove();
});

const code = (value: string): unknown => expect.objectContaining({ code: value });

function contents(root: string): string[] {
  return (readdirSync(root, { recursive: true }) as string[]).map((name) => name.replaceAll("\\", "/")).sort();
}

describe("archives", () => {
  const target = (): string => {
    mkdirSync(join(folder.path, "out"), { recursive: true });
    return join(folder.path, "out");
  };

  test.each([["../evil.gguf"], ["/tmp/evil.gguf"], ["a/../../evil.gguf"], ["..\\evil.gguf"], ["C:/evil.gguf"]])(
    "a zip entry named %s goes nowhere",
    async (name) => {
      const archive = folder.file("a.zip", zipFile({ [name]: "x" }));
      await expect(unpackZip(archive, target())).rejects.toThrow(code("source-archive"));
      const out = contents(folder.path).filter((entry) => entry.endsWith(".gguf") && !entry.startsWith("out/"));
      expect(out).toEqual([]);
    },
  );

  test("links in a zip are left out", async () => {
    const archive = folder.file(
      "a.zip",
      zipFile({ "link.gguf": "/etc/passwd", "m.gguf": "x" }, { "link.gguf": 0o120777 }),
    );
    await unpackZip(archive, target());
    expect(contents(target())).toEqual(["m.gguf"]);
  });

  test("a model that is a zip file within a zip file is unpacked, one level deep", async () => {
    const deepest = zipFile({ "far.gguf": "x" });
    const inner = zipFile({ "config.json": "{}", "model.safetensors": "x", "more.zip": deepest, "../evil.gguf": "x" });
    const good = zipFile({ "config.json": "{}", "model.safetensors": "x", "more.zip": deepest });
    const nested = folder.file("nested.zip", zipFile({ "pack/model.zip": good, "pack/code.py": "x" }));
    await unpackZip(nested, target());
    expect(contents(target())).toEqual([
      "pack",
      "pack/model",
      "pack/model/config.json",
      "pack/model/model.safetensors",
    ]);
    const evil = folder.file("evil.zip", zipFile({ "model.zip": inner }));
    await expect(unpackZip(evil, join(folder.path, "other"))).rejects.toThrow(code("source-archive"));
    const both = folder.file("both.zip", zipFile({ "m.gguf": "x", "data.zip": good }));
    await unpackZip(both, join(folder.path, "third"));
    expect(contents(join(folder.path, "third"))).toEqual(["m.gguf"]);
  });

  test("damaged archives are errors", async () => {
    const good = zipFile({ "m.gguf": "some weights" });
    const cut = folder.file("cut.zip", good.subarray(0, good.length - 30));
    await expect(unpackZip(cut, target())).rejects.toThrow(code("source-archive"));
    const tgz = folder.file("bad.tgz", "no tarball at all");
    await expect(unpackTarball(tgz, target())).rejects.toThrow(code("source-archive"));
  });

  test("links in a tarball are left out, and so is what leaves the folder", async () => {
    mkdirSync(join(folder.path, "package"));
    writeFileSync(join(folder.path, "package/m.gguf"), "weights");
    symlinkSync("/etc", join(folder.path, "package/link.gguf"));
    const archive = join(folder.path, "a.tgz");
    await createTar({ gzip: true, file: archive, cwd: folder.path }, ["package"]);
    await unpackTarball(archive, target());
    expect(contents(target())).toEqual(["m.gguf"]);

    writeFileSync(join(folder.path, "evil.gguf"), "x");
    mkdirSync(join(folder.path, "deep/er"), { recursive: true });
    const bad = join(folder.path, "bad.tgz");
    const outside = join(folder.path, "deep/er");
    await createTar({ gzip: true, file: bad, cwd: outside, preservePaths: true }, [
      relative(outside, join(folder.path, "evil.gguf")),
    ]);
    await expect(unpackTarball(bad, target())).rejects.toThrow(code("source-archive"));
    expect(contents(target())).toEqual(["m.gguf"]);
  });
});
