import { describe, expect, test } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import { must } from "../../errors.js";
import { weightOf } from "../../models/parameters.js";
import { cast, multiply } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import { expand, reduceSum, reshape } from "../../ops/layout.js";
import { leaf } from "../../ops/leaves.js";
import { Graph } from "../../ir/node.js";
import { tensor } from "../../ir/tensor.js";
import { openSession, planOnly } from "../../session/open.js";
import { evaluate } from "../../targets/interpret/evaluate.js";
import { noise } from "../../testing/c/loops.js";
import { largestDifference, MethodBench } from "../../testing/method-bench.js";
import {
  checkTrainingBattery,
  randomWeights,
  runTraining,
  trainedModel,
  trainingBatch,
  trainingOptions,
} from "../../testing/method-training.js";
import { tinyLlama } from "../../testing/tiny.js";
import type { WeightSource } from "../../io/weight-source.js";
import { storageFormat } from "../../storage/registry.js";
import type { MethodSelection } from "../compose.js";
import { composeMethods } from "../compose.js";
import { drawUniform } from "../initial.js";
import type { SessionBatch } from "../../session/types.js";
import { dequantise, errorOf, findRange, quantise } from "../../storage/uniform.js";
import { tensorsOfTask, taskOf } from "./task.js";

const model = tinyLlama({ hidden_size: 16, intermediate_size: 24, num_attention_heads: 2, num_key_value_heads: 1 });
const peqa = (settings: Record<string, unknown> = {}) => ({ id: "peqa", settings });
const kinds = [
  ["a scale an output", {}],
  ["groups of 8, three bits", { group_size: 8, bits: 3 }],
] as const;

checkTrainingBattery({ title: "PEQA", selection: [peqa()] });
checkTrainingBattery({
  title: "PEQA in groups, three bits",
  selection: [peqa({ group_size: 16, bits: 3 })],
  variants: { "one batch a step": {}, "in bf16": { dtype: "bf16" } },
});
checkTrainingBattery({
  title: "PEQA with rows of whole blocks",
  selection: [peqa()],
  model: tinyLlama({ hidden_size: 64, intermediate_size: 96, num_attention_heads: 2, num_key_value_heads: 1 }),
  variants: { "one batch a step": {} },
});
checkTrainingBattery({
  title: "MeZO on PEQA's scales",
  selection: [peqa({ bits: 8 }), { id: "mezo", settings: {} }],
  optimizer: { id: "sgd" },
  // A difference of two losses, divided by the length of the step.
  tolerance: 3e-4,
  variants: { "one batch a step": {} },
  // A small step against the gradient along one direction.
  steps: 8,
});
checkTrainingBattery({
  title: "LoRA over PEQA",
  selection: [peqa(), { id: "lora", settings: { r: 4 } }],
  variants: { "one batch a step": {} },
});

describe("PEQA's quantisation", () => {
  test.each([2, 3, 4, 8])("of %i bits is never worse than the plain range, and mostly better", (bits) => {
    let better = 0;
    for (let row = 0; row < 40; row++) {
      const values = Float32Array.from(noise(64, row), (value) => value * (row % 7 === 0 ? 0.01 : 1) + (row % 3));
      for (const symmetric of [false, true]) {
        const settings = { bits, symmetric };
        const found = errorOf(values, findRange(values, settings), bits);
        const plain = errorOf(values, findRange(values, settings, 1), bits);
        expect(found).toBeLessThanOrEqual(plain);
        if (found < plain) better++;
      }
    }
    // With 256 codes there is little to gain.
    expect(better).toBeGreaterThan(bits === 8 ? 0 : 30);
  });

  test("gives integers in the range of their zero point, and 1 for a group of zeros", () => {
    const values = Float32Array.from([
      ...noise(32, 3),
      ...new Array<number>(32).fill(0),
      ...noise(32, 4).map(Math.abs),
    ]);
    const { integers, scales } = quantise(values, 32, { bits: 4, symmetric: false });
    expect(scales[1]).toBe(1);
    expect(integers.subarray(32, 64).every((value) => value === 0)).toBe(true);
    for (const start of [0, 32, 64]) {
      const group = integers.subarray(start, start + 32);
      expect(group.every(Number.isInteger)).toBe(true);
      expect(Math.max(0, ...group) - Math.min(0, ...group)).toBeLessThanOrEqual(15);
    }
    expect(Math.min(...integers.subarray(64))).toBe(0);
    expect(largestDifference(dequantise(integers, scales), values)).toBeLessThan(0.3);
  });
});

