import { existsSync } from "node:fs";
import { describe, expect, test } from "vitest";
import ts from "typescript";
import { docsPages, readPage, runnableCode, writeExamples } from "./docs-examples.js";

const examples = writeExamples();

for (const { page, file } of examples) {
  // The pages declare tests of their own.
  describe(page, async () => {
    await import(/* @vite-ignore */ file);
  });
}

test("every guide has an example", () => {
  expect(examples.map(({ page }) => page)).toEqual(
    expect.arrayContaining(["adding-a-method.md", "adding-a-model-family.md", "adding-a-target.md", "adding-an-op.md"]),
  );
});

test("the examples have no type errors", () => {
  const { config } = ts.readConfigFile("tsconfig.json", (path) => ts.sys.readFile(path)) as { config: object };
  const { options } = ts.parseJsonConfigFileContent({ ...config, include: [] }, ts.sys, process.cwd());
  const files = examples.map(({ file }) => file);
  const program = ts.createProgram(files, { ...options, noEmit: true, declaration: false, rootDir: process.cwd() });
  const faults = files.flatMap((file) => {
    const source = program.getSourceFile(file);
    return [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)];
  });
  const shown = faults.map(({ file, start = 0, messageText }) => {
    const line = file === undefined ? 0 : file.getLineAndCharacterOfPosition(start).line + 1;
    return `${file?.fileName ?? ""}:${line} ${ts.flattenDiagnosticMessageText(messageText, "\n")}`;
  });
  expect(shown).toEqual([]);
});

test.each(docsPages())("%s names files and pages that exist", (page) => {
  const markdown = readPage(page);
  const files = [...markdown.matchAll(/`((?:src|scripts|docs)\/[\w./-]+)`/g)].map(([, path = ""]) => path);
  const pages = [...markdown.matchAll(/\]\(([\w-]+\.md)[#)]/g)].map(([, path = ""]) => `docs/${path}`);
  // Files of the example that the reader is to add.
  const invented = /input-factors/;
  expect([...files, ...pages].filter((path) => !invented.test(path) && !existsSync(path))).toEqual([]);
});

test("code keeps the lines of its page", () => {
  expect(runnableCode("a\n```ts run\nx;\n```\n```ts\ny;\n```\n```ts run\nz;\n```")).toBe("\n\nx;\n\n\n\n\n\nz;\n");
  expect(runnableCode("```ts\nx;\n```")).toBeUndefined();
});
