/** A merged export in transformers: the logits of Thimble's run of base and adapter, and the same tokenizer. */
import { join } from "node:path";
import { must } from "../../src/errors.js";
import { openRunModel } from "../../src/train/model.js";
import { largestDifference } from "../../src/testing/method-bench.js";
import type { Check, Context, Outcome } from "./check.js";
import { holds, requireData, within } from "./check.js";
import { firstIds, thimbleLogits } from "./logits.js";
import { thimble } from "./process.js";
import { torchLogits } from "./python.js";

export const sampleText = "It was the best of times, it was the worst of times: 1859 … naïve café\n\n\tend.";

/** The ids that Thimble gives a text with a model's tokenizer. */
export async function encodedByThimble(model: string, text: string): Promise<number[]> {
  const opened = await openRunModel(`file:${model}`);
  try {
    return (await opened.loadTokenizer()).encode(text);
  } finally {
    await opened.files.weights.close();
  }
}

async function run(context: Context): Promise<Outcome[]> {
  const { python, work } = context;
  const data = requireData(context);
  await python.require("torch", "transformers");
  const base = join(data, "smollm2");
  const { folder: adapter } = await context.trained();
  const merged = join(work, "merged");
  await thimble("merge", "--model", `file:${base}`, "--adapter", adapter, "--out", merged);
  const ids = await firstIds(join(data, "tokens.u16"), 32);
  const theirs = await torchLogits(python, work, [{ name: "merged-logits", model: merged, ids, text: sampleText }]);
  const { logits, encoded } = must(theirs.get("merged-logits"), "logits");
  const ours = await thimbleLogits({ model: base, adapter, ids });
  const compared = "logits of 32 positions: the folder of `thimble merge` in transformers, Thimble with the adapter";
  const own = await encodedByThimble(merged, sampleText);
  return [
    within("merged logits", compared, largestDifference(ours, logits), 1e-4, "largest difference"),
    holds("merged tokenizer", "ids of a text: AutoTokenizer on the folder, Thimble's tokenizer", [
      [`${own.length} ids are equal`, JSON.stringify(own) === JSON.stringify(encoded)],
    ]),
  ];
}

export const mergedModel: Check = { name: "merged", run };
