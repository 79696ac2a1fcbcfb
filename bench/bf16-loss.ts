/**
 * Whether training in bf16 learns as training in f32 does: full tuning and LoRA for some hundred steps in f32 (with
 * several seeds, which also shuffle the data: the noise), in bf16, and in bf16 with f32 master weights and moments.
 * `npx tsx bench/bf16-loss.ts [--model M --data D --holdout H --steps N --batch B --seq T --name NAME]` writes
 * bench/results/NAME.json and NAME.svg; without options it trains the demo's model.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { TopLevelSpec } from "vega-lite";
import { resolveConfig } from "../src/config/config.js";
import { train } from "../src/train/train.js";
import { describeMachine } from "./machine.js";
import { toSvg } from "./side-by-side/plots.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const { values: given } = parseArgs({
  options: {
    model: { type: "string", default: `file:${join(root, "assets/demo/base.gguf")}` },
    data: { type: "string", default: join(root, "assets/demo/style.txt") },
    holdout: { type: "string", default: join(root, "assets/demo/style-holdout.txt") },
    steps: { type: "string", default: "300" },
    batch: { type: "string", default: "2" },
    seq: { type: "string", default: "128" },
    seeds: { type: "string", default: "3" },
    "full-rate": { type: "string", default: "0.0005" },
    "lora-rate": { type: "string", default: "0.005" },
    name: { type: "string", default: "bf16-loss" },
  },
});
const steps = Number(given.steps);
const seeds = Number(given.seeds);

const variants = {
  f32: { dtype: "f32" },
  bf16: { dtype: "bf16" },
  "bf16, f32 masters and moments": { dtype: "bf16", masterDtype: "f32", stateDtype: "f32" },
} as const;
type Variant = keyof typeof variants;

const rates = { full: Number(given["full-rate"]), lora: Number(given["lora-rate"]) } as const;
type Method = keyof typeof rates;

interface Run {
  readonly method: Method;
  readonly variant: Variant;
  readonly seed: number;
  /** Training loss of every step. */
  readonly losses: readonly number[];
  /** Held-out loss after the last step. */
  readonly heldOut: number;
}

async function measure(method: Method, variant: Variant, seed: number): Promise<Run> {
  const out = mkdtempSync(join(tmpdir(), "thimble-bf16-"));
  const { model, data, holdout, batch, seq } = given;
  const flags = {
    model,
    data,
    holdout,
    steps,
    batch: Number(batch),
    seq: Number(seq),
    seed,
    method,
    lr: rates[method],
  };
  const fixed = { schedule: "cosine", warmup: 10, evalEvery: steps, saveEvery: 0, out: join(out, "run") };
  try {
    const { summary, lastEvaluation } = await train(
      resolveConfig({ flags: { ...flags, ...fixed, ...variants[variant] } }),
    );
    return { method, variant, seed, losses: summary.losses, heldOut: lastEvaluation?.loss ?? NaN };
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
const round = (value: number): number => Number(value.toPrecision(6));

/** The mean of the last sixth: what single batches add to it is small. */
const tail = ({ losses }: Run): number => mean(losses.slice(-Math.ceil(steps / 6)));

interface Verdict {
  readonly method: Method;
  readonly variant: Variant;
  /** Against f32 with the same seed, hence the same batches in the same order. */
  readonly trainingDifference: number;
  readonly heldOutDifference: number;
  /** Largest less smallest of the f32 runs with different seeds. */
  readonly trainingNoise: number;
  readonly heldOutNoise: number;
  readonly withinNoise: boolean;
}

function judge(runs: readonly Run[], method: Method, variant: Variant): Verdict | undefined {
  const references = runs.filter((run) => run.method === method && run.variant === "f32");
  const run = runs.find((one) => one.method === method && one.variant === variant);
  const same = references.find(({ seed }) => seed === run?.seed);
  if (run === undefined || same === undefined) return undefined;
  const spread = (values: readonly number[]): number => Math.max(...values) - Math.min(...values);
  const trainingDifference = tail(run) - tail(same);
  const heldOutDifference = run.heldOut - same.heldOut;
  const trainingNoise = spread(references.map(tail));
  const heldOutNoise = spread(references.map(({ heldOut }) => heldOut));
  return {
    ...{ method, variant },
    ...{ trainingDifference: round(trainingDifference), heldOutDifference: round(heldOutDifference) },
    ...{ trainingNoise: round(trainingNoise), heldOutNoise: round(heldOutNoise) },
    withinNoise: Math.abs(trainingDifference) <= trainingNoise && Math.abs(heldOutDifference) <= heldOutNoise,
  };
}

/** Losses as means of the last so many steps. */
function smooth(losses: readonly number[], window = 15): number[] {
  return losses.map((_, step) => round(mean(losses.slice(Math.max(0, step - window + 1), step + 1))));
}

function chart(runs: readonly Run[]): TopLevelSpec {
  const values = runs.flatMap(({ method, variant, seed, losses }) =>
    smooth(losses).flatMap((loss, step) =>
      step % 5 === 4 ? [{ method, step: step + 1, loss, what: seed === 0 ? variant : "f32, other seeds", seed }] : [],
    ),
  );
  return {
    $schema: "https://vega.github.io/schema/vega-lite/v5.json",
    config: { font: "sans-serif", background: "white", view: { stroke: "transparent" } },
    data: { values },
    facet: { column: { field: "method", title: null } },
    spec: {
      width: 380,
      height: 260,
      mark: { type: "line", strokeWidth: 1.5 },
      encoding: {
        x: { field: "step", type: "quantitative" },
        y: { field: "loss", type: "quantitative", scale: { zero: false }, title: "training loss, mean of 15 steps" },
        color: {
          field: "what",
          title: null,
          scale: {
            domain: ["f32, other seeds", ...Object.keys(variants)],
            range: ["#cccccc", "#000000", "#d95f02", "#1b9e77"],
          },
        },
        detail: { field: "seed" },
      },
    },
    resolve: { scale: { y: "independent" } },
  };
}

const runs: Run[] = [];
for (const method of ["full", "lora"] as const) {
  for (const variant of Object.keys(variants) as Variant[]) {
    // Adapters are f32 in any run: they need no masters.
    if (method === "lora" && variant !== "f32" && variant !== "bf16") continue;
    for (let seed = 0; seed < (variant === "f32" ? seeds : 1); seed++) {
      const run = await measure(method, variant, seed);
      runs.push(run);
      console.log(
        `${method} ${variant}, seed ${seed}: training ${tail(run).toFixed(4)}, held out ${run.heldOut.toFixed(4)}`,
      );
    }
  }
}
const verdicts = runs.flatMap(({ method, variant }) => (variant === "f32" ? [] : (judge(runs, method, variant) ?? [])));
console.table(verdicts);
const { model, batch, seq } = given;
const facts = { model: model.split("/").slice(-2).join("/"), steps, batch: Number(batch), seq: Number(seq), rates };
const results = join(root, "bench", "results");
mkdirSync(results, { recursive: true });
const record = runs.map((run) => ({ ...run, losses: run.losses.map(round), heldOut: round(run.heldOut) }));
const json = {
  machine: describeMachine(),
  date: new Date().toISOString().slice(0, 10),
  ...facts,
  verdicts,
  runs: record,
};
writeFileSync(join(results, `${given.name}.json`), `${JSON.stringify(json)}\n`);
writeFileSync(join(results, `${given.name}.svg`), await toSvg(chart(runs)));
process.exitCode = verdicts.every(({ withinNoise }) => withinNoise) ? 0 : 1;
