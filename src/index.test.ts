import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RunSettings } from "./index.js";
import {
  configSchema,
  evaluate,
  explain,
  exportModel,
  generate,
  inspectData,
  merge,
  methods,
  openGenerator,
  plan,
  readConfig,
  ThimbleError,
  train,
} from "./index.js";
import { writeTinyModel, writeTokens } from "./train/testing/tiny-folder.js";

let folder = "";
const place = (name: string): string => join(folder, name);
let settings: RunSettings = {};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-api-"));
  await writeTinyModel(place("model"));
  await writeTokens(place("ids.u16"), 2000, 420);
  const size = { batch: 2, seq: 16, steps: 2, target: "interpret", threads: 1 } as const;
  settings = { model: place("model"), data: `tokens:${place("ids.u16")}`, method: "lora", out: place("run"), ...size };
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe("the typed API", () => {
  it("plans, trains, measures, generates, merges and exports", async () => {
    const { report } = await plan(settings);
    const losses: number[] = [];
    const { result, summary } = await train(settings, { onStep: ({ loss }) => losses.push(loss) });
    expect(summary.peak.arenaBytes).toBe(report.planBytes);
    expect(losses).toEqual(summary.losses);
    const tuned = { ...settings, adapter: result };
    const measured = await evaluate(tuned);
    expect(measured.perplexity).toBeCloseTo(Math.exp(measured.loss), 6);
    const pieces: string[] = [];
    const made = await generate(tuned, { prompt: "Once", maxTokens: 4 }, { onText: (text) => pieces.push(text) });
    expect(made.ids).toHaveLength(4);
    expect(pieces.join("")).toBe(made.text);
    expect((await merge(tuned, { out: place("merged") })).files).toContain("model.safetensors");
    expect((await exportModel(tuned, { format: "gguf", out: place("gguf") })).files).toContain("model.gguf");
    await expect(merge(settings, { out: place("other") })).rejects.toThrow(/no adapter/);
  });

  it("keeps a model open for a conversation", async () => {
    const generator = await openGenerator(settings);
    const choices = { maxTokens: 2, temperature: 0, topP: 1, stop: [], seed: 0 };
    const { promptTokens } = await generator.chat([{ role: "user", content: "Hi" }], choices);
    expect(promptTokens).toBeGreaterThan(2);
    expect(generator.peak.arenaBytes).toBe(generator.peak.planBytes);
    generator.close();
  });

  it("explains, inspects, describes", async () => {
    const { programs, kernels } = await explain(settings);
    expect(programs[0]?.steps.length).toBeGreaterThan(kernels.length);
    expect((await inspectData(settings, { rows: 1 })).rows).toHaveLength(1);
    expect(methods().map(({ id }) => id)).toContain("lora");
    expect(configSchema()).toHaveProperty("properties.weightDecay");
  });

  it("reads config files, and refuses with a ThimbleError", async () => {
    await writeFile(place("run.yaml"), "batch: 8\nweight-decay: 0.1\n");
    expect(await readConfig(place("run.yaml"), { batch: 2 })).toMatchObject({ batch: 2, weightDecay: 0.1 });
    const wrong = { ...settings, batch: 0 };
    await expect(plan(wrong)).rejects.toThrow(ThimbleError);
  });
});
