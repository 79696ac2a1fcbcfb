/**
 * Makes the generated parts of docs/*.md anew: `npx tsx scripts/docs.ts`. With `--check` nothing is written, and the
 * exit status is 1 where a page is out of date.
 */
import { renewPages } from "./docs-pages.js";

const check = process.argv.includes("--check");
const changed = renewPages({ check });
for (const page of changed) console.log(`docs/${page} ${check ? "is out of date" : "was rewritten"}`);
if (check && changed.length > 0) process.exitCode = 1;
