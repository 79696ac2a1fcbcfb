import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { inverted } from "../../autodiff/reversible.js";
import { resolveConfig } from "../../config/config.js";
import type { RunConfig } from "../../config/schema.js";
import { must } from "../../errors.js";
import { fromHuggingFaceConfig } from "../../models/registry.js";
import type { ModelDefinition } from "../../models/types.js";
import { result } from "../../ops/leaves.js";
import { openSession, planOnly } from "../../session/open.js";
import type { SessionBatch } from "../../session/types.js";
import { randomWeights, trainedModel, trainingBatch, trainingOptions } from "../../testing/method-training.js";
import { GradientStep } from "../../testing/reversible.js";
import { runCompiled } from "../../testing/run-compiled.js";
import { relativeDifference, sequence, tinyLlama } from "../../testing/tiny.js";
import { evaluate } from "../../train/evaluate.js";
import { exportModel } from "../../train/export/export.js";
import { TextGenerator } from "../../train/generate.js";
import { writeTinyModel, writeTokens } from "../../train/testing/tiny-folder.js";
import { train } from "../../train/train.js";
import type { ComposedMethods, MethodSelection } from "../compose.js";
import { composeMethods } from "../compose.js";
import { defineMethod } from "../define.js";
import { z } from "zod";

const meft = (settings: Record<string, unknown> = {}): MethodSelection => ({ id: "meft", settings });

describe("the plan", () => {
  const encoder = (layers: number): ModelDefinition =>
    fromHuggingFaceConfig({
      model_type: "bert",
      architectures: ["BertForSequenceClassification"],
      vocab_size: 30522,
      hidden_size: 768,
      intermediate_size: 3072,
      num_attention_heads: 12,
      num_hidden_layers: layers,
      max_position_embeddings: 512,
      type_vocab_size: 2,
      num_labels: 2,
    });

  /** Bytes that the forward pass leaves for backward, at 16 rows of 512 tokens. */
  const savedBytes = (layers: number, selection: MethodSelection): number => {
    const session = { batch: 16, length: 512, segments: false, saved: "all", evaluate: false } as const;
    const { plans } = planOnly(trainingOptions({ selection: [selection], model: encoder(layers), session }));
    const kept = must(plans[0], "plan").buffers.filter(({ kind }) => kind === "saved");
    return kept.reduce((sum, { bytes }) => sum + bytes, 0);
  };

  test("keeps two streams, however many layers there are, and each layer's dropped bits in mode exact", () => {
    const streams = 2 * 16 * 512 * 768 * 4;
    const faithful = savedBytes(12, meft({ mode: "faithful" }));
    expect(faithful).toBeGreaterThanOrEqual(streams);
    expect(faithful).toBeLessThan(1.01 * streams);
    expect(faithful).toBeLessThan(0.16 * savedBytes(12, { id: "full", settings: {} }));
    expect(savedBytes(24, meft({ mode: "faithful" }))).toBe(faithful);
    const [exact, deeper] = [2, 4].map((layers) => savedBytes(layers, meft({ mode: "exact" })));
    // Three bits of every element of one stream a layer; the first layer's are those of the embedding's rows.
    expect(must(deeper, "4 layers") - must(exact, "2 layers")).toBe((2 * 3 * 16 * 512 * 768) / 8);
  });

  test("needs no more memory for more reversible layers of a decoder than their weights and states", () => {
    const transient = (layers: number, settings: Record<string, unknown>): number => {
      const model = tinyLlama({ hidden_size: 64, intermediate_size: 128, num_hidden_layers: layers, vocab_size: 67 });
      const session = { batch: 4, length: 64, segments: false, saved: "all", evaluate: false } as const;
      const { composition } = planOnly(trainingOptions({ selection: [meft(settings)], model, session })).report;
      return composition.saved + composition.workspace;
    };
    for (const f_arch of ["layer", "adapter", "attn"]) {
      const settings = { f_arch, mode: "faithful" };
      expect(transient(8, settings)).toBeLessThan(1.02 * transient(5, settings));
    }
  });
});

/** Pairs of segments [0, a b c, d e f]: whether there are more odd tokens in the first than in the second. */
function pairs(step: number, rows: number): SessionBatch {
  const next = sequence(step + 1);
  const length = 7;
  const tokens = Int32Array.from({ length: rows * length }, (_, index) =>
    index % length === 0 ? 0 : 1 + Math.floor((next() + 0.5) * 5.999),
  );
  const odd = (row: number, from: number): number =>
    tokens.subarray(row * length + from, row * length + from + 3).reduce((sum, token) => sum + (token % 2), 0);
  return {
    ids: tokens,
    positions: Int32Array.from(tokens, (_, index) => index % length),
    types: Int32Array.from(tokens, (_, index) => (index % length > 3 ? 1 : 0)),
    segments: new Int32Array(tokens.length),
    labels: Int32Array.from({ length: rows }, (_, row) => (odd(row, 1) > odd(row, 4) ? 1 : 0)),
    weights: new Float32Array(rows).fill(1),
  };
}

/** Nothing but the head of a task. */
const headOnly = defineMethod({
  ...{ id: "head-only", title: "Head only", paper: "", year: 2020, summary: "Trains a task's head." },
  fills: [],
  reduces: [],
  config: z.strictObject({}),
  resolve: (config) => ({ id: "head-only", config, claims: [], slots: {}, learningRate: 1e-3, adapters: [] }),
});

