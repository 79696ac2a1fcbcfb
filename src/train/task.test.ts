import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resolveConfig } from "../config/config.js";
import type { RunConfig } from "../config/schema.js";
import { must, ThimbleError } from "../errors.js";
import { openModel } from "../io/model.js";
import { openSafetensors } from "../io/safetensors.js";
import { encoderBatch, encoderFolder, loadEncoderGolden } from "../testing/encoder-goldens.js";
import { relativeError } from "../testing/goldens.js";
import { checkTrainingBattery } from "../testing/method-training.js";
import { tinyBert } from "../testing/tiny.js";
import { openSession } from "../session/open.js";
import { evaluate } from "./evaluate.js";
import { exportModel } from "./export/export.js";
import { TextGenerator } from "./generate.js";
import { inspectData } from "./inspect.js";
import { sessionOptions } from "./options.js";
import { planRun } from "./prepare.js";
import { composeAdapter, setAdapter } from "./run-methods.js";
import { sentiment, writeTinyEncoder } from "./testing/tiny-encoder.js";
import { train } from "./train.js";
import type { TrainEvents } from "./types.js";

let folder = "";
const place = (name: string): string => join(folder, name);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "thimble-task-"));
  await writeTinyEncoder(place("bert"));
  await writeTinyEncoder(place("roberta"), { family: "roberta" });
  await writeTinyEncoder(place("headed"), { head: true, changes: { id2label: { 0: "no", 1: "yes" } } });
  const records = sentiment(48);
  await writeFile(place("data.jsonl"), records.map((record) => JSON.stringify(record)).join("\n"));
  const rows = records.map(
    ({ text, label }, index) => `"${text}",the sea,${(label === "good" ? 1 : -1) + index / 500}`,
  );
  await writeFile(place("numbers.csv"), ["sentence1,sentence2,score", ...rows].join("\n"));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

function configOf(changes: Readonly<Record<string, unknown>>): RunConfig {
  const base = { model: place("bert"), data: place("data.jsonl"), batch: 8, seq: 20, steps: 12, lr: 5e-3 };
  return resolveConfig({ flags: { ...base, threads: 2, holdout: 0.25, ...changes } });
}

async function failure(action: Promise<unknown>): Promise<ThimbleError> {
  try {
    await action;
  } catch (error) {
    expect(error).toBeInstanceOf(ThimbleError);
    return error as ThimbleError;
  }
  throw new Error("no error");
}

const json = async (path: string): Promise<Record<string, unknown>> =>
  JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;

/** Bytes of a folder's tensors by name. */
async function tensorsOf(path: string): Promise<Map<string, Float32Array>> {
  const file = await openSafetensors(path);
  const found = new Map<string, Float32Array>();
  for (const name of file.tensors.keys()) found.set(name, await file.readAs(name, "f32"));
  await file.close();
  return found;
}

