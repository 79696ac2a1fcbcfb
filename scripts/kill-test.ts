/**
 * The long form of the kill test: a LoRA run killed with SIGKILL at random moments and resumed, many times over.
 *
 *   npx tsx scripts/kill-test.ts [--kills 20] [--steps 10] [--target c] [--model MODEL --data tokens:FILE]
 *
 * Without a model, a tiny random one is made. Ends with an error unless every run equals the straight one bit for bit.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { killRuns } from "../src/train/testing/kill-run.js";
import { writeTinyModel, writeTokens } from "../src/train/testing/tiny-folder.js";

const { values } = parseArgs({
  options: {
    kills: { type: "string", default: "20" },
    steps: { type: "string", default: "10" },
    target: { type: "string", default: "c" },
    model: { type: "string" },
    data: { type: "string" },
    batch: { type: "string", default: "2" },
    seq: { type: "string", default: "32" },
  },
});

const folder = await mkdtemp(join(tmpdir(), "thimble-kill-"));
try {
  const model = values.model ?? join(folder, "model");
  const data = values.data ?? `tokens:${join(folder, "ids.u16")}`;
  if (values.model === undefined) await writeTinyModel(model);
  if (values.data === undefined) await writeTokens(join(folder, "ids.u16"), 20000, 420);
  const report = await killRuns({
    flags: {
      model,
      data,
      batch: Number(values.batch),
      seq: Number(values.seq),
      saveEvery: 1,
      set: ["lora.dropout=0.1"],
      target: values.target,
    },
    steps: Number(values.steps),
    folder,
    kills: Number(values.kills),
    random: Math.random,
    onEvent: (text) => {
      console.log(text);
    },
  });
  console.log(JSON.stringify(report));
} finally {
  await rm(folder, { recursive: true, force: true });
}
