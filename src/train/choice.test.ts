import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { resolveConfig } from "../config/config.js";
import type { RunConfig } from "../config/schema.js";
import { planRun } from "./prepare.js";
import { sentiment, writeTinyEncoder } from "./testing/tiny-encoder.js";
import { writeTinyModel } from "./testing/tiny-folder.js";
import { train } from "./train.js";
import type { Notice, TrainEvents, TrainResult } from "./types.js";

let folder = "";
const place = (name: string): string => join(folder, name);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-choice-"));
  await writeTinyModel(place("model"));
  const line = (prompt: string, completion: string): string => JSON.stringify({ prompt, completion });
  const large = Array.from({ length: 14 }, (_, index) =>
    line(`The number ${index} is `, index % 2 === 0 ? "even" : "odd"),
  );
  const small = Array.from({ length: 3 }, (_, index) => line(`After ${index} is `, "b."));
  await writeFile(place("large.jsonl"), large.join("\n"));
  await writeFile(place("small.jsonl"), small.join("\n"));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

function configOf(changes: Readonly<Record<string, unknown>>): RunConfig {
  const base = {
    model: place("model"),
    data: [place("large.jsonl"), place("small.jsonl")],
    batch: 2,
    seq: 24,
    steps: 6,
  };
  const flags = { ...base, method: "colm", target: "c", threads: 2, lr: 1e-2, ...changes };
  return resolveConfig({ flags });
}

interface Record_ {
  readonly step: number;
  readonly chosen?: readonly number[];
  readonly logged?: Readonly<Record<string, number>>;
}

async function logOf(out: string): Promise<Record_[]> {
  const text = await readFile(join(out, "metrics.jsonl"), "utf8");
  return text.trim().split("\n").map((entry) => JSON.parse(entry) as Record_); // prettier-ignore
}

function stoppedAt(stop: number, config: RunConfig): Promise<TrainResult> {
  const controller = new AbortController();
  const events: TrainEvents = {
    onStep: ({ step }) => {
      if (step === stop) controller.abort();
    },
  };
  return train(config, events, controller.signal);
}

describe("a run that chooses among its examples", () => {
  test("keeps small sources, logs its choice, and resumes bit for bit", async () => {
    const settings = { set: "colm.log_selection=true", saveEvery: 2 };
    const [one, two] = [place("straight"), place("resumed")];
    const notices: string[] = [];
    const onNotice = ({ message }: Notice): void => void notices.push(message);
    const straight = await train(configOf({ ...settings, out: one }), { onNotice });
    expect(notices.join()).toContain("large.jsonl, small.jsonl (kept whole)");
    const records = await logOf(one);
    expect(records).toHaveLength(6);
    for (const { chosen, logged } of records) {
      expect(new Set(chosen).size).toBe(2);
      expect(Math.max(...(chosen ?? []))).toBeLessThan(4);
      expect(logged).toHaveProperty(["colm.kept"]);
    }
    expect(records.some(({ logged }) => (logged?.["colm.kept"] ?? 0) > 0)).toBe(true);
    await stoppedAt(3, configOf({ ...settings, out: two }));
    const second = await train(configOf({ ...settings, out: two, resume: true, threads: 1 }));
    expect(second.summary.losses).toEqual(straight.summary.losses);
    expect((await logOf(two)).map(({ chosen }) => chosen)).toEqual(records.map(({ chosen }) => chosen));
    const file = "adapter/adapter_model.safetensors";
    expect(await readFile(join(two, file))).toEqual(await readFile(join(one, file)));
  });

  test("with one source says so, and refuses what needs several, packed rows, and uneven draws", async () => {
    const notices: string[] = [];
    const onNotice = ({ message }: Notice): void => void notices.push(message);
    const data = place("large.jsonl");
    await train(configOf({ data, steps: 1, out: place("alone") }), { onNotice });
    expect(notices.join()).toContain("the data has one source");
    const refused = (changes: Readonly<Record<string, unknown>>): Promise<unknown> =>
      train(configOf({ ...changes, out: place("refused") })).catch((error: unknown) => error);
    expect(await refused({ data, set: "colm.source_wise_selection=balanced" })).toMatchObject({ code: "colm-sources" });
    expect(await refused({ set: 'colm.keep_sources=["medium"]' })).toMatchObject({ code: "colm-keep" });
    expect(await refused({ rows: "packed" })).toMatchObject({ code: "rows-packed" });
    expect(await refused({ set: "colm.small_batch_ratio=0.75" })).toMatchObject({ code: "draw-uneven" });
  });

  test.each(["mezo", "rep"])("classifies with an encoder, by %s", async (unit) => {
    await writeTinyEncoder(place("bert"));
    const lines = (count: number): string => sentiment(count).map((one) => JSON.stringify(one)).join("\n"); // prettier-ignore
    await writeFile(place("many.jsonl"), lines(24));
    await writeFile(place("few.jsonl"), lines(4));
    const out = place(`bert-${unit}`);
    const data = [place("many.jsonl"), place("few.jsonl")];
    const set = ["colm.log_selection=true", `colm.data_selection_unit=${unit}`];
    const { summary } = await train(configOf({ model: place("bert"), data, set, steps: 3, out }));
    expect(summary.losses.every(Number.isFinite)).toBe(true);
    expect(summary.peak.arenaBytes).toBe(summary.peak.planBytes);
    for (const { chosen, logged } of await logOf(out)) {
      expect(new Set(chosen).size).toBe(2);
      expect(logged?.["colm.dropped"] ?? 0).toBe(0);
    }
  });

  test("is planned without its data", async () => {
    const { report } = await planRun(configOf({ data: [] }));
    expect(report.notes.join()).toContain("2 of 4 rows drawn");
  });
});
