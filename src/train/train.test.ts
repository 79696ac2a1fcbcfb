import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resolveConfig } from "../config/config.js";
import type { RunConfig } from "../config/schema.js";
import { openSafetensors } from "../io/safetensors.js";
import { evaluate } from "./evaluate.js";
import { inspectData } from "./inspect.js";
import { planRun } from "./prepare.js";
import { train } from "./train.js";
import { tinyConfig, writeTinyModel, writeTokens } from "./testing/tiny-folder.js";
import type { Notice, TrainEvents, TrainResult } from "./types.js";

let folder = "";
const place = (name: string): string => join(folder, name);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-train-"));
  await writeTinyModel(place("model"));
  await writeTokens(place("ids.u16"), 4000, 420);
  const lines = Array.from({ length: 60 }, (_, index) => ({
    prompt: `The number ${index} is `,
    completion: `${index % 2 === 0 ? "even" : "odd"}, and the next one is ${index + 1}.`,
  }));
  await writeFile(place("pairs.jsonl"), lines.map((line) => JSON.stringify(line)).join("\n"));
  await writeFile(place("text.txt"), "It was the best of times, it was the worst of times. ".repeat(60));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

function configOf(changes: Readonly<Record<string, unknown>>): RunConfig {
  const base = { model: place("model"), data: `tokens:${place("ids.u16")}`, batch: 2, seq: 16, steps: 6, lr: 1e-2 };
  return resolveConfig({ flags: { ...base, target: "interpret", threads: 2, ...changes } });
}

async function stoppedAt(stop: number, config: RunConfig): Promise<TrainResult> {
  const controller = new AbortController();
  const events: TrainEvents = {
    onStep: ({ step }) => {
      if (step === stop) controller.abort();
    },
  };
  return train(config, events, controller.signal);
}

const adapterBytes = (out: string): Promise<Buffer> => readFile(join(out, "adapter", "adapter_model.safetensors"));

describe("training, end to end", () => {
  const hard = { accumulate: 2, set: ["lora.dropout=0.1"], schedule: "cosine", clip: 1, weightDecay: 0.01 };
  it.each([
    ["interpret", "lora", {}],
    ["c", "lora", {}],
    ["c", "lora", hard],
    ["c", "full", { accumulate: 2 }],
    ["c", "full", { dtype: "bf16" }],
    ["c", "lora", { dtype: "bf16", stateDtype: "bf16", data: "pairs.jsonl" }],
  ] as const)(
    "on %s with %s, interrupted and resumed, is bit for bit the straight run (%o)",
    async (target, method, more) => {
      const data = "data" in more ? { data: place(more.data) } : {};
      const common = { target, method, saveEvery: 2, ...more, ...data };
      const outs = [place(`${target}-${method}-straight`), place(`${target}-${method}-resumed`)] as const;
      const straight = await train(configOf({ ...common, out: outs[0] }));
      const first = await stoppedAt(3, configOf({ ...common, out: outs[1] }));
      expect(first).toMatchObject({ step: 3, interrupted: true });
      const second = await train(configOf({ ...common, out: outs[1], resume: true, threads: 1 }));
      expect(second.summary.losses).toEqual(straight.summary.losses);
      expect(straight.summary.losses).toHaveLength(6);
      expect(straight.summary.losses.every(Number.isFinite)).toBe(true);
      const file = method === "full" ? "model/model.safetensors" : "adapter/adapter_model.safetensors";
      expect(await readFile(join(outs[1], file))).toEqual(await readFile(join(outs[0], file)));
      const { peak } = straight.summary;
      expect(peak.arenaBytes).toBe(peak.planBytes);
      expect(Object.values(peak.composition).reduce((sum, bytes) => sum + bytes)).toBe(peak.planBytes);
      for (const out of outs) await rm(out, { recursive: true });
    },
  );

  it("lowers the loss, and its adapter brings that back in an evaluation and as a start", async () => {
    const common = { target: "c", data: place("text.txt"), seq: 32, holdout: 0.2 };
    const out = place("learn");
    const result = await train(configOf({ ...common, out, steps: 30, evalEvery: 30 }));
    const { losses } = result.summary;
    expect(losses.at(-1)).toBeLessThan((losses[0] ?? 0) - 1);
    const measured = await evaluate(configOf({ ...common, steps: undefined, adapter: out }), { compare: true });
    expect(measured.loss).toBeCloseTo(result.lastEvaluation?.loss ?? NaN, 5);
    expect(measured.before?.loss).toBeGreaterThan(measured.loss + 1);
    expect(measured.perplexity).toBeCloseTo(Math.exp(measured.loss), 6);
    const further = await train(configOf({ ...common, out: place("further"), adapter: out, steps: 1 }));
    expect(further.summary.losses[0]).toBeLessThan((losses[0] ?? 0) - 1);
    const other = configOf({ ...common, out: place("none"), adapter: out, set: ["lora.r=4"] });
    await expect(train(other)).rejects.toMatchObject({ code: "adapter-settings" });
    const full = configOf({ ...common, out: place("none"), adapter: out, method: "full" });
    await expect(train(full)).rejects.toMatchObject({ code: "adapter-method" });
  });

  it("saves a fully trained model that opens again, in the run's type", async () => {
    const out = place("full");
    await train(configOf({ method: "full", out, dtype: "bf16", steps: 2 }));
    const file = await openSafetensors(join(out, "model", "model.safetensors"));
    expect([...file.tensors.values()].every(({ type }) => type === "bf16")).toBe(true);
    await file.close();
    const config = JSON.parse(await readFile(join(out, "model", "config.json"), "utf8")) as Record<string, unknown>;
    expect(config).toEqual({ ...tinyConfig, torch_dtype: "bfloat16" });
    const again = await evaluate(configOf({ model: join(out, "model"), steps: 1 }));
    expect(Number.isFinite(again.loss)).toBe(true);
  });

  it("refuses to resume with a changed setting, by its name", async () => {
    const out = place("changed");
    await train(configOf({ out, steps: 2 }));
    const codes = [
      [{ lr: 1e-3 }, "another lr"],
      [{ batch: 4 }, "another batch"],
      [{ set: ["lora.r=4"] }, "another method"],
      [{ data: place("text.txt") }, "another data"],
      [{ seed: 1 }, "another seed"],
    ] as const;
    for (const [changes, message] of codes) {
      await expect(train(configOf({ out, resume: true, ...changes }))).rejects.toThrow(message);
    }
    await writeTinyModel(place("other"), { vocab_size: 430 });
    await expect(train(configOf({ out, resume: true, model: place("other") }))).rejects.toThrow("another model");
    const before = await adapterBytes(out);
    const longer = await train(configOf({ out, resume: true, steps: 3, threads: 1, saveEvery: 1, keep: 1 }));
    expect(longer.summary.losses).toHaveLength(3);
    expect(await adapterBytes(out)).not.toEqual(before);
  });

  it("says what stands in the way before anything is read", async () => {
    await mkdir(place("used"));
    await writeFile(join(place("used"), "x"), "");
    for (const [changes, code] of [
      [{ out: place("used") }, "out-not-empty"],
      [{ model: undefined }, "config-missing"],
      [{ data: undefined }, "config-missing"],
      [{ seq: 4096 }, "config-seq"],
      [{ method: "lora", set: ["lora.target_modules=[nothing]"] }, "targets-none"],
      [{ method: ["lora", "full"] }, "methods-conflict"],
      [{ data: place("none.txt") }, "data-not-found"],
      [{ model: place("nowhere") }, "source-missing"],
    ] as const) {
      const refused: Record<string, unknown> = { ...changes };
      await expect(train(configOf({ out: place("refused"), ...refused }))).rejects.toMatchObject({ code });
    }
    const bad = place("bad.u16");
    await writeFile(bad, new Uint8Array(Uint16Array.from({ length: 100 }, () => 9999).buffer));
    const strange = configOf({ out: place("strange"), data: `tokens:${bad}` });
    await expect(train(strange)).rejects.toMatchObject({ code: "data-token-range" });
  });

  it("prints the learning rate it chose, and warns of an odd one", async () => {
    const notices: Notice[] = [];
    const events = { onNotice: (notice: Notice): void => void notices.push(notice) };
    await train(configOf({ out: place("rate"), lr: undefined, steps: 1 }), events);
    expect(notices.map(({ message }) => message)).toContain("Learning rate 0.0002, which suits the method.");
    await train(configOf({ out: place("odd"), lr: 5, steps: 1 }), events);
    expect(notices.map(({ code }) => code)).toContain("rate-odd");
  });
});

