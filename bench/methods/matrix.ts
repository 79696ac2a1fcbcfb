/**
 * Runs every method on every model family, in every precision and on every target, and every two methods together, for
 * two steps each, and keeps what ran and what was refused in bench/results/methods.json:
 * `npx tsx bench/methods/matrix.ts [METHOD ...]`. With methods, only what they are part of runs anew. docs/methods.md is
 * made from it.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { resolveConfig } from "../../src/config/config.js";
import { ThimbleError } from "../../src/errors.js";
import { writeJsonAtomically } from "../../src/io/atomic.js";
import { methods } from "../../src/methods/registry.js";
import { goldenFamilies, goldenFolder } from "../../src/testing/goldens.js";
import { writeTokens } from "../../src/train/testing/tiny-folder.js";
import { train } from "../../src/train/train.js";
import { describeMachine } from "../machine.js";
import type { Attempt, MethodMatrix, Outcome } from "./results.js";
import { matrixPath, precisions, targets } from "./results.js";

/** Defaults are for real models: what the fixtures' are too narrow or short for. */
const settings: readonly string[] = [
  "galore.rank=4",
  "lst.r=2",
  "meft.adapter_bottleneck_dim=4",
  "dept.prefix_length=4",
  "qlora.r=4",
];

/** Families whose fixtures have widths that are multiples of 16, which FP8 activations need. */
const wideFamilies = ["llama", "smollm"];

interface Case {
  readonly methods: readonly string[];
  readonly family: string;
  readonly dtype: string;
  readonly target: string;
}

function nameOf({ methods: ids, family, dtype, target }: Case): string {
  return [ids.join("+"), family, dtype, target].join(" ");
}

async function attempt(folder: string, { methods: ids, family, dtype, target }: Case): Promise<Outcome> {
  const out = join(folder, "run");
  const flags = {
    model: goldenFolder(family as never),
    data: `tokens:${join(folder, "ids.u16")}`,
    method: [...ids],
    set: [
      ...settings.filter((one) => ids.includes(one.slice(0, one.indexOf(".")))),
      ...(ids.includes("coat") && !wideFamilies.includes(family) ? ["coat.activations=false"] : []),
    ],
    ...{ batch: 2, seq: 12, steps: 2, lr: 1e-3, dtype, target, threads: 2, out },
  };
  try {
    const { summary } = await train(resolveConfig({ flags }));
    const { peak, losses } = summary;
    if (!losses.every(Number.isFinite)) return { outcome: "failed", reason: `losses ${losses.join(", ")}` };
    if (peak.arenaBytes !== peak.planBytes) return { outcome: "failed", reason: "the arena is not as planned" };
    return { outcome: "ran" };
  } catch (error) {
    if (!(error instanceof ThimbleError) || error.code === "internal") {
      return { outcome: "failed", reason: error instanceof Error ? error.message : String(error) };
    }
    return { outcome: "refused", code: error.code, reason: error.message };
  } finally {
    await rm(out, { recursive: true, force: true });
  }
}

function cases(): Case[] {
  const ids = methods.map(({ id }) => id);
  const alone = ids.flatMap((id) =>
    goldenFamilies.flatMap((family) =>
      precisions.flatMap((dtype) => targets.map((target) => ({ methods: [id], family, dtype, target }))),
    ),
  );
  const pairs = ids.flatMap((first, at) =>
    ids
      .slice(at + 1)
      .map((second) => ({ methods: [first, second], family: "llama", dtype: "f32", target: "interpret" })),
  );
  return [...alone, ...pairs];
}

const folder = await mkdtemp(join(tmpdir(), "thimble-matrix-"));
try {
  await writeTokens(join(folder, "ids.u16"), 2000, 60);
  const rows: Attempt[] = [];
  const only = process.argv.slice(2);
  const chosen = (one: { readonly methods: readonly string[] }): boolean =>
    only.length === 0 || one.methods.some((id) => only.includes(id));
  if (only.length > 0) {
    const before = JSON.parse(await readFile(matrixPath, "utf8")) as MethodMatrix;
    rows.push(...before.rows.filter((one) => !chosen(one)));
  }
  for (const one of cases().filter(chosen)) {
    const started = performance.now();
    const outcome = await attempt(folder, one);
    rows.push({ ...one, ...outcome });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    const { methods: ids, family, dtype, target } = one;
    process.stdout.write(`${ids.join("+")} ${family} ${dtype} ${target} ${seconds} s: ${JSON.stringify(outcome)}\n`);
  }
  const order = new Map(cases().map((one, place) => [nameOf(one), place]));
  rows.sort((a, b) => (order.get(nameOf(a)) ?? 0) - (order.get(nameOf(b)) ?? 0));
  const matrix: MethodMatrix = { machine: describeMachine(), rows };
  await writeJsonAtomically(matrixPath, matrix);
} finally {
  await rm(folder, { recursive: true, force: true });
}
