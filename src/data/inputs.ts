import { stat } from "node:fs/promises";
import { extname } from "node:path";
import { glob, isDynamicPattern } from "tinyglobby";
import { ThimbleError } from "../errors.js";

/** How a file is read. */
export type FileKind = "text" | "jsonl" | "json" | "csv" | "tsv" | "parquet";

export interface InputFile {
  readonly path: string;
  readonly kind: FileKind;
  readonly bytes: number;
}

const kinds: Readonly<Record<string, FileKind>> = {
  ".txt": "text",
  ".md": "text",
  ".jsonl": "jsonl",
  ".ndjson": "jsonl",
  ".json": "json",
  ".csv": "csv",
  ".tsv": "tsv",
  ".parquet": "parquet",
};

/** The prefix of an input that is a file of token ids. */
export const tokensPrefix = "tokens:";

/** The files that paths and glob patterns name, each once, those of a pattern in alphabetical order. */
export async function findInputs(inputs: readonly string[]): Promise<InputFile[]> {
  const paths = new Set<string>();
  for (const input of inputs) for (const path of await expand(input)) paths.add(path);
  return Promise.all([...paths].map(describeFile));
}

async function expand(input: string): Promise<string[]> {
  if ((await fileSize(input)) !== undefined || !isDynamicPattern(input)) return [input];
  const found = (await glob(input, { absolute: input.startsWith("/"), expandDirectories: false })).sort();
  if (found.length > 0) return found;
  throw new ThimbleError("data-not-found", "No file matches the pattern", {
    given: input,
    fix: "Check the pattern, and quote it so that it arrives as it is.",
  });
}

async function describeFile(path: string): Promise<InputFile> {
  const bytes = await fileSize(path);
  if (bytes === undefined) {
    throw new ThimbleError("data-not-found", "There is no such data file", {
      given: path,
      fix: "Check the path; for several files give a pattern such as data/*.jsonl.",
    });
  }
  const kind = kinds[extname(path).toLowerCase()];
  if (kind !== undefined) return { path, kind, bytes };
  throw new ThimbleError("data-unknown-kind", "It is not known how to read this file", {
    given: path,
    expected: `a name that ends in ${Object.keys(kinds).join(", ")}, or ${tokensPrefix}FILE for token ids`,
    fix: "Rename or convert the file.",
  });
}

/** The size of a regular file, or undefined. */
async function fileSize(path: string): Promise<number | undefined> {
  try {
    const status = await stat(path);
    return status.isFile() ? status.size : undefined;
  } catch {
    return undefined;
  }
}
