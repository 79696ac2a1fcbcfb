/**
 * Thimble beside PyTorch, transformers, peft, gguf and llama.cpp: losses, adapters, merged and exported models.
 *
 *   npx tsx scripts/parity/run.ts [--python PYTHON] [--data DIR] [--bench DIR] [--only NAME ...] [--cache DIR]
 *     [--adapter DIR] [--llama DIR] [--out bench/results/parity.json]
 *
 * PYTHON has torch, transformers, peft and gguf. --data: the folder that the yardstick's prepare.py wrote; --bench: the
 * one with its bench.py. --cache keeps what PyTorch gave from run to run. --adapter: a LoRA run of Thimble on SmolLM2
 * to use instead of training one. --llama: a folder with node-llama-cpp in its node_modules. What is missing is skipped,
 * with the reason. The status is 1 if a check fails.
 */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { describeMachine } from "../../bench/machine.js";
import type { Check, Context, Outcome, TrainedAdapter } from "./check.js";
import { runCheck } from "./check.js";
import { ggufExport } from "./gguf.js";
import { lossesFull, lossesLora, trainFromTorchAdapter } from "./losses.js";
import { mergedModel } from "./merged.js";
import { float8Codes, galoreSteps, nf4Codes } from "./methods.js";
import { peftReal, peftTiny } from "./peft.js";
import { Python } from "./python.js";

const checks: readonly Check[] = [
  lossesLora,
  lossesFull,
  peftTiny,
  peftReal,
  mergedModel,
  ggufExport,
  nf4Codes,
  galoreSteps,
  float8Codes,
];

const { values } = parseArgs({
  options: {
    python: { type: "string" },
    data: { type: "string" },
    bench: { type: "string" },
    only: { type: "string", multiple: true },
    cache: { type: "string" },
    adapter: { type: "string" },
    llama: { type: "string" },
    out: { type: "string", default: "bench/results/parity.json" },
  },
});

const chosen = checks.filter(({ name }) => values.only === undefined || values.only.includes(name));
const strange = (values.only ?? []).filter((name) => !checks.some((check) => check.name === name));
if (strange.length > 0) {
  console.error(`no check ${strange.join(", ")}; there are ${checks.map(({ name }) => name).join(", ")}`);
  process.exit(2);
}

const absolute = (path: string | undefined): string | undefined => (path === undefined ? undefined : resolve(path));
const work = await mkdtemp(join(tmpdir(), "thimble-parity-"));
let training: Promise<TrainedAdapter> | undefined;
const context: Context = {
  python: new Python(values.python),
  data: absolute(values.data),
  bench: absolute(values.bench),
  cache: absolute(values.cache),
  llama: absolute(values.llama),
  work,
  trained: () => (training ??= train()),
};

async function train(): Promise<TrainedAdapter> {
  const given = absolute(values.adapter);
  if (given === undefined) return trainFromTorchAdapter(context);
  const log = await readFile(join(given, "metrics.jsonl"), "utf8");
  const lines = log.trim().split("\n");
  const losses = lines.map((line) => (JSON.parse(line) as { loss?: number }).loss);
  return { folder: given, losses: losses.filter((loss) => loss !== undefined) };
}

/** A table row; the columns are as wide as the widest of them. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** The outcomes of earlier runs with `--only` stay in the file beside the new ones. */
async function writeResults(path: string, outcomes: readonly (Outcome & { check: string })[]): Promise<void> {
  const earlier = existsSync(path)
    ? (JSON.parse(await readFile(path, "utf8")) as { outcomes: (Outcome & { check: string })[] }).outcomes
    : [];
  const ran = new Set(chosen.map(({ name }) => name));
  const kept = earlier.filter(({ check }) => !ran.has(check));
  const order = checks.map(({ name }) => name);
  const all = [...kept, ...outcomes].sort((a, b) => order.indexOf(a.check) - order.indexOf(b.check));
  const date = new Date().toISOString().slice(0, 10);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `${JSON.stringify({ date, machine: describeMachine(), outcomes: all }, undefined, 2)}\n`);
}

const outcomes: (Outcome & { check: string })[] = [];
try {
  for (const check of chosen) {
    console.error(`${check.name} ...`);
    for (const outcome of await runCheck(check, context)) {
      outcomes.push({ check: check.name, ...outcome });
      console.error(`  ${outcome.status}  ${outcome.name}: ${outcome.result}`);
    }
  }
} finally {
  await rm(work, { recursive: true, force: true });
}
await writeResults(values.out, outcomes);
const cells = outcomes.map(({ status, name, result, tolerance, compared }) => [
  status,
  name,
  result,
  tolerance,
  compared,
]);
console.log(table([["", "check", "result", "tolerance", "compared"], ...cells]));
process.exitCode = outcomes.some(({ status }) => status === "fail") ? 1 : 0;