describe("an adapter for a classification", () => {
  it("trains a new head, is saved with it, and is measured and merged", async () => {
    const out = place("lora");
    const result = await train(configOf({ out, evalEvery: 6 }));
    const { losses } = result.summary;
    expect(must(losses.at(-1), "loss")).toBeLessThan(0.8 * must(losses[0], "loss"));
    expect(result.task).toBe("classification");
    const scores = must(result.lastEvaluation?.scores, "scores");
    expect(Object.keys(scores)).toEqual(["accuracy", "f1", "matthews"]);
    expect(must(scores["accuracy"], "accuracy")).toBeGreaterThan(0.8);
    const log = (await readFile(join(out, "metrics.jsonl"), "utf8")).trim().split("\n");
    expect(JSON.parse(must(log.at(-1), "line"))).toMatchObject({ scores });

    const adapter = join(out, "adapter");
    expect(await json(join(adapter, "adapter_config.json"))).toMatchObject({
      task_type: "SEQ_CLS",
      modules_to_save: ["classifier"],
    });
    expect(await json(join(adapter, "task.json"))).toEqual({ task: "classification", labels: ["bad", "good"] });
    const saved = await tensorsOf(join(adapter, "adapter_model.safetensors"));
    expect(must(saved.get("base_model.model.classifier.weight"), "head")).toHaveLength(2 * 32);

    const measured = await evaluate(configOf({ adapter, out }), { compare: true });
    expect(measured.loss).toBeCloseTo(must(result.lastEvaluation?.loss, "loss"), 5);
    expect(measured.scores).toEqual(scores);
    expect(must(measured.before?.scores, "scores before")["accuracy"]).toBeLessThan(0.8);

    await exportModel(configOf({ adapter, data: [], holdout: undefined }), {
      format: "safetensors",
      out: place("merged"),
    });
    expect(await json(join(place("merged"), "config.json"))).toMatchObject({
      architectures: ["BertForSequenceClassification"],
      id2label: { 0: "bad", 1: "good" },
      problem_type: "single_label_classification",
    });
    const merged = await evaluate(configOf({ model: place("merged") }));
    expect(merged.loss).toBeCloseTo(measured.loss, 5);
    expect(merged.scores).toEqual(scores);

    await exportModel(configOf({ adapter }), { format: "peft", out: place("again") });
    expect(await tensorsOf(join(place("again"), "adapter_model.safetensors"))).toEqual(saved);
    expect(await json(join(place("again"), "task.json"))).toMatchObject({ labels: ["bad", "good"] });
    const gguf = await failure(exportModel(configOf({ adapter }), { format: "gguf", out: place("gguf") }));
    expect(gguf.code).toBe("export-format");
  });

  it("goes on from a checkpoint to the same bits", async () => {
    const whole = await train(configOf({ out: place("whole"), saveEvery: 5 }));
    const stop = new AbortController();
    const events: TrainEvents = {
      onStep: ({ step }) => {
        if (step === 5) stop.abort();
      },
    };
    await train(configOf({ out: place("halves"), saveEvery: 5 }), events, stop.signal);
    await train(configOf({ out: place("halves"), saveEvery: 5, resume: true }));
    expect(whole.interrupted).toBe(false);
    const [one, other] = await Promise.all(
      ["whole", "halves"].map((name) => readFile(join(place(name), "adapter", "adapter_model.safetensors"))),
    );
    expect(must(other, "bytes").equals(must(one, "bytes"))).toBe(true);
  });

  it.each([
    ["bert", "bert.pooler.dense.weight"],
    ["roberta", "roberta.encoder.layer.1.output.dense.weight"],
  ] as const)("that PEFT made is read: %s", async (family, last) => {
    const golden = await loadEncoderGolden(family);
    const base = encoderFolder(family);
    const { definition, weights } = await openModel(base);
    const run = await composeAdapter(join(base, "adapter"), definition);
    expect(run.methods.adapters.some(({ name }) => name.startsWith(last.replace(/\.weight$/, "")))).toBe(true);
    const config = configOf({ batch: golden.batch, seq: golden.length, target: "interpret" });
    const parts = { definition, weights, methods: run.methods, segments: true, train: false, evaluate: true };
    const session = await openSession(sessionOptions(config, { ...parts, decode: undefined }));
    try {
      await session.load(weights);
      setAdapter(session, must(run.adapter, "adapter"));
      const { logits } = await session.evaluate(encoderBatch(golden));
      const expected = (await tensorsOf(join(base, "adapter", "expected.safetensors"))).get("logits");
      expect(relativeError(must(logits, "logits"), must(expected, "logits"))).toBeLessThan(1e-5);
    } finally {
      session.close();
      await weights.close();
    }
  });
});