describe.each(kinds)("PEQA with %s", (_title, settings) => {
  test("starts as the quantised model, and merges to it", async () => {
    const bench = await MethodBench.create(model, [peqa(settings)]);
    const original = await MethodBench.create(model, [{ id: "full", settings: {} }]);
    const merge = (): Map<string, Float32Array> => {
      const merged = new Map(bench.values);
      for (const spec of model.linears.filter(({ role }) => role !== "head")) {
        const { name } = weightOf(spec);
        merged.set(name, bench.composed.merge(spec, must(bench.values.get(name), name), bench.values));
      }
      return merged;
    };
    const spec = must(model.linears[0], "layer");
    const { name } = weightOf(spec);
    const group = settings === kinds[0][1] ? spec.inputs : 8;
    const bits = group === 8 ? 3 : 4;
    const { integers, scales } = quantise(must(original.values.get(name), name), group, { bits, symmetric: false });
    expect(merge().get(name)).toEqual(dequantise(integers, scales));
    for (const trained of [false, true]) {
      if (trained) bench.scramble();
      const plain = await MethodBench.create(model, [{ id: "full", settings: {} }], { weights: merge() });
      const [made, expected] = [bench.run([bench.logits], "f64")[0], plain.run([plain.logits], "f64")[0]];
      expect(largestDifference(must(made, "made").data, must(expected, "expected").data)).toBeLessThan(1e-5);
    }
  });

  test("has the gradients of finite differences", async () => {
    const bench = await MethodBench.create(model, [peqa(settings)]);
    // Integers multiply the step of the differences, and their error by its square.
    expect(bench.scramble(0.05).gradientError()).toBeLessThan(1e-3);
  });

  test("leaves integers alone, and trains scales that stay positive", async () => {
    const options = trainingOptions({ selection: [peqa({ ...settings, bits: 4 })] });
    const { tensors } = await runTraining(options, { rate: 10 });
    expect([...tensors.keys()].every((name) => name.includes("peqa_scales"))).toBe(true);
    const scales = [...tensors].filter(([name]) => name.endsWith("peqa_scales"));
    expect(scales).toHaveLength(14);
    const all = scales.flatMap(([, bytes]) => [...new Float32Array(bytes.slice().buffer)]);
    expect(Math.min(...all)).toBe(Math.fround(1e-8));
  });
});

test.each([32, 64])("gradients equal those of the dense weight s (u - z), groups of %i", (group) => {
  const graph = new Graph();
  const input = (name: string, shape: number[]) => leaf(graph, { name, role: "input", shape, dtype: "f32" });
  const [x, integers, scales, weight, dy] = [
    input("x", [5, 64]),
    input("integers", [12, 64]),
    input("scales", [12, 64 / group]),
    input("weight", [12, 64]),
    input("dy", [5, 12]),
  ] as const;
  const spread = reshape(expand(reshape(scales, [12, 64 / group, 1]), [12, 64 / group, group]), [12, 64]);
  const form =
    group === 64
      ? multiply(dot(x, integers, { transposeB: true }), reshape(scales, [1, 12]))
      : dot(x, multiply(integers, spread), { transposeB: true });
  const total = (y: typeof form) => reshape(reduceSum(multiply(cast(y, "f32"), dy), [0, 1]), []);
  const made = gradients(total(form), [x, scales]);
  const dense = gradients(total(dot(x, weight, { transposeB: true })), [x, weight]);
  const quantised = quantise(Float32Array.from(noise(12 * 64, 5)), group, { bits: 4, symmetric: false });
  const bound = new Map([
    [x, tensor(x.shape, noise(5 * 64, 6))],
    [dy, tensor(dy.shape, noise(5 * 12, 7))],
    [integers, tensor(integers.shape, quantised.integers)],
    [scales, tensor(scales.shape, quantised.scales)],
    [weight, tensor(weight.shape, dequantise(quantised.integers, quantised.scales))],
  ]);
  const [dx, ds, denseX, denseW] = evaluate([...made, ...dense], bound).map(({ data }) => data);
  expect(largestDifference(dx!, denseX!)).toBeLessThan(1e-4);
  const expected = Array.from({ length: ds!.length }, (_, place) => {
    let sum = 0;
    for (let index = 0; index < group; index++)
      sum += denseW![place * group + index]! * quantised.integers[place * group + index]!;
    return sum;
  });
  const scale = Math.max(...expected.map(Math.abs));
  expect(largestDifference(ds!, expected) / scale).toBeLessThan(1e-5);
});

