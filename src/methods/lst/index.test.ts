import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import { must } from "../../errors.js";
import { readAdapter, writeAdapterFolder } from "../../io/adapter.js";
import { elements } from "../../ir/shape.js";
import { fromHuggingFaceConfig } from "../../models/registry.js";
import type { ModelDefinition } from "../../models/types.js";
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
import { composeMethods } from "../compose.js";

const lst = (settings: Record<string, unknown> = {}) => ({ id: "lst", settings: { r: 2, ...settings } });

checkTrainingBattery({
  title: "LST",
  selection: [lst({ side_layers: "all", dropout: 0.1 })],
});

const model = tinyLlama({ num_hidden_layers: 3, num_attention_heads: 2, hidden_size: 16, vocab_size: 33 });
const small = tinyLlama({ hidden_size: 8, intermediate_size: 12 });
const gpt = fromHuggingFaceConfig({
  ...{ model_type: "gpt2", architectures: ["GPT2LMHeadModel"], vocab_size: 33, n_embd: 8, n_layer: 2, n_head: 2 },
  ...{ n_positions: 64, layer_norm_epsilon: 1e-5, activation_function: "gelu_new" },
});

const compose = (settings: Record<string, unknown>) => composeMethods([lst(settings)], model);

describe("the side network", () => {
  test.each<[string, ModelDefinition, Record<string, unknown>]>([
    ["learned gates and dropout", small, { side_layers: "all", dropout: 0.3 }],
    ["a gate behind the block, merged with the model", small, { add_residual_after: true, merge_last: true }],
    ["sums", small, { gate: "none" }],
    ["no ladders", small, { gate: "one" }],
    ["gpt2", gpt, { gate_alpha: 0.05 }],
    ["heads of one element, which no position turns", small, { r: 4, gate: "none" }],
  ])("has the gradients of finite differences: %s", async (_name, definition, settings) => {
    const bench = (await MethodBench.create(definition, [lst(settings)], { training: true })).scramble();
    // A gate's own gradient is small where it is nearly shut, and differences of losses are rounded.
    expect(bench.gradientError()).toBeLessThan(definition === gpt || "gate" in settings ? 1e-5 : 1e-4);
  });

  test("gives no tensor of the model a gradient, and asking for one changes nothing", async () => {
    const bench = (await MethodBench.create(model, [lst({ merge_last: true })], { training: true })).scramble();
    const [own, base] = [bench.trainedLeaves(), [...bench.base.values()]];
    const alone = bench.run(gradients(bench.loss, own));
    const both = bench.run(gradients(bench.loss, [...own, ...base]));
    expect(both.slice(0, own.length)).toEqual(alone);
    for (const { data } of both.slice(own.length)) expect(data.every((value) => value === 0)).toBe(true);
    expect(alone.filter(({ data }) => data.some((value) => value !== 0)).length).toBe(own.length);
  });

  test("of full width, reading the last block alone, is the model", async () => {
    const settings = { r: 1, side_layers: "all", gate_alpha: -1000 };
    const bench = await MethodBench.create(model, [lst(settings)]);
    for (const { name, shape } of bench.composed.adapters) {
      const values = must(bench.values.get(name), name);
      if (/(ladder|up)\.weight$/.test(name))
        values.forEach((_, at) => (values[at] = at % (shape[0]! + 1) === 0 ? 1 : 0));
      // Side blocks that add nothing: their outputs and those of their MLPs are zero.
      if (/(o_proj|down_proj)\.weight$/.test(name)) values.fill(0);
    }
    const [side, plain] = bench.run([bench.hidden, bench.plain]);
    expect(largestDifference(must(side, "side").data, must(plain, "plain").data)).toBeLessThan(1e-6);
  });

  test("starts as what pruning leaves of the model, or as noise", async () => {
    const whole = await MethodBench.create(model, [lst({ r: 1, side_layers: [1] })]);
    for (const { name, shape } of model.parameters.filter(({ block }) => block === 1)) {
      const own = whole.values.get(name.replace("model.", "side."));
      expect(own, name).toEqual(whole.values.get(name));
      expect(own?.length).toBe(elements(shape));
    }
    const noise = await MethodBench.create(model, [lst({ r: 1, init: "random" })]);
    const name = "layers.1.self_attn.q_proj.weight";
    expect(noise.values.get(`side.${name}`)).not.toEqual(noise.values.get(`model.${name}`));
    expect(noise.values.get("side.norm.weight")).toEqual(noise.values.get("model.norm.weight"));
  });

  test("has a block, a ladder and a gate for the chosen blocks alone", () => {
    const names = compose({ side_layers: [2] }).adapters.map(({ name }) => name);
    expect(names.filter((name) => name.includes("layers."))).toSatisfy((found: string[]) =>
      found.every((name) => name.startsWith("side.layers.2.")),
    );
    expect(names).toContain("side.layers.2.gate");
    const linears = ["ladder", "self_attn.q_proj", "mlp.down_proj"];
    for (const linear of linears) expect(names).toContain(`side.layers.2.${linear}.weight`);
    const layers = (blocks: number): unknown =>
      composeMethods([lst()], tinyLlama({ num_hidden_layers: blocks }))
        .adapters.filter(({ name }) => name.endsWith(".gate"))
        .map(({ block }) => block);
    expect(layers(12)).toEqual([1, 2, 3, 5, 6, 7, 9, 10, 11]);
    expect(layers(24)).toEqual([1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]);
    expect(layers(1)).toEqual([0]);
  });

  test("blocks behind the last that is read are not run, nor held", () => {
    const options = trainingOptions({ selection: [lst({ side_layers: [0] })], model: trainedModel });
    const names = [...planOnly(options).leaves.keys()];
    expect(names.some((name) => name.startsWith("model.layers.0."))).toBe(true);
    expect(names.some((name) => name.startsWith("model.layers.1."))).toBe(false);
    expect(names).not.toContain("model.norm.weight");
  });

  test("an adapter that was saved and read computes the same bits", async () => {
    const selection = lst({ side_layers: [0, 2], merge_last: true, gate_alpha: 0.1 });
    const bench = (await MethodBench.create(model, [selection])).scramble();
    const folder = await mkdtemp(join(tmpdir(), "thimble-side-"));
    try {
      const parts = bench.composed.adapters.map(({ name, shape }) => {
        return { name, shape, data: must(bench.values.get(name), name) };
      });
      await writeAdapterFolder(folder, [selection], parts);
      const { selections, tensors } = await readAdapter(folder, model);
      const again = await MethodBench.create(model, selections);
      for (const [name, values] of tensors) again.values.set(name, values);
      expect(again.run([again.logits])).toEqual(bench.run([bench.logits]));
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test("decodes with a cache of its own: as the whole text at once, and in parts", async () => {
    const settings = { side_layers: [0, 1], merge_last: true };
    const decoding = (chunk: number) =>
      trainingOptions({
        selection: [lst(settings)],
        session: { train: false, evaluate: false, decode: { capacity: 16, chunk } },
      });
    const ids = Int32Array.of(5, 9, 2, 30, 11, 4, 8);
    const logits = async (chunk: number, parts: readonly Int32Array[]): Promise<Float32Array> => {
      const session = await openSession(decoding(chunk), { poison: true });
      try {
        await session.load(randomWeights(trainedModel));
        let [at, last] = [0, new Float32Array(0)];
        for (const part of parts) {
          last = (await session.decode(part, at)) as Float32Array<ArrayBuffer>;
          at += part.length;
        }
        return last;
      } finally {
        session.close();
      }
    };
    const whole = await logits(7, [ids]);
    const single = await logits(
      1,
      Array.from(ids, (id) => Int32Array.of(id)),
    );
    expect(largestDifference(single, whole)).toBeLessThan(1e-4);
    expect(Math.max(...whole.map(Math.abs))).toBeGreaterThan(0.01);
  });
});

describe("beside other methods", () => {
  const options = (more: readonly { id: string; settings: Record<string, unknown> }[], session = {}) =>
    trainingOptions({ selection: [lst(), ...more], session });

  test.each<[string, ReturnType<typeof options>]>([
    ["a packed base", options([{ id: "qlora", settings: { adapter: false, blocksize: 32 } }])],
    ["a base that is streamed from disk", options([], { place: { disk: () => true } })],
    ["a base that is streamed, in bf16", options([], { place: { disk: () => true }, dtype: "bf16" })],
    ["a choice of rows", options([{ id: "colm", settings: {} }])],
    ["states of eight bits", trainingOptions({ selection: [lst()], optimizer: { id: "adamw", states: "8bit" } })],
  ])("trains with %s", async (_name, one) => {
    const outcome = await runTraining(one, { to: 2, poison: true });
    expect(outcome.arenaBytes).toBe(outcome.planBytes);
    expect(outcome.losses.every(Number.isFinite)).toBe(true);
  });

  test("a base that is streamed gives the same bits", async () => {
    const [held, streamed] = await Promise.all([
      runTraining(options([]), { to: 2 }),
      runTraining(options([], { place: { disk: () => true } }), { to: 2 }),
    ]);
    expect(streamed.losses).toEqual(held.losses);
    expect(streamed.tensors).toEqual(held.tensors);
  });

  test.each(["lora", "paca", "full", "lisa", "wta-crs", "peqa", "meft", "coat"])("refuses %s in words", (id) => {
    expect(() => composeMethods([lst(), { id, settings: {} }], trainedModel)).toThrow(
      expect.objectContaining({ code: "methods-conflict" }),
    );
  });

  test.each([
    [{ r: 3 }, "narrow-width", "lst.r"],
    [{ r: 16 }, "narrow-width", "lst.r"],
    [{ r: 0 }, "settings", "lst.r"],
    [{ side_layers: [] }, "lst-layers", "lst.side_layers"],
    [{ side_layers: [3] }, "lst-layers", "lst.side_layers"],
    [{ side_layers: [1, 1] }, "lst-layers", "lst.side_layers"],
    [{ gate_temperature: 0 }, "settings", "lst.gate_temperature"],
  ])("refuses %j", (settings, code, where) => {
    expect(() => compose(settings)).toThrow(expect.objectContaining({ code, where }));
  });

  test("cannot be merged, nor written for PEFT", () => {
    const composed = compose({});
    const spec = must(model.linears[0], "layer");
    expect(() => composed.merge(spec, new Float32Array(1), new Map())).toThrow(
      expect.objectContaining({ code: "lst-merge" }),
    );
    expect(composed.peft).toBeUndefined();
  });
});