describe("a regression", () => {
  it("trains whole models on pairs of texts, and goes on from what was saved", async () => {
    const numbers = { model: place("roberta"), data: place("numbers.csv"), method: "full", lr: 1e-3, seq: 24 };
    const out = place("regression");
    const result = await train(configOf({ ...numbers, steps: 40, out, evalEvery: 40 }));
    expect(result.task).toBe("regression");
    expect(must(result.lastEvaluation?.scores, "scores")["pearson"]).toBeGreaterThan(0.5);
    const model = join(out, "model");
    expect(await json(join(model, "config.json"))).toMatchObject({
      architectures: ["RobertaForSequenceClassification"],
      problem_type: "regression",
    });
    const measured = await evaluate(configOf({ ...numbers, model }));
    expect(measured.loss).toBeCloseTo(must(result.lastEvaluation?.loss, "loss"), 5);
  });

  it("is what --task says where labels could be classes", async () => {
    await writeFile(place("whole.jsonl"), '{"text": "a", "label": 1}\n{"text": "b", "label": 3}\n');
    const { options } = await planRun(configOf({ data: place("whole.jsonl"), task: "regression" }));
    expect(options.definition.task).toMatchObject({ kind: "regression", labels: ["LABEL_0"] });
    const classes = await planRun(configOf({ data: place("whole.jsonl") }));
    expect(classes.options.definition.task?.labels).toEqual(["1", "3"]);
  });
});

describe("the head of a run", () => {
  it("is the checkpoint's own where that has one", async () => {
    const error = await failure(train(configOf({ model: place("headed"), out: place("headed-out") })));
    expect(error).toMatchObject({ code: "data-label", expected: expect.stringContaining("no, yes") as string });
    const named = configOf({ model: place("headed"), labels: ["bad", "good"] });
    const { definition } = (await planRun(named)).options;
    expect(definition.task).toMatchObject({ labels: ["bad", "good"], head: ["classifier.weight", "classifier.bias"] });
  });

  it("is new where its labels are others, and drawn from the seed", async () => {
    const open = (seed: number) => {
      const configure = (config: unknown): Promise<unknown> =>
        Promise.resolve({ ...(config as object), id2label: { 0: "a", 1: "b", 2: "c" } });
      return openModel(place("headed"), { configure, seed });
    };
    const read = async (seed: number): Promise<Float32Array> => {
      const { weights, drawn, definition } = await open(seed);
      expect(drawn).toEqual(["classifier.weight", "classifier.bias"]);
      expect(definition.linears.map(({ role }) => role)).toContain("pooler");
      const values = new Float32Array(3 * 32);
      await weights.readInto("classifier.weight", new Uint8Array(values.buffer), "f32");
      await weights.close();
      return values;
    };
    const [one, same, other] = [await read(1), await read(1), await read(2)];
    expect(same).toEqual(one);
    expect(other).not.toEqual(one);
    expect(Math.max(...one.map(Math.abs))).toBeLessThan(0.1);
  });

  it("has the pooler too where the checkpoint lacks it: then it trains, and no method adapts it", async () => {
    await cp(place("bert"), place("bare"), { recursive: true });
    const tensors = await tensorsOf(place("bert/model.safetensors"));
    const { writeSafetensors } = await import("../io/safetensors-write.js");
    const { definition, weights } = await openModel(place("bert"));
    await weights.close();
    const kept = definition.parameters.filter(({ name }) => tensors.has(name) && !name.includes("pooler"));
    await writeSafetensors(
      place("bare/model.safetensors"),
      kept.map(({ name, shape }) => {
        const bytes = new Uint8Array(must(tensors.get(name), name).buffer);
        return { name, type: "f32", shape, chunks: () => [bytes] };
      }),
    );
    const out = place("bare-out");
    await train(configOf({ model: place("bare"), out, steps: 3 }));
    const saved = [...(await tensorsOf(join(out, "adapter", "adapter_model.safetensors"))).keys()];
    expect(saved.filter((name) => name.includes("pooler")).sort()).toEqual([
      "base_model.model.bert.pooler.dense.bias",
      "base_model.model.bert.pooler.dense.weight",
    ]);
    const { modules_to_save: modules } = await json(join(out, "adapter", "adapter_config.json"));
    expect(modules).toEqual(["bert.pooler.dense", "classifier"]);
    const measured = await evaluate(configOf({ model: place("bare"), adapter: join(out, "adapter") }));
    expect(Number.isFinite(measured.loss)).toBe(true);
  });

  it.each([
    ["mezo", []],
    ["lisa", []],
    ["wta-crs", []],
    ["qlora", []],
    ["meft", []],
    ["lst", ["lst.r=4"]],
    ["dept", ["dept.prefix_length=4", "dept.r=2"]],
  ])("trains with %s", async (method, set) => {
    const out = place(`with-${method}`);
    const small = { batch: 2, seq: 12, steps: 2, target: "interpret" };
    const { summary, result } = await train(configOf({ method, set, out, ...small }));
    expect(summary.losses.every(Number.isFinite)).toBe(true);
    const folder = must(result, "result");
    const adapter = folder.endsWith("adapter");
    const saved = await tensorsOf(join(folder, adapter ? "adapter_model.safetensors" : "model.safetensors"));
    const start = new Float32Array(2 * 32);
    const { weights } = await openModel(place("bert"));
    await weights.readInto("classifier.weight", new Uint8Array(start.buffer), "f32");
    await weights.close();
    const trained = saved.get("base_model.model.classifier.weight") ?? saved.get("classifier.weight");
    expect(must(trained, "head")).not.toEqual(start);
  });
});