test("tasks are switched by their scales alone, and refused on other integers", async () => {
  const bench = await MethodBench.create(model, [peqa()]);
  const targets = bench.composed.adapters.map(({ name }) => {
    const path = name.replace(".peqa_scales", "");
    return {
      path,
      group: must(
        model.linears.find((spec) => spec.path === path),
        path,
      ).inputs,
      scales: name,
    };
  });
  const integers = (path: string): Float32Array => must(bench.values.get(`${path}.weight`), path);
  const logits = (): ArrayLike<number> => must(bench.run([bench.logits])[0], "logits").data;
  const first = taskOf(targets, bench.values, integers);
  const before = logits();
  bench.scramble();
  const second = taskOf(targets, bench.values, integers);
  const between = logits();
  const use = (task: typeof first): void => {
    for (const [name, values] of tensorsOfTask(targets, task, integers)) bench.values.set(name, values);
  };
  use(first);
  expect(logits()).toEqual(before);
  use(second);
  expect(logits()).toEqual(between);
  use(first);
  expect(logits()).toEqual(before);
  integers(targets[0]!.path)[3]! += 1;
  expect(() => tensorsOfTask(targets, first, integers)).toThrow(expect.objectContaining({ code: "peqa-task" }));
});

test("a layer of 4096 x 4096 takes the page's share of full AdamW's and LoRA's memory", () => {
  const wide = tinyLlama({
    hidden_size: 4096,
    intermediate_size: 4096,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    num_hidden_layers: 1,
    vocab_size: 64,
  });
  const plan = planOnly(trainingOptions({ selection: [peqa()], model: wide, session: { evaluate: false } }));
  const path = "model.layers.0.self_attn.q_proj";
  const scales = must(
    composeMethods([peqa()], wide).adapters.find(({ name }) => name.startsWith(path)),
    "scales",
  );
  expect(scales.shape).toEqual([4096, 1]);
  const coded = planOnly(
    trainingOptions({ selection: [peqa()], model: wide, optimizer: { states: "8bit" }, session: { evaluate: false } }),
  );
  expect(coded.leaves.get(`${scales.name}.adamw.mean`)?.dtype).toBe("u8");
  const kept = [...plan.layout.buffers].filter(([name]) => name.startsWith(path));
  const bytes = kept.reduce((sum, [, buffer]) => sum + buffer.bytes, 0) + 4 * 4096;
  expect(bytes / (16 * 4096 * 4096)).toBeLessThanOrEqual(0.033);
  expect(bytes / (2 * 4096 * 4096 + 16 * 16 * 8192)).toBeLessThanOrEqual(0.25);
});

test("refuses what its page does", () => {
  const compose = (settings: Record<string, unknown>) => () => composeMethods([peqa(settings)], trainedModel);
  for (const bits of [1, 5, 9]) expect(compose({ bits })).toThrow(expect.objectContaining({ code: "settings" }));
  for (const size of [7, 12, 32, 0]) {
    expect(compose({ group_size: size })).toThrow(expect.objectContaining({ code: "peqa-group" }));
  }
  const decayed = (settings: Record<string, unknown>) => () =>
    planOnly(trainingOptions({ selection: [peqa(settings)], optimizer: { weight_decay: 0.1 } }));
  expect(decayed({})).toThrow(expect.objectContaining({ code: "peqa-decay" }));
  expect(decayed({ decay_scales: true })).not.toThrow();
  expect(composeMethods([peqa()], trainedModel).peft).toBeUndefined();
  const lora = { id: "lora", settings: {} };
  const ids = composeMethods([lora, peqa()], trainedModel).methods.map(({ id }) => id);
  expect(ids).toEqual(["peqa", "lora"]);
  for (const other of [
    { id: "full", settings: {} },
    { id: "qlora", settings: {} },
    { id: "lora", settings: { dora: true } },
    { id: "lora", settings: { init: "pissa" } },
  ]) {
    expect(() => composeMethods([peqa(), other], trainedModel), JSON.stringify(other)).toThrow(
      expect.objectContaining({ code: "methods-conflict" }),
    );
  }
});

