/** What the methods' papers say of their combinations: those that work train, end to end; the others are refused. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { resolveConfig } from "../config/config.js";
import { ThimbleError } from "../errors.js";
import { writeTinyModel } from "../train/testing/tiny-folder.js";
import { train } from "../train/train.js";
import type { TrainResult } from "../train/types.js";

let folder = "";
const place = (name: string): string => join(folder, name);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-pairs-"));
  await writeTinyModel(place("model"), { num_hidden_layers: 4, hidden_size: 64, intermediate_size: 64 });
  for (const source of ["even", "odd"]) {
    const lines = Array.from({ length: 40 }, (_, index) => ({
      prompt: `The number ${2 * index + (source === "odd" ? 1 : 0)} is `,
      completion: `${source}.`,
    }));
    await writeFile(place(`${source}.jsonl`), lines.map((line) => JSON.stringify(line)).join("\n"));
  }
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

interface Together {
  readonly methods: readonly string[];
  readonly set: readonly string[];
}

/** `qlora*` stands for the packed base without its own correction. */
function together(names: string, settings: readonly string[] = []): Together {
  const ids = names.split("+");
  const packed = ids.includes("qlora*") ? ["qlora.adapter=false"] : [];
  const rank = ids.includes("galore") ? ["galore.rank=4"] : [];
  return { methods: ids.map((id) => id.replace("*", "")), set: [...packed, ...rank, ...settings] };
}

let runs = 0;
function trainTwoSteps({ methods, set }: Together): Promise<TrainResult> {
  const flags = {
    model: place("model"),
    data: [place("even.jsonl"), place("odd.jsonl")],
    method: [...methods],
    set: [...set],
    batch: 2,
    seq: 16,
    steps: 2,
    lr: 1e-3,
    rows: "padded",
    target: "interpret",
    threads: 1,
    out: place(`run-${(runs += 1)}`),
  };
  return train(resolveConfig({ flags }));
}

const attention = "target_modules=[q_proj]";
const mlp = "target_modules=[up_proj]";

const working: readonly [names: string, settings?: readonly string[]][] = [
  ...["lora", "adalora", "qlora", "paca", "full"].flatMap((base): [string][] => [
    [`${base}+mezo`],
    [`${base}+colm`],
    [`${base}+wta-crs`],
  ]),
  ...["lora", "adalora", "qlora", "paca"].flatMap((base): [string][] => [[`${base}+ist`], [`${base}+lisa`]]),
  ...["lora", "qlora", "peqa", "paca", "full"].flatMap((base): [string][] => [[`${base}+mezo+zo2`]]),
  ["lora+dept"],
  ["lora+peqa"],
  ["lora+paca", [`lora.${attention}`, `paca.${mlp}`]],
  ["lora+coat"],
  ["full+coat"],
  ["galore+lisa"],
  ["galore+wta-crs"],
  ["galore+colm"],
  ["lisa+mezo"],
  ["lisa+colm"],
  ["lisa+wta-crs"],
  ["lisa+coat"],
  ["lora+ist+mezo"],
  ["peqa+mezo"],
  ["peqa+colm"],
  ["dept+mezo"],
  ["dept+qlora"],
  ["dept+qlora*"],
  ["qlora+coat"],
  ["spiel+qlora*"],
  ["spiel+colm"],
  ["spiel+lora", [`spiel.${attention}`, `lora.${mlp}`]],
  ["paca+qlora*"],
  ["meft+qlora*"],
  ["meft+colm", ["colm.data_selection_unit=rep"]],
  ["lst+qlora*"],
  ["lst+colm", ["colm.data_selection_unit=rep"]],
  ["ist+colm"],
  ["mezo+zo2"],
];

const excluded: readonly [names: string, settings?: readonly string[]][] = [
  ["full+qlora"],
  ["full+dept"],
  ["peqa+qlora"],
  ["galore+qlora"],
  ["galore+mezo"],
  ["galore+mezo+zo2"],
  ["wta-crs+mezo"],
  ["coat+mezo"],
  ["coat+wta-crs"],
  ["colm+mezo"],
  ["colm+mezo+zo2"],
  ["ist+lisa"],
  ["ist+full"],
  ["ist+dept"],
  ["lst+lora"],
  ["lst+meft"],
  ["lst+wta-crs"],
  ["meft+wta-crs"],
  ["meft+lisa"],
  ["spiel+lora"],
  ["paca+full"],
];

describe("methods together", () => {
  test.each(working)("%s trains", async (names, settings) => {
    const { summary } = await trainTwoSteps(together(names, settings));
    expect(summary.losses).toHaveLength(2);
    expect(summary.losses.every(Number.isFinite)).toBe(true);
    expect(summary.peak.arenaBytes).toBe(summary.peak.planBytes);
  });

  test.each(excluded)("%s is refused in words", async (names, settings) => {
    const chosen = together(names, settings);
    const refusal = await trainTwoSteps(chosen).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(refusal).toBeInstanceOf(ThimbleError);
    const { message, given = "", code } = refusal as ThimbleError;
    const named = chosen.methods.filter((id) => `${message} ${given}`.includes(id));
    expect(named.length, `${code}: ${message} ${given}`).toBeGreaterThanOrEqual(2);
  });
});