describe("an encoder refuses", () => {
  it("settings of running text, and to make text", async () => {
    const rows = await failure(train(configOf({ rows: "packed", out: place("no") })));
    expect(rows).toMatchObject({ code: "task-data", where: "rows" });
    const spans = await failure(train(configOf({ trainOn: "all", out: place("no") })));
    expect(spans).toMatchObject({ code: "task-data", where: "trainOn" });
    const tokens = await failure(train(configOf({ data: "tokens:x.u16", labels: "2", out: place("no") })));
    expect(tokens).toMatchObject({ code: "task-data", where: "data" });
    expect((await failure(TextGenerator.open(configOf({})))).code).toBe("generate-task");
  });

  it("labels that are none", async () => {
    expect((await failure(planRun(configOf({ labels: ["one"] })))).code).toBe("task-labels");
    expect((await failure(planRun(configOf({ labels: ["a", "b"], task: "regression" })))).code).toBe("task-labels");
    const { options } = await planRun(configOf({ labels: "5" }));
    expect(options.definition.task?.labels).toHaveLength(5);
  });

  it("an adapter of another task", async () => {
    await cp(join(encoderFolder("bert"), "adapter"), place("other"), { recursive: true });
    await writeFile(place("other/task.json"), '{"task": "regression", "labels": ["LABEL_0"]}');
    const wrong = configOf({ adapter: place("other"), task: "classification", out: place("no") });
    expect((await failure(planRun(wrong))).code).toBe("adapter-task");
    await writeFile(place("other/task.json"), '{"task": "translation"}');
    expect((await failure(planRun(configOf({ adapter: place("other") })))).code).toBe("adapter-task");
  });
});

describe("a model that predicts tokens", () => {
  it("refuses a task", async () => {
    const { writeTinyModel } = await import("./testing/tiny-folder.js");
    await writeTinyModel(place("llama"));
    const error = await failure(planRun(configOf({ model: place("llama"), task: "classification" })));
    expect(error).toMatchObject({ code: "task-model", where: "task" });
  });
});

it("shows labelled data with its labels", async () => {
  const { report, rows } = await inspectData(configOf({}), { rows: 3 });
  expect(report.format).toBe("labelled text");
  expect(rows.map(({ label }) => label).every((label) => label === "good" || label === "bad")).toBe(true);
});

checkTrainingBattery({
  title: "LoRA on a BERT",
  selection: [{ id: "lora", settings: { r: 4, target_modules: ["query", "value", "dense"] } }],
  model: tinyBert(),
  variants: { "one batch a step": {}, "in bf16, recomputing blocks": { dtype: "bf16", saved: "block" } },
});
