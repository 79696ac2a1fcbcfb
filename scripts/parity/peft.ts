/** Adapters from Thimble in PEFT, and from PEFT in Thimble: the same logits. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { largestDifference } from "../../src/testing/method-bench.js";
import { must } from "../../src/errors.js";
import type { Check, Context, Outcome } from "./check.js";
import { holds, requireData, within } from "./check.js";
import { firstIds, thimbleLogits } from "./logits.js";
import { thimble } from "./process.js";
import type { TorchRequest } from "./python.js";
import { torchLogits } from "./python.js";

const limit = 1e-4;
/** An adapter that moves the logits by less than this would pass even if it were not loaded at all. */
const visible = 100 * limit;
const tiny = fileURLToPath(new URL("../../src/io/fixtures/peft/llama/base", import.meta.url));
const tinyIds = [3, 17, 96, 0, 41, 8, 8, 60];

/** Settings of adapters that Thimble trains on the tiny model. */
const trained: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  lora: { r: 4, alpha: 8, layers_to_transform: [1] },
  rslora: { r: 4, alpha: 8, rslora: true, rank_pattern: { down_proj: 2 }, alpha_pattern: { "layers.0.*": 3 } },
  dora: { r: 4, alpha: 8, dora: true },
  pissa: { r: 4, alpha: 8, init: "pissa", rank_pattern: { q_proj: 6 } },
};

/** Settings of adapters that PEFT makes on the tiny model. */
const made: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  lora: { r: 4, lora_alpha: 8, target_modules: ["q_proj", "v_proj"] },
  rslora: { r: 4, lora_alpha: 6, use_rslora: true, target_modules: "all-linear" },
  dora: { r: 3, lora_alpha: 6, use_dora: true, target_modules: ["q_proj", "down_proj"] },
};

interface Compared {
  readonly ours: Float32Array;
  readonly theirs: Float32Array;
  /** Without the adapter. */
  readonly base: Float32Array;
}

function compare(name: string, compared: string, { ours, theirs, base }: Compared): Outcome {
  const moved = largestDifference(ours, base);
  const outcome = within(name, compared, largestDifference(ours, theirs), limit, "largest difference");
  const result = `${outcome.result}; the adapter moves them by ${moved.toExponential(1)}`;
  return { ...outcome, result, status: moved > visible ? outcome.status : "fail" };
}

/** Trains one adapter on the tiny model; the folders of its forms by name. */
async function trainTiny(
  name: string,
  settings: Readonly<Record<string, unknown>>,
  work: string,
): Promise<[string, string][]> {
  const [config, tokens] = [join(work, `${name}.yaml`), join(work, "tiny.u16")];
  const run = join(work, `tiny-${name}`);
  const ids = Uint16Array.from({ length: 1000 }, (_, index) => (index * index + 7 * index) % 97);
  await writeFile(tokens, new Uint8Array(ids.buffer));
  await writeFile(
    config,
    JSON.stringify({ method: [{ id: "lora", settings }], batch: 2, seq: 16, steps: 4, lr: 0.01 }),
  );
  await thimble("train", "--config", config, "--model", `file:${tiny}`, "--data", `tokens:${tokens}`, "--out", run);
  const forms: [string, string][] = [[name, join(run, "adapter")]];
  if (settings["dora"] === true) return forms;
  const portable = join(work, `tiny-${name}-portable`);
  const source = ["--model", `file:${tiny}`, "--adapter", run];
  await thimble("export", ...source, "--format", "peft", "--portable", "--out", portable);
  return [...forms, [`${name}-portable`, portable]];
}

async function thimbleToPeft({ python, work }: Context): Promise<Outcome[]> {
  await python.require("torch", "transformers", "peft");
  const forms: [string, string][] = [];
  for (const [name, settings] of Object.entries(trained)) forms.push(...(await trainTiny(name, settings, work)));
  const requests = forms.map(([name, adapter]): TorchRequest => ({ name, model: tiny, adapter, ids: tinyIds }));
  const theirs = await torchLogits(python, work, requests);
  const base = await thimbleLogits({ model: tiny, ids: tinyIds });
  const outcomes: Outcome[] = [];
  for (const [name, adapter] of forms) {
    const ours = await thimbleLogits({ model: tiny, adapter, ids: tinyIds });
    const compared = "logits: an adapter trained by Thimble on a tiny Llama, in Thimble and in peft";
    outcomes.push(compare(`to peft ${name}`, compared, { ours, theirs: must(theirs.get(name), name).logits, base }));
  }
  return outcomes;
}

async function peftToThimble({ python, work }: Context): Promise<Outcome[]> {
  await python.require("torch", "transformers", "peft");
  const requests = Object.entries(made).map(([name, make]): TorchRequest => ({
    name: `made-${name}`,
    model: tiny,
    adapter: join(work, `made-${name}`),
    make,
    ids: tinyIds,
  }));
  const theirs = await torchLogits(python, work, requests);
  const base = await thimbleLogits({ model: tiny, ids: tinyIds });
  const outcomes: Outcome[] = [];
  for (const { name, adapter = "" } of requests) {
    const ours = await thimbleLogits({ model: tiny, adapter, ids: tinyIds });
    const [label, compared] = [`from peft ${name.slice(5)}`, "logits: an adapter made by peft, in peft and in Thimble"];
    outcomes.push(compare(label, compared, { ours, theirs: must(theirs.get(name), name).logits, base }));
  }
  return outcomes;
}

async function realToPeft(context: Context): Promise<Outcome[]> {
  const { python, work } = context;
  const data = requireData(context);
  await python.require("torch", "transformers", "peft");
  const adapter = join((await context.trained()).folder, "adapter");
  const ids = await firstIds(join(data, "tokens.u16"), 32);
  const model = join(data, "smollm2");
  const theirs = await torchLogits(python, work, [{ name: "smollm2-lora", model, adapter, ids }]);
  const ours = await thimbleLogits({ model, adapter, ids });
  const compared = "logits of 32 positions: LoRA on SmolLM2-135M trained 5 steps by Thimble, in Thimble and in peft";
  const config = JSON.parse(await readFile(join(adapter, "adapter_config.json"), "utf8")) as Record<string, unknown>;
  return [
    compare("to peft smollm2", compared, {
      ours,
      theirs: must(theirs.get("smollm2-lora"), "logits").logits,
      base: await thimbleLogits({ model, ids }),
    }),
    holds("to peft config", "adapter_config.json of the run", [
      ["peft_type LORA", config["peft_type"] === "LORA"],
      ["r 16, alpha 32", config["r"] === 16 && config["lora_alpha"] === 32],
      ["inference_mode", config["inference_mode"] === true],
    ]),
  ];
}

export const peftTiny: Check = {
  name: "peft-tiny",
  run: async (context) => [...(await thimbleToPeft(context)), ...(await peftToThimble(context))],
};
export const peftReal: Check = { name: "peft-smollm2", run: realToPeft };