describe("planning", () => {
  it("from metadata alone is what the run allocates", async () => {
    const settings = {
      target: "c",
      evalEvery: 2,
      holdout: 0.1,
      out: place("planned"),
      steps: 2,
      data: place("pairs.jsonl"),
    };
    const { report, trainableParameters } = await planRun(configOf(settings));
    const { summary } = await train(configOf(settings));
    expect(report.planBytes).toBe(summary.peak.planBytes);
    expect(report.composition).toEqual(summary.peak.composition);
    expect(trainableParameters).toBe(summary.trainableParameters);
  });

  it("needs no more than a config.json, whatever its size", async () => {
    const large = { hidden_size: 8192, intermediate_size: 28672, num_hidden_layers: 4, num_attention_heads: 64 };
    await mkdir(place("large"));
    const config = { ...tinyConfig, ...large, num_key_value_heads: 8, vocab_size: 128256 };
    await writeFile(join(place("large"), "config.json"), JSON.stringify(config));
    for (const model of [place("large"), join(place("large"), "config.json")]) {
      const { report } = await planRun(configOf({ model, data: undefined, target: "auto", dtype: "bf16" }));
      const weights = 4 * (8192 * (8192 * 2 + 1024 * 2) + 3 * 8192 * 28672) + 128256 * 8192;
      expect(report.composition.weights).toBeGreaterThan(2 * weights);
      expect(report.composition.weights).toBeLessThan(2.1 * weights);
    }
  });
});

it("plans a model of the hub from its config.json alone", async () => {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? "");
    if (request.url === "/some/model/resolve/main/config.json") response.end(JSON.stringify(tinyConfig));
    else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const before = process.env["HF_ENDPOINT"];
  process.env["HF_ENDPOINT"] = `http://127.0.0.1:${port}`;
  try {
    const { report } = await planRun(configOf({ model: "hf:some/model", data: undefined }));
    const { report: local } = await planRun(configOf({ data: undefined }));
    expect(report).toEqual(local);
    expect(asked).toEqual(["/some/model/resolve/main/config.json"]);
  } finally {
    if (before === undefined) delete process.env["HF_ENDPOINT"];
    else process.env["HF_ENDPOINT"] = before;
    server.close();
  }
});

it("shows the rows and weights of the data", async () => {
  const shown = await inspectData(configOf({ data: place("pairs.jsonl"), seq: 64 }), { rows: 1 });
  expect(shown.report.format).toBe("prompt-completion");
  const tokens = shown.rows[0]?.tokens ?? [];
  expect(tokens.some(({ weight }) => weight === 0)).toBe(true);
  expect(tokens.some(({ weight }) => weight === 1)).toBe(true);
});
