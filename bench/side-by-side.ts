/**
 * Thimble and PyTorch in turn on one machine, the same model, tokens, batch and steps.
 *
 *   npx tsx bench/side-by-side.ts --bench BENCH.PY --python PYTHON --data DIR --row lora:f32:4:256 [--row …]
 *     [--variant eager|checkpoint|compile …] [--rounds 3] [--steps 8] [--out bench/results/side-by-side.json]
 *
 * BENCH.PY is the yardstick's script, DIR the folder that its prepare.py wrote. Nothing else may run meanwhile.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { describeMachine } from "./machine.js";

interface Measurement {
  readonly tokensPerSecond: number;
  readonly peakMiB: number;
  readonly losses: readonly number[];
}

interface Row {
  readonly method: string;
  readonly dtype: string;
  readonly batch: number;
  readonly length: number;
  readonly variant: string;
  readonly thimble: readonly Measurement[];
  readonly pytorch: readonly Measurement[];
  /** Medians over the rounds, Thimble over PyTorch. */
  readonly speedRatio: number;
  readonly memoryRatio: number;
}

const { values } = parseArgs({
  options: {
    bench: { type: "string" },
    python: { type: "string", default: "python3" },
    data: { type: "string" },
    row: { type: "string", multiple: true, default: ["lora:f32:4:256"] },
    variant: { type: "string", multiple: true, default: ["eager"] },
    rounds: { type: "string", default: "3" },
    steps: { type: "string", default: "8" },
    out: { type: "string", default: "bench/results/side-by-side.json" },
  },
});
const { bench, python, data } = values;
if (bench === undefined || data === undefined) {
  console.error("skipped: give --bench (the yardstick's bench.py) and --data (the folder its prepare.py wrote)");
  process.exit(2);
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}

function runPyTorch(method: string, dtype: string, batch: string, length: string, variant: string): Measurement {
  const flags = variant === "eager" ? [] : variant.split("+").map((flag) => `--${flag}`);
  const args = [
    String(bench),
    method,
    String(data),
    "--dtype",
    dtype,
    "--batch",
    batch,
    "--seq",
    length,
    "--steps",
    values.steps,
    ...flags,
  ];
  const line = lastLine(
    execFileSync(python, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"], maxBuffer: 1 << 26 }),
  );
  const result = JSON.parse(line) as { tokens_per_s: number; peak_mb: number; losses: number[] };
  return { tokensPerSecond: result.tokens_per_s, peakMiB: result.peak_mb, losses: result.losses };
}

function runThimble(method: string, dtype: string, batch: string, length: string): Measurement {
  const out = mkdtempSync(join(tmpdir(), "thimble-bench-"));
  const flags = {
    model: `file:${String(data)}/smollm2`,
    data: `tokens:${String(data)}/tokens.u16`,
    method,
    dtype,
    batch,
    seq: length,
  };
  const settings = { ...flags, steps: values.steps, lr: "1e-4", out: join(out, "run") };
  const args = [
    "dist/cli/main.js",
    "train",
    "--json",
    ...Object.entries(settings).flatMap(([key, value]) => [`--${key}`, value]),
  ];
  try {
    const text = execFileSync(process.execPath, args, {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
      maxBuffer: 1 << 26,
    });
    const result = JSON.parse(lastLine(text)) as {
      losses: number[];
      tokensPerSecond: number;
      peak: { rssBytes: number };
    };
    return { tokensPerSecond: result.tokensPerSecond, peakMiB: result.peak.rssBytes / 2 ** 20, losses: result.losses };
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? NaN)
    : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}

const rows: Row[] = [];
for (const row of values.row) {
  const [method = "lora", dtype = "f32", batch = "4", length = "256"] = row.split(":");
  for (const variant of values.variant) {
    const thimble: Measurement[] = [];
    const pytorch: Measurement[] = [];
    for (let round = 0; round < Number(values.rounds); round++) {
      thimble.push(runThimble(method, dtype, batch, length));
      pytorch.push(runPyTorch(method, dtype, batch, length, variant));
      console.error(`${row} ${variant} round ${round + 1}: ${JSON.stringify([thimble.at(-1), pytorch.at(-1)])}`);
    }
    const speedRatio =
      median(thimble.map((one) => one.tokensPerSecond)) / median(pytorch.map((one) => one.tokensPerSecond));
    const memoryRatio = median(thimble.map((one) => one.peakMiB)) / median(pytorch.map((one) => one.peakMiB));
    rows.push({
      method,
      dtype,
      batch: Number(batch),
      length: Number(length),
      variant,
      thimble,
      pytorch,
      speedRatio,
      memoryRatio,
    });
  }
}
const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
const result = { version, date: new Date().toISOString().slice(0, 10), machine: describeMachine(), rows };
mkdirSync(dirname(values.out), { recursive: true });
writeFileSync(values.out, `${JSON.stringify(result, undefined, 2)}\n`);
for (const row of rows) {
  const { method, dtype, batch, length, variant, speedRatio, memoryRatio } = row;
  console.log(
    `${method} ${dtype} ${batch}x${length} against ${variant}: ${speedRatio.toFixed(2)} x speed, ${memoryRatio.toFixed(2)} x memory`,
  );
}
