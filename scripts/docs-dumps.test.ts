import { beforeAll, expect, test } from "vitest";
import ts from "typescript";
import { errorNotes } from "./docs-error-notes.js";
import type { ErrorCode } from "./docs-errors.js";
import { findErrorCodes, textsOf } from "./docs-errors.js";
import { docsPages, readPage } from "./docs-examples.js";
import type { Generated } from "./docs-pages.js";
import { adviceFor, errorTable, makeGenerated, partsOn, renewPage } from "./docs-pages.js";

const refresh = "is out of date: run `npx tsx scripts/docs.ts`";
let generated: Generated;
let codes: ErrorCode[];

beforeAll(() => {
  generated = makeGenerated();
  codes = findErrorCodes();
});

test.each(docsPages())("%s shows what the program makes now", (page) => {
  const markdown = readPage(page);
  expect(renewPage(markdown, generated) === markdown, `docs/${page} ${refresh}`).toBe(true);
});

test("every dump and table is on a page, once", () => {
  const shown = docsPages().flatMap((page) => partsOn(readPage(page)));
  expect(shown.sort()).toEqual([...generated.dumps.keys(), ...generated.tables.keys()].sort());
});

test("every error code is in docs/errors.md, with something to do about it", () => {
  const page = readPage("errors.md");
  expect(codes.filter(({ code }) => !page.includes(`| \`${code}\` |`)).map(({ code }) => code)).toEqual([]);
  expect(codes.filter((error) => adviceFor(error) === undefined).map(({ code }) => code)).toEqual([]);
  expect(codes.length).toBeGreaterThan(100);
});

test("there are notes only for codes that exist", () => {
  const known = new Set(codes.map(({ code }) => code));
  expect(Object.keys(errorNotes).filter((code) => !known.has(code))).toEqual([]);
});

test("codes and messages that are passed on are found where they are written", () => {
  const messages = (code: string): readonly string[] => codes.find((error) => error.code === code)?.messages ?? [];
  expect(messages("gguf-truncated")).toContain("The file ends within its header");
  expect(messages("peft-config")).toContain("This JSON is not UTF-8 text");
});

test("texts of expressions: alternatives, joins, and … for what is not known", () => {
  const texts = (code: string): string[] => {
    const [statement] = ts.createSourceFile("a.ts", code, ts.ScriptTarget.Latest, true).statements;
    return statement !== undefined && ts.isExpressionStatement(statement) ? textsOf(statement.expression) : [];
  };
  expect(texts('a ? "x" : "y" + "z"')).toEqual(["x", "yz"]);
  expect(texts("`${b ? 'no' : 'one'} of ${c}`")).toEqual(["no of …", "one of …"]);
});

test("a fence is replaced between its marks only, and unknown names are refused", () => {
  const page = "<!-- dump: a -->\n```text\nold\n```\nkept\n<!-- table: t -->\nold\n<!-- end of table -->\n";
  const parts = { dumps: new Map([["a", "new"]]), tables: new Map([["t", "| x |"]]) };
  expect(renewPage(page, parts)).toBe(
    "<!-- dump: a -->\n```text\nnew\n```\nkept\n<!-- table: t -->\n| x |\n<!-- end of table -->\n",
  );
  expect(() => renewPage(page, { ...parts, dumps: new Map() })).toThrow("under the name a");
  const error = { code: "c", messages: ["a|b"], fixes: [], expected: ["a number"] };
  expect(errorTable([error])).toContain("| `c` | a\\|b | Accepted: a number. |");
});
