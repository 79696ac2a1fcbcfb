/**
 * How long it takes until a run starts, and what the whole process takes.
 *
 *   npx tsx bench/compile.ts --data DIR [--out bench/results/compile.json] [--no-demo] [--no-build]
 *
 * DIR is the folder that the yardstick's prepare.py wrote. A kernel cache of its own is empty at first (cold), then
 * serves other ranks, lengths, layers and budgets in the same process, then the same run in a new process (warm). Then
 * the plan of a 70B model, the peak memory of a whole `train` process by GNU time, and the demo from an empty cache.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { runSchema } from "../src/config/schema.js";
import { plan } from "../src/index.js";
import type { Case, CaseResult } from "./compile/types.js";
import { describeMachine } from "./machine.js";
import { endChildrenOnInterrupt, runProgram } from "./side-by-side/process.js";

const { values } = parseArgs({
  options: {
    data: { type: "string" },
    out: { type: "string", default: "bench/results/compile.json" },
    "no-demo": { type: "boolean", default: false },
    "no-build": { type: "boolean", default: false },
  },
});
const { data } = values;
if (data === undefined) {
  console.error("skipped: give --data (the folder that the yardstick's prepare.py wrote)");
  process.exit(2);
}

const commandLine = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const casesProgram = fileURLToPath(new URL("compile/cases.ts", import.meta.url));
const gnuTime = "/usr/bin/time";
const longest = 600;

const common = { model: `file:${data}/smollm2`, data: `tokens:${data}/tokens.u16`, batch: 4, seq: 256 };
const everySecond = Array.from({ length: 15 }, (_, index) => 2 * index + 1);
const base: Case = { name: "lora f32, r 16, 4x256", settings: {} };
const others: readonly Case[] = [
  { name: "r 8", settings: { set: ["lora.r=8"] } },
  { name: "r 64", settings: { set: ["lora.r=64"] } },
  { name: "512 tokens", settings: { seq: 512 } },
  { name: "300 tokens, 2 rows", settings: { batch: 2, seq: 300 } },
  { name: "every second layer", settings: { set: [`lora.layers_to_transform=[${everySecond.join()}]`] } },
  {
    name: "the other layers",
    settings: { set: [`lora.layers_to_transform=[${everySecond.map((at) => at - 1).join()}]`] },
  },
  { name: "blocks computed again", settings: { recompute: "block" } },
  { name: "everything kept", settings: { recompute: "none" } },
  ...("memoryBudget" in runSchema.shape ? [{ name: "smallest budget", settings: { memoryBudget: "min" } }] : []),
];
const separate: readonly Case[] = [
  { name: "lora bf16", settings: { dtype: "bf16" } },
  { name: "full f32", settings: { method: "full" } },
  { name: "full bf16", settings: { method: "full", dtype: "bf16" } },
];

async function runCases(cases: readonly Case[], cache: string): Promise<CaseResult[]> {
  const argument = JSON.stringify({ common, cases });
  const environment = { THIMBLE_CACHE: cache };
  const parameters = ["--import", "tsx", casesProgram, argument];
  const outcome = await runProgram(process.execPath, parameters, { seconds: longest, environment });
  if (outcome.kind === "failed") throw new Error(outcome.reason);
  return JSON.parse(outcome.lastLine) as CaseResult[];
}

/** Runs `body` with a folder that is gone afterwards. */
async function withFolder<Result>(body: (folder: string) => Promise<Result>): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), "thimble-compile-"));
  try {
    return await body(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface CompileTimes {
  readonly cold: readonly CaseResult[];
  readonly warm: readonly CaseResult[];
  readonly separate: readonly { readonly cold: CaseResult | undefined; readonly warm: CaseResult | undefined }[];
}

async function compileTimes(): Promise<CompileTimes> {
  const own = await withFolder(async (cache) => ({
    cold: await runCases([base, ...others], cache),
    warm: await runCases([base], cache),
  }));
  const apart = [];
  for (const one of separate) {
    apart.push(
      await withFolder(async (cache) => ({
        cold: (await runCases([one], cache))[0],
        warm: (await runCases([one], cache))[0],
      })),
    );
  }
  return { ...own, separate: apart };
}

const llama70b = {
  model_type: "llama",
  architectures: ["LlamaForCausalLM"],
  vocab_size: 128256,
  hidden_size: 8192,
  intermediate_size: 28672,
  num_hidden_layers: 80,
  num_attention_heads: 64,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-5,
  rope_theta: 500000,
  max_position_embeddings: 8192,
  tie_word_embeddings: false,
  hidden_act: "silu",
};

/** Seconds from a config.json to the plan of a LoRA step of a 70B model in bf16, 1x512. */
function largePlan(): Promise<{ seconds: number; planBytes: number }> {
  return withFolder(async (folder) => {
    writeFileSync(join(folder, "config.json"), JSON.stringify(llama70b));
    const started = performance.now();
    const settings = { model: `file:${join(folder, "config.json")}`, dtype: "bf16", batch: 1, seq: 512 } as const;
    const { report } = await plan({ ...settings, recompute: "block" });
    return { seconds: (performance.now() - started) / 1000, planBytes: report.planBytes };
  });
}

/** Peak resident bytes of a whole process of three steps, by GNU time, and what the run itself says. */
function wholeProcess(): Promise<Record<string, unknown>> {
  return withFolder(async (folder) => {
    if (!existsSync(gnuTime)) return { skipped: `there is no ${gnuTime}` };
    const log = join(folder, "time");
    const flags = { ...common, steps: 3, "save-every": 0, out: join(folder, "run") };
    const own = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
    const parameters = ["-f", "%M", "-o", log, process.execPath, commandLine, "train", "--json", ...own];
    const outcome = await runProgram(gnuTime, parameters, { seconds: longest });
    if (outcome.kind === "failed") return { skipped: outcome.reason };
    const { peak } = JSON.parse(outcome.lastLine) as { peak: { planBytes: number; rssBytes: number } };
    const processBytes = Number(readFileSync(log, "utf8").trim()) * 1024;
    return { ...{ processBytes, planBytes: peak.planBytes }, rssAboveStartBytes: peak.rssBytes };
  });
}

function demoFromNothing(): Promise<Record<string, unknown>> {
  return withFolder(async (folder) => {
    if (values["no-demo"]) return { skipped: "not asked for" };
    const started = performance.now();
    const parameters = [commandLine, "demo", "--json", "--out", join(folder, "demo")];
    const environment = { THIMBLE_CACHE: join(folder, "cache") };
    const outcome = await runProgram(process.execPath, parameters, { seconds: longest, environment });
    if (outcome.kind === "failed") return { skipped: outcome.reason };
    return { seconds: (performance.now() - started) / 1000 };
  });
}

endChildrenOnInterrupt();
if (!values["no-build"]) execFileSync("npm", ["run", "--silent", "build"], { stdio: ["ignore", "inherit", "inherit"] });
const compile = await compileTimes();
const result = {
  ...{ date: new Date().toISOString(), machine: describeMachine(), batch: common.batch, seq: common.seq },
  ...compile,
  plan70b: await largePlan(),
  trainProcess: await wholeProcess(),
  demo: await demoFromNothing(),
};
mkdirSync(dirname(values.out), { recursive: true });
writeFileSync(values.out, `${JSON.stringify(result, undefined, 2)}\n`);
for (const [state, cases] of Object.entries({ cold: compile.cold, warm: compile.warm })) {
  for (const one of cases) {
    const total = one.planSeconds + one.lowerSeconds + one.compileSeconds;
    console.log(
      `${state}  ${one.name.padEnd(24)} ${total.toFixed(2)} s, ${one.compiled} of ${one.kernels} kernels compiled`,
    );
  }
}
