/** The first losses of full tuning and LoRA on the yardstick's data, against PyTorch's. */
import { existsSync } from "node:fs";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Check, Context, Outcome, TrainedAdapter } from "./check.js";
import { requireData, within } from "./check.js";
import { thimble } from "./process.js";

const steps = 5;
const limit = 1e-3;
const shape = ["--batch", "4", "--seq", "256", "--steps", String(steps), "--lr", "1e-4", "--dtype", "f32"];

interface Losses {
  readonly losses: readonly number[];
}

/** What PyTorch prints, from the cache if it is there. For lora its first adapter lies in `folder`/adapter. */
async function torchLosses(context: Context, method: "full" | "lora"): Promise<Losses & { readonly folder: string }> {
  const { python, cache, bench, work } = context;
  const data = requireData(context);
  const folder = cache ?? join(work, "torch");
  const kept = join(folder, `${method}.json`);
  const complete = existsSync(kept) && (method === "full" || existsSync(join(folder, "adapter")));
  if (complete) return { ...(JSON.parse(await readFile(kept, "utf8")) as Losses), folder };
  await python.require("torch", "transformers", ...(method === "lora" ? ["peft"] : []));
  await mkdir(folder, { recursive: true });
  const result =
    method === "full" && bench !== undefined
      ? await python.runFile(join(bench, "bench.py"), method, data, "--steps", String(steps))
      : await python.run("torch_losses.py", method, data, folder, "--steps", String(steps));
  await writeFile(kept, JSON.stringify(result));
  return { ...(result as Losses), folder };
}

async function trainThimble(context: Context, method: string, ...more: readonly string[]): Promise<TrainedAdapter> {
  const data = requireData(context);
  const folder = join(context.work, `run-${method}`);
  const source = ["--model", `file:${data}/smollm2`, "--data", `tokens:${data}/tokens.u16`];
  const made = await thimble("train", ...source, "--method", method, ...shape, "--out", folder, ...more);
  return { folder, losses: (made as Losses).losses };
}

/** LoRA on the real model from PyTorch's first adapter. */
export async function trainFromTorchAdapter(context: Context): Promise<TrainedAdapter> {
  const { folder } = await torchLosses(context, "lora");
  const start = join(context.work, "torch-adapter");
  await cp(join(folder, "adapter"), start, { recursive: true });
  return trainThimble(context, "lora", "--adapter", start);
}

/** Largest difference relative to PyTorch's loss; infinite where a loss is missing. */
function relative(ours: readonly number[], theirs: readonly number[]): number {
  const differences = Array.from({ length: steps }, (_, index) => {
    const [own, other] = [ours[index] ?? NaN, theirs[index] ?? NaN];
    return Math.abs(own - other) / Math.abs(other);
  });
  return differences.some(Number.isNaN) ? Infinity : Math.max(...differences);
}

async function compare(context: Context, method: "full" | "lora"): Promise<Outcome> {
  const theirs = await torchLosses(context, method);
  const ours = method === "lora" ? await context.trained() : await trainThimble(context, method);
  const range = `${ours.losses[0]?.toFixed(5) ?? ""} … ${ours.losses.at(-1)?.toFixed(5) ?? ""}`;
  const compared = `${steps} losses of SmolLM2-135M (${range}) with PyTorch's; f32, 4 x 256 tokens, AdamW 1e-4`;
  return within(`losses ${method}`, compared, relative(ours.losses, theirs.losses), limit, "relative");
}

export const lossesFull: Check = { name: "losses-full", run: async (context) => [await compare(context, "full")] };
export const lossesLora: Check = { name: "losses-lora", run: async (context) => [await compare(context, "lora")] };
