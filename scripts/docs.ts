/**
 * Writes docs/cli.md from the declarations of the commands and their settings.
 *
 *   npx tsx scripts/docs.ts [--check]
 *
 * With --check, writes nothing and fails where the file is not what it should be.
 */
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { commandPage } from "../src/cli/docs.js";

const path = fileURLToPath(new URL("../docs/cli.md", import.meta.url));
const page = await commandPage();
if (!process.argv.includes("--check")) await writeFile(path, page);
else if ((await readFile(path, "utf8").catch(() => "")) !== page) {
  process.stderr.write("docs/cli.md is out of date: npx tsx scripts/docs.ts\n");
  process.exitCode = 1;
}
