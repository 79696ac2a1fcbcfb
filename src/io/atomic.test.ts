import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { writeAtomically, writeBytesAtomically, writeJsonAtomically, writeTextAtomically } from "./atomic.js";
import { temporaryFolder } from "./testing/files.js";

let folder: ReturnType<typeof temporaryFolder>;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => {
  folder.remove();
});

test("writes bytes, text and JSON, making folders", async () => {
  const path = (name: string): string => join(folder.path, "a/b", name);
  await writeBytesAtomically(path("bytes"), Uint8Array.of(1, 2));
  await writeTextAtomically(path("text"), "é");
  await writeJsonAtomically(path("json"), { a: [1] });
  await writeAtomically(path("parts"), async (write) => {
    for (const part of ["one", " ", "two"]) await write(new TextEncoder().encode(part));
  });
  expect(readdirSync(join(folder.path, "a/b")).map((name) => [name, readFileSync(path(name), "utf8")])).toEqual([
    ["bytes", "\u0001\u0002"],
    ["json", '{\n  "a": [\n    1\n  ]\n}\n'],
    ["parts", "one two"],
    ["text", "é"],
  ]);
});

test("keeps the old contents when the new cannot be made", async () => {
  const path = folder.file("file", "old");
  const failing = writeAtomically(path, async (write) => {
    await write(Uint8Array.of(1));
    throw new Error("no more");
  });
  await expect(failing).rejects.toThrow("no more");
  expect(readdirSync(folder.path)).toEqual(["file"]);
  expect(readFileSync(path, "utf8")).toBe("old");
});

test("many writers leave one whole file", async () => {
  const path = join(folder.path, "file");
  const texts = Array.from({ length: 20 }, (_, index) => String(index).repeat(1000));
  await Promise.all(texts.map((text) => writeTextAtomically(path, text)));
  expect(texts).toContain(readFileSync(path, "utf8"));
  expect(readdirSync(folder.path)).toEqual(["file"]);
});

test("says which file cannot be written", async () => {
  mkdirSync(join(folder.path, "taken"));
  const refused = writeTextAtomically(join(folder.path, "taken"), "x");
  await expect(refused).rejects.toThrow(
    expect.objectContaining({ code: "file-unwritable", where: join(folder.path, "taken") }),
  );
  const under = writeTextAtomically(join(folder.file("file", "x"), "below"), "x");
  await expect(under).rejects.toThrow(expect.objectContaining({ code: "file-unwritable" }));
  expect(readdirSync(folder.path)).toEqual(["file", "taken"]);
});
