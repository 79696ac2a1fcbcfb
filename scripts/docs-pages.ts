/** The parts of the documentation that are made from the program, and where they stand on its pages. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeDumps } from "./docs-dumps.js";
import { errorNotes } from "./docs-error-notes.js";
import type { ErrorCode } from "./docs-errors.js";
import { findErrorCodes } from "./docs-errors.js";
import { declaredTable, familyTable, pairTable } from "./docs-methods.js";
import { docsFolder, docsPages, readPage } from "./docs-examples.js";

/** `<!-- dump: NAME -->`, then a fence whose inside is replaced. */
const dumpPattern = /(<!-- dump: ([\w-]+) -->\n```\w*\n)(?:[^\n]*\n)*?(```)(?=\n|$)/g;
/** `<!-- table: NAME -->` to `<!-- end of table -->`. */
const tablePattern = /(<!-- table: ([\w-]+) -->\n)(?:[^\n]*\n)*?(<!-- end of table -->)/g;

export interface Generated {
  readonly dumps: ReadonlyMap<string, string>;
  readonly tables: ReadonlyMap<string, string>;
}

function lookUp(texts: ReadonlyMap<string, string>, name: string): string {
  const text = texts.get(name);
  if (text === undefined) throw new Error(`nothing is generated under the name ${name}`);
  return text;
}

/** A page with its generated parts made anew. */
export function renewPage(markdown: string, { dumps, tables }: Generated): string {
  return markdown
    .replace(dumpPattern, (_all, head: string, name: string, tail: string) => `${head}${lookUp(dumps, name)}\n${tail}`)
    .replace(
      tablePattern,
      (_all, head: string, name: string, tail: string) => `${head}${lookUp(tables, name)}\n${tail}`,
    );
}

/** The names of the generated parts on a page. */
export function partsOn(markdown: string): string[] {
  return [...markdown.matchAll(/^<!-- (?:dump|table): ([\w-]+) -->$/gm)].map((match) => match[1] ?? "");
}

export function makeGenerated(codes: readonly ErrorCode[]): Generated {
  const tables = new Map([
    ["errors", errorTable(codes)],
    ["methods", declaredTable()],
    ["methods-families", familyTable()],
    ["methods-pairs", pairTable()],
  ]);
  return { dumps: makeDumps(), tables };
}

/** What a person can do about an error: as its own text says, else as noted here, else what it accepts. */
export function adviceFor({ code, fixes, expected }: ErrorCode): string | undefined {
  if (errorNotes[code] !== undefined) return errorNotes[code];
  if (fixes.length > 0) return fixes.join("<br>");
  return expected.length > 0 ? `Accepted: ${expected.join("; ")}.` : undefined;
}

const mostMessages = 5;

function messagesOf({ code, messages }: ErrorCode): string {
  if (code === "internal") return "Something that must hold inside Thimble did not";
  const shown = messages.slice(0, mostMessages);
  const more = messages.length > shown.length ? [`and ${messages.length - shown.length} more of the kind`] : [];
  return [...shown, ...more].join("<br>");
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|").replaceAll("\n", " ");
}

export function errorTable(codes: readonly ErrorCode[]): string {
  const rows = codes.map(
    (error) => `| \`${error.code}\` | ${cell(messagesOf(error))} | ${cell(adviceFor(error) ?? "—")} |`,
  );
  return ["| code | what it says | what to do |", "| --- | --- | --- |", ...rows].join("\n");
}

/** Pages that differ from what would be generated now; they are written unless `check`. */
export function renewPages({ check }: { readonly check: boolean }): string[] {
  const generated = makeGenerated(findErrorCodes());
  return docsPages().filter((page) => {
    const before = readPage(page);
    const after = renewPage(before, generated);
    if (after !== before && !check) writeFileSync(join(docsFolder, page), after);
    return after !== before;
  });
}
