/**
 * Makes the README's measured section, docs/benchmarks.md and its plots from bench/results: `npx tsx bench/table.ts`.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  benchmarkPage,
  pagePath,
  plotFolder,
  plots,
  readmePath,
  readmeSection,
  readResults,
  replaceSection,
} from "./side-by-side/pages.js";

const results = readResults();
writeFileSync(readmePath, replaceSection(readFileSync(readmePath, "utf8"), readmeSection(results)));
writeFileSync(pagePath, benchmarkPage(results));
mkdirSync(plotFolder, { recursive: true });
for (const [name, svg] of await plots(results)) writeFileSync(join(plotFolder, name), svg);
