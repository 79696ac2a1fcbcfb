import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { resolveConfig } from "../../config/config.js";
import type { RunConfig } from "../../config/schema.js";
import { must } from "../../errors.js";
import { fromHuggingFaceConfig } from "../../models/registry.js";
import { openSession, planOnly } from "../../session/open.js";
import { largestDifference, MethodBench } from "../../testing/method-bench.js";
import {
  checkTrainingBattery,
  randomWeights,
  runTraining,
  trainedModel,
  trainingOptions,
} from "../../testing/method-training.js";
import { tinyLlama } from "../../testing/tiny.js";
import { evaluate } from "../../train/evaluate.js";
import { exportModel } from "../../train/export/export.js";
import { TextGenerator } from "../../train/generate.js";
import { writeTinyModel } from "../../train/testing/tiny-folder.js";
import { train } from "../../train/train.js";
import { composeMethods } from "../compose.js";
import type { MethodSelection } from "../compose.js";

const dept = (settings: Record<string, unknown> = {}): MethodSelection => ({
  id: "dept",
  settings: { prefix_length: 3, r: 2, max_length: 19, ...settings },
});
const names = ["prompt_embeddings", "prompt_encoder.lora_embedding_A", "prompt_encoder.lora_embedding_B"] as const;
const model = tinyLlama();
const tinyGpt = fromHuggingFaceConfig({
  model_type: "gpt2",
  architectures: ["GPT2LMHeadModel"],
  vocab_size: 33,
  n_embd: 16,
  n_layer: 2,
  n_head: 2,
  n_positions: 32,
  activation_function: "gelu_new",
  layer_norm_epsilon: 1e-5,
});

