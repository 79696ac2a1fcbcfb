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

const runnableFence = "```ts run";

/** The runnable code of a page, on the lines where it stands there, so that an error's line is that of the page. */
export function runnableCode(markdown: string): string | undefined {
  const lines = markdown.split("\n");
  if (!lines.includes(runnableFence)) return undefined;
  let inside = false;
  const code = lines.map((line) => {
    if (line === runnableFence || line === "```") {
      inside = line === runnableFence;
      return "";
    }
    return inside ? line : "";
  });
  return code.join("\n");
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
