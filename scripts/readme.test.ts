import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { verbs } from "../src/cli/verbs.js";

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
const reference = readFileSync(new URL("../docs/cli.md", import.meta.url), "utf8");

const commands = [...readme.matchAll(/npx thimble ([^#\n`]+)/g)].map((match) => (match[1] ?? "").trim().split(/\s+/));

test("the README's commands are verbs and flags that exist", () => {
  expect(commands.length).toBeGreaterThan(5);
  for (const [verb, ...words] of commands) {
    expect(verbs.map(({ name }) => name)).toContain(verb);
    for (const flag of words.filter((word) => word.startsWith("--"))) expect(reference).toContain(`\`${flag} `);
  }
});