checkTrainingBattery({ title: "DePT", selection: [dept()], session: { evaluate: true } });
checkTrainingBattery({
  title: "DePT beside LoRA over NF4",
  selection: [dept(), { id: "qlora", settings: { r: 2 } }],
  variants: { "one batch a step": {} },
});
describe("DePT", () => {
  test("is the base without a prompt before its update has trained, and plain prompt tuning with one", async () => {
    const logits = async (settings: Record<string, unknown>): Promise<ArrayLike<number>> => {
      const bench = await MethodBench.create(model, [dept(settings)]);
      return must(bench.run([bench.logits])[0], "logits").data;
    };
    const base = await MethodBench.create(model, [{ id: "full", settings: {} }]);
    expect(await logits({ prefix_length: 0 })).toEqual(must(base.run([base.logits])[0], "logits").data);
    expect(await logits({})).toEqual(await logits({ r: 0 }));
  });

  test.each([model, tinyGpt])("has the gradients of finite differences ($family)", async (definition) => {
    const bench = await MethodBench.create(definition, [dept()], { training: true });
    expect(bench.scramble().gradientError()).toBeLessThan(1e-4);
  });

  test("adds the same row of A B to the token in each position, and none beyond its rows", async () => {
    const settings = { prefix_length: 0, r: 2, max_length: 4 };
    const bench = (await MethodBench.create(model, [dept(settings)])).scramble();
    const a = must(bench.values.get(names[1]), "A");
    const b = must(bench.values.get(names[2]), "B");
    const table = must(bench.values.get("model.embed_tokens.weight"), "embedding");
    const ids = [1, 4, 0, 10, 7, 2, 4];
    const width = model.width;
    const scale = 8 / Math.sqrt(2);
    // The same rows as embeddings of tokens of their own: the model then sees what DePT makes.
    const rows = Float32Array.from({ length: ids.length * width }, (_, place) => {
      const [row, column] = [Math.floor(place / width), place % width];
      const added = row < 4 ? a[row * 2]! * b[column]! + a[row * 2 + 1]! * b[width + column]! : 0;
      return table[ids[row]! * width + column]! + scale * added;
    });
    const replaced = table.slice();
    replaced.set(rows, 11 * width);
    const own = must(bench.run([bench.hidden])[0], "hidden").data;
    const plain = await MethodBench.create(model, [{ id: "full", settings: {} }], {
      ids: ids.map((_, row) => 11 + row),
      weights: new Map([["model.embed_tokens.weight", replaced]]),
    });
    expect(largestDifference(own, must(plain.run([plain.hidden])[0], "hidden").data)).toBeLessThan(1e-5);
  });

  test("folds into the learned positions of GPT-2", async () => {
    const bench = (await MethodBench.create(tinyGpt, [dept()])).scramble();
    const [before] = bench.run([bench.hidden], "f64");
    const [a, b] = [must(bench.values.get(names[1]), "A"), must(bench.values.get(names[2]), "B")];
    const positions = must(bench.values.get("transformer.wpe.weight"), "positions");
    for (let row = 0; row < 7; row++) {
      for (let column = 0; column < 16; column++) {
        const update = (8 / Math.sqrt(2)) * (a[row * 2]! * b[column]! + a[row * 2 + 1]! * b[16 + column]!);
        positions[(3 + row) * 16 + column]! += update;
      }
    }
    b.fill(0);
    const [after] = bench.run([bench.hidden], "f64");
    expect(largestDifference(must(before, "before").data, must(after, "after").data)).toBeLessThan(1e-5);
  });

  test.each([
    [20, 60],
    [40, 45],
    [60, 30],
    [80, 15],
  ])("trains 76,800 values with %i rows and rank %i at width 768 and 256 positions", (prefix, r) => {
    const wide = tinyLlama({ hidden_size: 768, num_attention_heads: 12, max_position_embeddings: 512 });
    const { adapters } = composeMethods([dept({ prefix_length: prefix, r, max_length: 256 })], wide);
    const trained = adapters.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size), 0);
    expect(trained).toBe(76_800);
  });

  test("keeps activations in proportion to its shorter rows, for as many trained values", () => {
    const wide = tinyLlama({ hidden_size: 64, intermediate_size: 128, max_position_embeddings: 512, vocab_size: 67 });
    const composition = (settings: Record<string, unknown>): { saved: number; states: number } => {
      const session = { length: 256, segments: false, saved: "all", evaluate: false } as const;
      return planOnly(trainingOptions({ selection: [dept(settings)], model: wide, session })).report.composition;
    };
    // 100 rows of 64 are as many values as 40 rows and a rank of 12 over 256 positions.
    const [plain, own] = [
      composition({ prefix_length: 100, r: 0 }),
      composition({ prefix_length: 40, r: 12, max_length: 256 }),
    ];
    expect(own.states).toBe(plain.states);
    expect(own.saved / plain.saved).toBeGreaterThan(296 / 356 - 0.01);
    expect(own.saved / plain.saved).toBeLessThan(296 / 356 + 0.01);
  });

  test("decodes with a cache as it evaluates", async () => {
    const decode = { capacity: 32, chunk: 4 };
    const options = trainingOptions({ selection: [dept()], session: { decode, train: false, length: 7, batch: 1 } });
    const session = await openSession({ ...options, segments: false });
    try {
      await session.load(randomWeights(trainedModel));
      const ids = Int32Array.of(1, 4, 0, 10, 7, 2, 4);
      await session.decode(ids.subarray(0, 5), 0);
      const logits = await session.decode(ids.subarray(5), 5);
      const at = (label: number): Promise<{ lossSum: number }> =>
        session.evaluate({
          ids,
          labels: new Int32Array(7).fill(label),
          weights: Float32Array.of(0, 0, 0, 0, 0, 0, 1),
          positions: Int32Array.from(ids, (_, index) => index),
          segments: new Int32Array(7),
        });
      const total = Math.log(logits.reduce((sum, value) => sum + Math.exp(value), 0));
      for (const label of [0, 13, 66]) {
        expect((await at(label)).lossSum).toBeCloseTo(total - must(logits[label], "logit"), 4);
      }
    } finally {
      session.close();
    }
  });

  test("trains without a backward pass", async () => {
    const selection = [dept(), { id: "mezo", settings: {} }];
    const outcome = await runTraining(trainingOptions({ selection, optimizer: { id: "sgd" } }), { poison: true });
    expect(outcome.arenaBytes).toBe(outcome.planBytes);
    expect(outcome.losses.every(Number.isFinite)).toBe(true);
  });

  test("refuses what cannot be", () => {
    const compose = (settings: Record<string, unknown>, ...others: MethodSelection[]): unknown =>
      composeMethods([dept(settings), ...others], trainedModel);
    const code = (expected: string): unknown => expect.objectContaining({ code: expected });
    expect(() => compose({ prefix_length: 0, r: 0 })).toThrow(code("dept-nothing"));
    expect(() => compose({ r: -1 })).toThrow(code("settings"));
    expect(() => compose({ prefix_length: -1 })).toThrow(code("settings"));
    expect(() => compose({ low_rank_rate: -1 })).toThrow(code("settings"));
    expect(() => compose({ init_tokens: [67] })).toThrow(code("dept-tokens"));
    expect(() => compose({}, { id: "full", settings: {} })).toThrow(code("methods-conflict"));
    const session = { length: 62, segments: false };
    expect(() => planOnly(trainingOptions({ selection: [dept()], session }))).toThrow(code("prefix-length"));
  });
});