describe("a trained model", () => {
  const steps = 40;
  /** A third of the labels are noise: no model gets below a loss of about 1.7. */
  const noisyBatch = (step: number): SessionBatch => {
    const batch = trainingBatch(step);
    const drawn = drawUniform(5, `batch ${step}`, 2 * batch.labels.length);
    const labels = batch.labels.map((label, index) =>
      (drawn[index] ?? 0) < 1 / 3 ? Math.floor((drawn[index + batch.labels.length] ?? 0) * 67) : label,
    );
    return { ...batch, labels };
  };

  interface Tuning {
    readonly batch: (step: number) => SessionBatch;
    readonly rate: number;
    /** Batches that are trained on, and those whose mean loss counts. */
    readonly train: readonly [from: number, to: number];
    readonly test: readonly [from: number, to: number];
  }

  async function tune(selection: readonly MethodSelection[], weights: WeightSource, { batch, rate, ...data }: Tuning) {
    const session = await openSession(trainingOptions({ selection }), {});
    try {
      await session.load(weights);
      const [from, to] = data.train;
      for (let step = from; step < to; step++) await session.step([batch(step)], { rate, step: step - from });
      let [sum, total] = [0, 0];
      for (let step = data.test[0]; step < data.test[1]; step++) {
        const { lossSum, weightSum } = await session.evaluate(batch(step));
        [sum, total] = [sum + lossSum, total + weightSum];
      }
      const changing = session.tensors.filter(({ changes }) => changes).map(({ name }) => name);
      return { loss: sum / total, tensors: new Map(changing.map((name) => [name, session.bytes(name).slice()])) };
    } finally {
      session.close();
    }
  }

  const heldIn = (tensors: ReadonlyMap<string, Uint8Array>): WeightSource => ({
    ...randomWeights(trainedModel),
    readInto: (name, target, format) => {
      const values = new Float32Array(must(tensors.get(name), name).slice().buffer);
      target.set(must(storageFormat(format).encode, format)(values));
      return Promise.resolve();
    },
  });

  const full = [{ id: "full", settings: {} }];
  const start = randomWeights(trainedModel);

  test("regains at three bits half of what rounding loses", async () => {
    const data = { batch: (step: number) => trainingBatch(step % 4), train: [0, steps], test: [0, 4] } as const;
    const trained = await tune(full, start, { ...data, rate: 0.003 });
    const weights = heldIn(trained.tensors);
    const rounded = await tune([peqa({ bits: 3 })], weights, { ...data, rate: 0, train: [0, 1] });
    const tuned = await tune([peqa({ bits: 3 })], weights, { ...data, rate: 1e-3 });
    expect(rounded.loss).toBeGreaterThan(trained.loss * 1.2);
    expect(rounded.loss - tuned.loss).toBeGreaterThan(0.5 * (rounded.loss - trained.loss));
  });

  test("ends at four bits within 5 % of LoRA on the float model", async () => {
    const data = { batch: noisyBatch, train: [1000, 1000 + steps], test: [10_000, 10_020] } as const;
    const trained = await tune(full, start, { ...data, rate: 0.003, train: [0, 200] });
    const weights = heldIn(trained.tensors);
    const four = await tune([peqa()], weights, { ...data, rate: 1e-3 });
    const lora = await tune([{ id: "lora", settings: { r: 8 } }], weights, { ...data, rate: 2e-4 });
    expect(four.loss / lora.loss).toBeLessThan(1.05);
    expect(four.loss).toBeLessThan(3);
  });
});
