import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { findModel } from "./find-model.js";
import { temporaryFolder } from "./testing/files.js";

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => {
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

describe("finding the model", () => {
  test.each([
    [["config.json", "model.safetensors"], "huggingface", ""],
    [["config.json", "model.safetensors", "other.gguf", "sub/more.gguf"], "huggingface", ""],
    [["deep/er/config.json", "deep/er/model-00001-of-00002.safetensors"], "huggingface", "deep/er"],
    [["pkg/data/m.gguf", "config.json"], "gguf", "pkg/data/m.gguf"],
    [["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], "gguf", "m-00001-of-00002.gguf"],
  ])("%j", async (names, kind, place) => {
    const root = files(names);
    expect(await findModel(root, "x")).toEqual({ kind, path: place === "" ? root : join(root, place) });
  });

  test("several are listed, none is said", async () => {
    const root = files(["a/x.gguf", "b/y.gguf"]);
    await expect(findModel(root, "pypi:p")).rejects.toThrow(
      expect.objectContaining({ code: "source-ambiguous", given: `${join("a", "x.gguf")}, ${join("b", "y.gguf")}` }),
    );
    await expect(findModel(files(["none/readme.txt"]) + "/none", "x")).rejects.toThrow(code("source-no-model"));
  });
});
