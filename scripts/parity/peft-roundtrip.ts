/**
 * Writes adapters with made-up training, one folder each, and the logits that Thimble gives with them; then
 * peft_roundtrip.py loads them in PEFT and compares.
 *
 *   npx tsx scripts/parity/peft-roundtrip.ts DIR && python scripts/parity/peft_roundtrip.py DIR
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { must } from "../../src/errors.js";
import { elements } from "../../src/ir/shape.js";
import { openModel } from "../../src/io/model.js";
import { writePeft } from "../../src/io/peft.js";
import { portableForm } from "../../src/methods/lora/export.js";
import { MethodBench } from "../../src/testing/method-bench.js";

const adapters: Readonly<Record<string, Record<string, unknown>>> = {
  lora: { r: 4, alpha: 8, layers_to_transform: [1] },
  rslora: { r: 4, alpha: 8, rslora: true, rank_pattern: { down_proj: 2 }, alpha_pattern: { "layers.0.*": 3 } },
  dora: { r: 4, alpha: 8, dora: true },
  pissa: { r: 4, alpha: 8, init: "pissa", rank_pattern: { q_proj: 6 } },
  "pissa-rslora": { r: 4, alpha: 8, init: "pissa_niter_8", rslora: true },
};

const ids = [3, 17, 96, 0, 41, 8, 8, 60];
const base = fileURLToPath(new URL("../../src/io/fixtures/peft/llama/base", import.meta.url));
const folder = must(process.argv[2], "the folder to write to");

const { definition, weights } = await openModel(base);
const original = new Map<string, Float32Array>();
for (const { name, shape } of definition.parameters) {
  const values = new Float32Array(elements(shape));
  await weights.readInto(name, new Uint8Array(values.buffer), "f32");
  original.set(name, values);
}
await weights.close();

const logits: Record<string, number[]> = {};
for (const [name, settings] of Object.entries(adapters)) {
  const bench = await MethodBench.create(definition, [{ id: "lora", settings }], { weights: original, ids });
  bench.scramble(0.1);
  const last = [...must(bench.run([bench.logits])[0], "logits").data].slice(-definition.vocabularySize);
  const read = (parameter: string): Promise<Float32Array> => Promise.resolve(must(original.get(parameter), parameter));
  const form = await must(bench.composed.peft, "PEFT's form")(bench.values, { seed: 1, read });
  await writePeft(join(folder, name), form);
  logits[name] = last;
  if (settings["dora"] === true) continue;
  await writePeft(join(folder, `${name}-portable`), portableForm(form));
  logits[`${name}-portable`] = last;
}
await writeFile(join(folder, "logits.json"), JSON.stringify({ base, ids, logits }));
