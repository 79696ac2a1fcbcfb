/** The examples of the documentation as modules: the fences of a page that are marked `ts run`, in order. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
export const docsFolder = join(root, "docs");
/** Beside `docs`, so that imports are written as on the pages; ignored by git. */
export const examplesFolder = join(root, "docs-examples.tmp");

export interface Example {
  /** File name of the page. */
  readonly page: string;
  /** The module that its fences make. */
  readonly file: string;
}

/** File names of all pages. */
export function docsPages(): string[] {
  return readdirSync(docsFolder)
    .filter((name) => name.endsWith(".md"))
    .sort();
}

export function readPage(page: string): string {
  return readFileSync(join(docsFolder, page), "utf8");
}

/** The runnable code of a page, on the lines where it stands there, so that an error's line is that of the page. */
export function runnableCode(markdown: string): string | undefined {
  let inside = false;
  let found = false;
  const lines = markdown.split("\n").map((line) => {
    const opens = !inside && line === "```ts run";
    const closes = inside && line === "```";
    const code = inside && !closes;
    inside = opens || code;
    found ||= opens;
    return code ? line : "";
  });
  return found ? lines.join("\n") : undefined;
}

function currentText(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

/** Writes the module of every page that has one; files that are right already are left alone. */
export function writeExamples(): Example[] {
  mkdirSync(examplesFolder, { recursive: true });
  return docsPages().flatMap((page) => {
    const code = runnableCode(readPage(page));
    if (code === undefined) return [];
    const file = join(examplesFolder, `${basename(page, ".md")}.ts`);
    if (currentText(file) !== code) writeFileSync(file, code);
    return [{ page, file }];
  });
}