describe("on an encoder", () => {
  const model = fromHuggingFaceConfig({
    model_type: "bert",
    architectures: ["BertForSequenceClassification"],
    ...{ vocab_size: 8, hidden_size: 16, intermediate_size: 32, num_attention_heads: 2, num_hidden_layers: 4 },
    ...{ max_position_embeddings: 8, type_vocab_size: 2, num_labels: 2 },
  });

  async function finalLoss(selection: readonly MethodSelection[], methods?: ComposedMethods): Promise<number> {
    const session = { batch: 32, length: 7, segments: false, ...(methods === undefined ? {} : { methods }) };
    const opened = await openSession(trainingOptions({ selection, model, session }));
    try {
      await opened.load(randomWeights(model));
      for (let step = 0; step < 100; step++) await opened.step([pairs(step, 32)], { rate: 0.01, step });
      const { lossSum, weightSum } = await opened.evaluate(pairs(9999, 32));
      return lossSum / weightSum;
    } finally {
      opened.close();
    }
  }

  test("learns as the same network does by ordinary differentiation, and more than the head alone", async () => {
    const settings = { adapter_bottleneck_dim: 16 };
    const reversible = await finalLoss([meft(settings)]);
    const plain = await finalLoss([meft({ ...settings, num_rev_layers: 0 })]);
    expect(Math.abs(reversible / plain - 1)).toBeLessThan(0.05);
    const head = composeMethods([{ id: "head-only", settings: {} }], model, [headOnly]);
    expect(reversible).toBeLessThan(0.5 * (await finalLoss([meft()], head)));
  });
});

describe("a run", () => {
  let folder = "";
  const place = (name: string): string => join(folder, name);
  const config = (flags: Record<string, unknown>): RunConfig => {
    const base = { model: place("model"), data: `tokens:${place("ids.u16")}`, batch: 2, seq: 16, lr: 0.01, threads: 2 };
    return resolveConfig({ flags: { ...base, ...flags } });
  };

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "thimble-meft-"));
    await writeTinyModel(place("model"));
    await writeTokens(place("ids.u16"), 2000, 420);
  });
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  test.each([
    ["meft", ["meft"], ["meft.f_arch=attn", "meft.adapter_bottleneck_dim=4"]],
    ["exact meft with LoRA", ["meft", "lora"], ["meft.inner_adapters=false", "meft.mode=exact", "meft.f_arch=attn"]],
  ])(
    "with %s comes back from its folder bit for bit, and is neither merged nor given to PEFT",
    async (name, method, set) => {
      const out = place(name);
      const data = { holdout: 0.2 };
      const losses: number[] = [];
      await train(config({ ...data, method, set, steps: 3, evalEvery: 3, out }), {
        onEvaluate: ({ loss }) => losses.push(loss),
      });
      const summary = await evaluate(config({ ...data, adapter: out }), { compare: true });
      expect(summary.loss).toBe(losses.at(-1));
      expect(Math.abs(must(summary.before, "before").loss - summary.loss)).toBeGreaterThan(1e-4);
      const generator = await TextGenerator.open(config({ adapter: out }), { context: 24 });
      try {
        const greedy = { maxTokens: 4, temperature: 0, topP: 1, stop: [], seed: 0 };
        expect((await generator.generate("Once", greedy)).ids).toHaveLength(4);
      } finally {
        generator.close();
      }
      const merged = exportModel(config({ adapter: out }), { format: "safetensors", out: place("merged") });
      await expect(merged).rejects.toMatchObject({ code: "export-merge" });
      const peft = exportModel(config({ adapter: out }), { format: "peft", out: place("peft") });
      await expect(peft).rejects.toMatchObject({ code: "export-peft" });
    },
  );
});

test.each([
  ["layer", "f32"],
  ["adapter", "f32"],
  ["attn", "f32"],
  ["layer", "bf16"],
] as const)("compiled layers of variant %s in %s come back bit for bit in mode exact", async (f_arch, dtype) => {
  const sizes = { hidden_size: 48, intermediate_size: 80, num_attention_heads: 3, num_hidden_layers: 4 };
  const step = new GradientStep(tinyLlama(sizes), [meft({ f_arch, mode: "exact", fraction_bits: 22 })], {
    adapters: 5,
    dtype,
  });
  const segment = must(step.segments[0], "segment");
  const [x1, x2] = inverted([result(segment, 0), result(segment, 1)]);
  const { graph, loss, gradients } = step;
  const streams = { loss, x1, x2, start: must(segment.inputs[2], "start") };
  // With all gradients, so that the streams are made as in training.
  const outputs = { ...streams, ...Object.fromEntries(gradients.map((node, index) => [`gradient${index}`, node])) };
  const phases = [{ assignments: [], outputs }];
  const made = await runCompiled({ name: "train", graph, phases, loss, gradients }, step.values);
  const start = [...must(made.get("start"), "start").data].map((value) => Math.floor(value * 2 ** 22 + 0.5) / 2 ** 22);
  for (const name of ["x1", "x2"]) expect([...must(made.get(name), name).data]).toEqual(start);
});

test.each(["segmented", "exact"])("decoding from the cache gives the logits of the whole text (%s)", async (mode) => {
  const selection = [meft({ mode })];
  const session = { train: false, evaluate: false, decode: { capacity: 24, chunk: 4 } };
  const opened = await openSession(trainingOptions({ selection, session }));
  try {
    await opened.load(randomWeights(trainedModel));
    const ids = trainingBatch(0).ids.subarray(0, 9);
    const whole = await opened.decode(ids, 0);
    let single = new Float32Array();
    for (let index = 0; index < ids.length; index++) {
      single = Float32Array.from(await opened.decode(ids.subarray(index, index + 1), index));
    }
    expect(relativeDifference(single, whole)).toBeLessThan(1e-4);
  } finally {
    opened.close();
  }
});