const greedy = { maxTokens: 3, temperature: 0, topP: 1, stop: [], seed: 0 };

describe("DePT, end to end", () => {
  let folder = "";
  const place = (name: string): string => join(folder, name);
  const config = (changes: Readonly<Record<string, unknown>>): RunConfig =>
    resolveConfig({ flags: { model: place("model"), data: place("pairs.jsonl"), batch: 2, seq: 24, ...changes } });

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "thimble-dept-"));
    await writeTinyModel(place("model"));
    const lines = Array.from({ length: 40 }, (_, index) => ({ prompt: `Number ${index} is `, completion: "odd." }));
    await writeFile(place("pairs.jsonl"), lines.map((line) => JSON.stringify(line)).join("\n"));
  });
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  test("trains on rows of one record, saves, and evaluates and generates from what it saved", async () => {
    const set = ["dept.prefix_length=4", "dept.r=3", 'dept.init_text="Number"'];
    const out = place("run");
    await train(config({ method: "dept", set, steps: 4, lr: 0.05, out, evalEvery: 4, holdout: 0.2 }));
    const saved = JSON.parse(await readFile(join(out, "adapter", "adapter_config.json"), "utf8")) as {
      methods: { settings: Record<string, unknown> }[];
    };
    expect(saved.methods[0]?.settings).toMatchObject({ max_length: 24, init_tokens: expect.any(Array) as unknown });
    const summary = await evaluate(config({ adapter: out, holdout: 0.2 }), { compare: true });
    expect(summary.before?.loss).not.toBe(summary.loss);
    const again = await train(config({ method: "dept", set, steps: 1, lr: 1e-30, adapter: out, out: place("again") }));
    expect(again.summary.losses[0]).toBeGreaterThan(0);
    const generator = await TextGenerator.open(config({ adapter: out }), { context: 24 });
    try {
      expect((await generator.generate("Number 3", greedy)).ids.length).toBeGreaterThan(0);
    } finally {
      generator.close();
    }
  });

  test("is refused for rows of several records, and as a merged model", async () => {
    const packed = train(config({ method: "dept", rows: "packed", out: place("packed") }));
    await expect(packed).rejects.toMatchObject({ code: "rows-packed" });
    const merged = exportModel(config({ adapter: place("run") }), { format: "safetensors", out: place("merged") });
    await expect(merged).rejects.toMatchObject({ code: "export-merge" });
  });
});
