/**
 * Writes a pretrained folder as the demo's one file: GGUF in Q8_0 with the tokenizer inside.
 *
 *   npx tsx scripts/demo/package.ts MODEL FILE.gguf
 */
import { mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { must } from "../../src/errors.js";
import { writeGgufModel } from "../../src/train/export/gguf.js";
import { baseTensors } from "../../src/train/export/tensor-source.js";
import { openRunModel } from "../../src/train/model.js";

const [, , folder, file] = process.argv;
// The file is named after the folder that it was made from; this one should not be called "model".
const temporary = await mkdtemp(join(tmpdir(), "thimble-package-"));
try {
  const named = join(temporary, "thimble-demo");
  await symlink(resolve(must(folder, "the model's folder")), named, "junction");
  const model = await openRunModel(`file:${named}`);
  await writeGgufModel(must(file, "the file to write"), model, baseTensors(model.files.weights), "q8_0");
  await model.files.weights.close();
} finally {
  await rm(temporary, { recursive: true, force: true });
}
