/**
 * Speed against memory as the budget shrinks, for LoRA and full tuning: `npx tsx bench/frontier.ts --data DIR
 * [--dtype bf16] [--steps 6] [--points 5] [--no-build]`. DIR is the folder that the yardstick's prepare.py wrote.
 *
 * With a memory budget: the plan without one, the smallest, and budgets between them; otherwise the three policies of
 * recomputation. Writes bench/results/frontier.json. Nothing else may run meanwhile.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { runSchema } from "../src/config/schema.js";
import { plan } from "../src/index.js";
import { processBytes } from "../src/session/overhead.js";
import { describeMachine } from "./machine.js";
import type { Frontier } from "./side-by-side/curves.js";
import { endChildrenOnInterrupt, runProgram } from "./side-by-side/process.js";

const { values } = parseArgs({
  options: {
    data: { type: "string" },
    dtype: { type: "string", multiple: true, default: ["bf16"] },
    steps: { type: "string", default: "6" },
    points: { type: "string", default: "5" },
    out: { type: "string", default: "bench/results/frontier.json" },
    "no-build": { type: "boolean", default: false },
  },
});
const { data } = values;
if (data === undefined) {
  console.error("skipped: give --data (the folder that the yardstick's prepare.py wrote)");
  process.exit(2);
}

const commandLine = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const mebibyte = 2 ** 20;
const longest = 900;
const [batch, seq] = [4, 256];
const hasBudget = "memoryBudget" in runSchema.shape;

/** What is asked for: a name, and flags. */
interface Asked {
  readonly name: string;
  readonly flags: Readonly<Record<string, string>>;
}

async function planMiB(settings: Readonly<Record<string, unknown>>): Promise<number> {
  const { report } = await plan({ model: `file:${data}/smollm2`, batch, seq, ...settings });
  return report.planBytes / mebibyte;
}

/** Budgets from none to the smallest, their plans evenly between; a budget covers the process beside its plan. */
async function askedOf(method: string, dtype: string): Promise<Asked[]> {
  if (!hasBudget) return ["none", "cheap", "block"].map((name) => ({ name, flags: { recompute: name } }));
  const most = await planMiB({ method, dtype });
  const least = await planMiB({ method, dtype, memoryBudget: "min" });
  const count = Number(values.points);
  const between = Array.from({ length: count - 2 }, (_, index) =>
    Math.ceil(most - ((most - least) * (index + 1)) / (count - 1) + processBytes / mebibyte),
  );
  const sizes = between.map((size): Asked => ({ name: `${size} MiB`, flags: { "memory-budget": `${size}MiB` } }));
  return [{ name: "no budget", flags: {} }, ...sizes, { name: "min", flags: { "memory-budget": "min" } }];
}

type Point = Frontier["points"][number];

async function measure(method: string, dtype: string, { name, flags }: Asked): Promise<Point> {
  const folder = mkdtempSync(join(tmpdir(), "thimble-frontier-"));
  const settings = {
    ...{ model: `file:${data}/smollm2`, data: `tokens:${data}/tokens.u16`, method, dtype, lr: "1e-4" },
    ...{ batch, seq, steps: values.steps, "save-every": 0, out: join(folder, "run"), ...flags },
  };
  const parameters = Object.entries(settings).flatMap(([key, value]) => [`--${key}`, String(value)]);
  try {
    const program = [commandLine, "train", "--json", ...parameters];
    const outcome = await runProgram(process.execPath, program, { seconds: longest });
    if (outcome.kind === "failed") return { method, dtype, asked: name, failure: outcome.reason };
    const { tokensPerSecond, peak } = JSON.parse(outcome.lastLine) as {
      tokensPerSecond: number;
      peak: { rssBytes: number; planBytes: number };
    };
    const memory = { planMiB: peak.planBytes / mebibyte, peakMiB: peak.rssBytes / mebibyte };
    return { method, dtype, asked: name, ...memory, tokensPerSecond };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

endChildrenOnInterrupt();
if (!values["no-build"]) execFileSync("npm", ["run", "--silent", "build"], { stdio: ["ignore", "inherit", "inherit"] });
const points: Point[] = [];
for (const method of ["lora", "full"]) {
  for (const dtype of values.dtype) {
    for (const asked of await askedOf(method, dtype)) {
      const point = await measure(method, dtype, asked);
      points.push(point);
      console.error(JSON.stringify(point));
    }
  }
}
const result: Frontier = {
  ...{ model: "SmolLM2-135M", machine: { ...describeMachine() }, date: new Date().toISOString().slice(0, 10) },
  ...{ batch, seq, points },
};
mkdirSync(dirname(values.out), { recursive: true });
writeFileSync(values.out, `${JSON.stringify(result, undefined, 2)}\n`);
