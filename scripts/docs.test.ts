import { readFile } from "node:fs/promises";
import { expect, it } from "vitest";
import { runFlags } from "../src/config/flags.js";
import { commandPage, pagePath } from "./docs.js";

it("docs/cli.md is what the declarations say (npx tsx scripts/docs.ts writes it)", async () => {
  expect(await readFile(pagePath, "utf8")).toBe(commandPage());
});

it("the page names every setting", () => {
  for (const { flag } of runFlags) expect(commandPage()).toContain(`| \`${flag}`);
});
