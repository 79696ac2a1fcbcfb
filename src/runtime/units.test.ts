import { expect, test } from "vitest";
import { deal, unitText, withoutRepeats } from "./units.js";

const block = (guard: string, body: string): string => `#ifndef ${guard}\n#define ${guard}\n${body}\n#endif`;
const shared = block("SHARED", block("INNER", "int inner;") + "\n#if defined(X)\nint x;\n#else\nint y;\n#endif");

test("a guarded block is kept where it is first met, and dropped with all that is in it after that", () => {
  const met = new Set<string>();
  const first = `${shared}\nint a;`;
  expect(withoutRepeats(first, met)).toBe(first);
  expect([...met]).toEqual(["SHARED", "INNER"]);
  expect(withoutRepeats(`${shared}\nint b;`, met)).toBe("int b;");
  expect(withoutRepeats(`${block("INNER", "int inner;")}\n${block("OTHER", "int c;")}`, met)).toBe(
    block("OTHER", "int c;"),
  );
});

test("a block under a condition is left to the preprocessor", () => {
  const met = new Set<string>();
  const conditional = `#ifdef HAS_DOT\n${block("DOT", "int dot;")}\n#endif`;
  expect(withoutRepeats(conditional, met)).toBe(conditional);
  const plain = block("DOT", "int dot;");
  expect(withoutRepeats(plain, met)).toBe(plain);
});

test("a unit states includes and shared blocks once", () => {
  const kernels = ["a", "b"].map((name) => ({ name, source: `${shared}\nint ${name};`, includes: ["int prelude;"] }));
  const text = unitText(kernels);
  expect(text.split("int prelude;")).toHaveLength(2);
  expect(text.split("int inner;")).toHaveLength(2);
  expect(text).toContain('#line 1 "b"\nint b;');
});

test("kernels are dealt by what they add to a unit, not by what they share with it", () => {
  const heavy = block("HEAVY", "int heavy;\n".repeat(100).trimEnd());
  const light = (name: string): { name: string; source: string } => ({ name, source: `${heavy}\nint ${name};` });
  const alone = { name: "alone", source: "int alone;\n".repeat(90) };
  const units = deal([light("a"), light("b"), light("c"), alone], 2).map((unit) => unit.map(({ name }) => name));
  expect(units).toEqual([["alone"], ["a", "b", "c"]]);
  expect(deal([alone], 4)).toEqual([[alone]]);
});
