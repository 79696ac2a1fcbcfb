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
  codes = findErrorCodes();
  generated = makeGenerated(codes);
});

test.each(docsPages())("%s shows what the program makes now", (page) => {
  const markdown = readPage(page);
  expect(renewPage(markdown, generated) === markdown, `docs/${page} ${refresh}`).toBe(true);
});

test("the numbers in the walk's prose are those of the dumps", () => {
  const line = (name: string, start: RegExp): string =>
    (generated.dumps.get(name) ?? "").split("\n").find((text) => start.test(text)) ?? "";
  const kernelAt = (step: number): string => / (\w+)\(/.exec(line("table", new RegExp(`^${step} `)))?.[1] ?? "";
  const writes = (step: number): string => line("schedule", new RegExp(`^ *${step} `));
  expect(line("forward", /^%115 /)).toContain("= dot(%107, %114)");
  expect(line("forward", /^%110 /)).toContain("= dot(%107, %108)");
  expect(line("forward", /^%113 /)).toContain("= dot(%112, %109)");
  expect(line("forward", /^%117 /)).toContain("= add(%88, %116)");
  expect(line("backward", /^%137 /)).toContain("= linearCrossEntropyGradient(");
  expect(generated.dumps.get("backward")).not.toContain("attention");
  expect(generated.dumps.get("counts")).toContain("for 2 gradients");
  expect(kernelAt(14)).toBe(/loops_\w+/.exec(generated.dumps.get("c") ?? "")?.[0]);
  expect(kernelAt(20)).toBe(kernelAt(22));
  expect(kernelAt(13)).toBe(/contraction_\w+(?=_parts)/.exec(generated.dumps.get("contraction-c") ?? "")?.[0]);
  expect(writes(14)).toMatch(/forward .*norm:multiply/);
  expect(writes(16)).toMatch(/again .*norm:reduceSum/);
  expect(writes(8)).toContain("embedding:gather");
  expect(writes(11).slice(-20)).toBe(writes(10).slice(-20));
  expect(writes(17)).toContain("backward.loss:result");
  expect(line("nest", /v2 .*=/)).toContain("v2 add= v1");
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
