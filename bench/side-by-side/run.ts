import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runSchema } from "../../src/config/schema.js";
import type { Figures } from "./log.js";
import type { Outcome } from "./process.js";
import { runProgram } from "./process.js";
import type { Contender, Row } from "./rows.js";

/** Where the peers and their data are, and how long one process may take. */
export interface Rig {
  readonly bench: string;
  readonly python: string;
  readonly data: string;
  readonly steps: number;
  readonly threads: number;
  readonly seconds: number;
}

export type Result = { readonly figures: Figures } | { readonly failure: string };

const mebibyte = 2 ** 20;
const commandLine = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
const forwardProgram = fileURLToPath(new URL("forward.ts", import.meta.url));

/** Runs one contender of a row once, in a process of its own. */
export async function measure(row: Row, { peer, variant }: Contender, rig: Rig): Promise<Result> {
  return peer === "pytorch" ? measurePyTorch(row, variant, rig) : measureThimble(row, variant, rig);
}

function figuresFrom(outcome: Outcome, read: (line: string) => Figures): Result {
  if (outcome.kind === "failed") return { failure: outcome.reason };
  try {
    return { figures: read(outcome.lastLine) };
  } catch (error) {
    return { failure: `printed no figures: ${error instanceof Error ? error.message : String(error)}` };
  }
}

async function measurePyTorch(row: Row, variant: string, rig: Rig): Promise<Result> {
  const { method, dtype, batch, seq } = row;
  const sizes = { dtype, batch, seq, steps: rig.steps, threads: rig.threads };
  const flags = Object.entries(sizes).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const switches = variant === "eager" ? [] : variant.split("+").map((name) => `--${name}`);
  const outcome = await runProgram(rig.python, [rig.bench, method, rig.data, ...flags, ...switches], rig);
  return figuresFrom(outcome, (line) => {
    const result = JSON.parse(line) as {
      tokens_per_s: number;
      peak_mb: number;
      losses: number[];
      step_s: number[];
    };
    const { tokens_per_s: tokensPerSecond, peak_mb: peakMiB, losses, step_s: stepSeconds } = result;
    return { tokensPerSecond, peakMiB, losses, stepSeconds };
  });
}

/** The yardstick's settings of the methods whose own defaults are others. */
const methodFlags: Readonly<Partial<Record<Row["method"], readonly string[]>>> = {
  mezo: ["--lr", "1e-6"],
  qlora: ["--set", "qlora.r=16", "--set", "qlora.alpha=32"],
};

const budgetKey = "memoryBudget";

async function measureThimble(row: Row, variant: string, rig: Rig): Promise<Result> {
  if (variant === "min" && !(budgetKey in runSchema.shape)) {
    return { failure: "skipped: this version has no memory budget" };
  }
  const { method, dtype, batch, seq } = row;
  const folder = mkdtempSync(join(tmpdir(), "thimble-bench-"));
  const settings = {
    model: `file:${rig.data}/smollm2`,
    data: `tokens:${rig.data}/tokens.u16`,
    ...(method === "forward" ? {} : { method }),
    ...(method === "forward" || method === "mezo" ? {} : { lr: "1e-4" }),
    ...{ dtype, batch, seq, steps: rig.steps, threads: rig.threads, "save-every": 0, out: join(folder, "run") },
    ...(variant === "min" ? { "memory-budget": "min" } : {}),
  };
  const flags = [
    ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)]),
    ...(methodFlags[method] ?? []),
  ];
  const program =
    method === "forward"
      ? ["--import", "tsx", forwardProgram, JSON.stringify(settings)]
      : [commandLine, "train", "--json", ...flags];
  try {
    return figuresFrom(await runProgram(process.execPath, program, rig), thimbleFigures);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function thimbleFigures(line: string): Figures {
  const result = JSON.parse(line) as {
    losses: number[];
    stepSeconds: number[];
    tokensPerSecond: number;
    peak: { rssBytes: number; planBytes: number };
  };
  const { losses, stepSeconds, tokensPerSecond, peak } = result;
  return {
    tokensPerSecond,
    peakMiB: peak.rssBytes / mebibyte,
    planMiB: peak.planBytes / mebibyte,
    losses,
    stepSeconds,
  };
}
