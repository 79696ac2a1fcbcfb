import { describe, expect, test } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import { must } from "../../errors.js";
import { sizeOf } from "../../ir/dtype.js";
import type { Node } from "../../ir/node.js";
import { Graph } from "../../ir/node.js";
import { elements } from "../../ir/shape.js";
import { tensor } from "../../ir/tensor.js";
import { plainContext } from "../../models/context.js";
import { gatedMlp, rmsNorm } from "../../models/layers.js";
import type { LinearSpec, Place } from "../../models/types.js";
import { multiply } from "../../ops/arithmetic.js";
import { reduceSum, reshape } from "../../ops/layout.js";
import { leaf, leafOp } from "../../ops/leaves.js";
import { straightThrough } from "../../ops/quantise.js";
import { makeOptimizer } from "../../optim/registry.js";
import { formKernels } from "../../passes/pipeline.js";
import { blockOf, forwardValues, policyValues } from "../../passes/saved.js";
import { planOnly } from "../../session/open.js";
import { buildTraining } from "../../step/build.js";
import { evaluate } from "../../targets/interpret/evaluate.js";
import { checkMethodBattery } from "../../testing/methods.js";
import { runTraining, trainedModel, trainingOptions } from "../../testing/method-training.js";
import { tinyLlama } from "../../testing/tiny.js";
import type { MethodSelection } from "../compose.js";
import { composeMethods } from "../compose.js";
import { drawNormal } from "../initial.js";
import { float8Quantisers, represented } from "./flow.js";
import type { Quantisers } from "./flow.js";

const [tokens, width, hidden] = [64, 64, 96];

const spec = (role: "gate" | "up" | "down", inputs: number, outputs: number): LinearSpec => ({
  path: role,
  role,
  block: 0,
  inputs,
  outputs,
  bias: false,
  transposed: false,
});

/** The MLP part of a block on Gaussian numbers: its output, and the gradients by its input, its norm and its weights. */
function mlpPart(quantisers: Quantisers | undefined): readonly (readonly number[])[] {
  const graph = new Graph();
  const context = plainContext({ graph, batch: 1, length: tokens, activation: "f32" });
  const represent = (place: Place, x: Node): Node => (quantisers === undefined ? x : represented(quantisers, place, x));
  const own: typeof context = {
    ...context,
    represent,
    linear: (linear, x) =>
      represent({ role: "output", linear }, context.linear(linear, represent({ role: "input", linear }, x))),
  };
  // The plain product reads its weight through the context that it is called with.
  Object.assign(context, { represent });
  const x = leaf(graph, { name: "x", role: "input", shape: [tokens, width], dtype: "f32" });
  const gain = leaf(graph, { name: "gain", role: "weight", shape: [width], dtype: "f32" });
  const above = leaf(graph, { name: "above", role: "input", shape: [tokens, width], dtype: "f32" });
  const specs = [spec("gate", width, hidden), spec("up", width, hidden), spec("down", hidden, width)] as const;
  const [gate, up, down] = specs;
  const z = rmsNorm(represent({ role: "norm", block: 0 }, x), gain, 1e-5);
  const y = gatedMlp(own, { gate, up, down, activation: "silu" }, z);
  const loss = reshape(reduceSum(multiply(y, above), [0, 1]), []);
  const leaves = [x, gain, ...specs.map(({ path }) => must(context.leaves.get(`${path}.weight`), path))];
  const bound = new Map(
    [...leaves, above].map((node, index) => {
      const count = node.shape.reduce((a, b) => a * b, 1);
      const deviation = index > 1 && index < 5 ? 1 / Math.sqrt(node.shape[1] ?? 1) : 1;
      const values = [...drawNormal(index + 1, "values", count)].map((value) =>
        node === gain ? 1 + 0.1 * value : value * deviation,
      );
      return [node, tensor(node.shape, values)] as const;
    }),
  );
  return evaluate([y, ...gradients(loss, leaves)], bound, "f64").map(({ data }) => [...data]);
}

const error = (given: readonly number[], wanted: readonly number[]): number =>
  Math.hypot(...given.map((value, at) => value - wanted[at]!)) / Math.hypot(...wanted);

describe("the FP8 flow of an MLP part", () => {
  const plain = mlpPart(undefined);

  test("is the plain one where quantisers are the identity", () => {
    const through = (x: Node): Node => straightThrough(x, [x]);
    const same = { group: through, tensor: through, remade: through, weight: through, output: through };
    mlpPart(same).forEach((made, at) => {
      expect(error(made, plain[at]!)).toBeLessThan(1e-5);
    });
  });

  test("is off by less than 15 % in outputs and gradients, on Gaussian numbers", () => {
    const formats = { inputs: "e4m3", weights: "e4m3", outputs: "e4m3", gradients: "e5m2" } as const;
    const errors = mlpPart(float8Quantisers({ group: 16, formats })).map((made, at) => error(made, plain[at]!));
    for (const one of errors) {
      expect(one).toBeLessThan(0.15);
      expect(one).toBeGreaterThan(0.01);
    }
  });
});

const coat = (settings: Record<string, unknown> = {}): MethodSelection => ({ id: "coat", settings });
const full = { id: "full", settings: {} };
const lora = { id: "lora", settings: { r: 4 } };

checkMethodBattery({ title: "COAT's states", selection: coat({ activations: false }) });

/** A Llama of three blocks, with an MLP of 8/3 of its width and as many key heads as heads. */
const shaped = tinyLlama({
  hidden_size: 192,
  intermediate_size: 512,
  num_attention_heads: 3,
  num_key_value_heads: 3,
  num_hidden_layers: 3,
  vocab_size: 256,
  max_position_embeddings: 512,
});
const [rows, wide, inner] = [1024, 192, 512];
/** Bytes of the hidden states in bf16. */
const unit = 2 * rows * wide;

/** Bytes of the middle block that are kept for backward. */
function savedBytes(selection: readonly MethodSelection[], policy: "all" | "cheap" = "all"): number {
  const session = { dtype: "bf16", length: 512, segments: false } as const;
  const { programs } = buildTraining({ ...trainingOptions({ model: shaped, selection, session }), activation: "bf16" });
  const { program, kernels } = formKernels(must(programs[0], "program"), undefined);
  const values = must(forwardValues(program, kernels), "values");
  const recomputed = policyValues(values, policy);
  return [...values.read]
    .filter((node) => blockOf(node) === "blocks.1" && !recomputed.has(node))
    .reduce((sum, node) => sum + elements(node.shape) * sizeOf(node.dtype), 0);
}

describe("what backward keeps of a block", () => {
  const scales = 1 + 2 / 16;
  /** Two norms' inputs; gate, up and the activation; of linear layers z twice, u, and attention's output in bf16; q, k, v. */
  const formula = 2 * rows * wide * scales + 3 * rows * inner * scales + rows * (2 * wide + inner) + unit + 3 * unit;

  test("is the bytes of the formula, scales included", () => {
    expect(savedBytes([full, coat()]) / formula).toBeGreaterThan(1);
    expect(savedBytes([full, coat()]) / formula).toBeLessThan(1.03);
  });

  test("is 1.62 and 1.48 times less than the page's bf16 blocks, which keep what Thimble does not", () => {
    // Tables of rotary positions, of which Thimble keeps nothing for backward.
    const rotary = 2;
    const saved = savedBytes([full, coat()]) / unit + rotary;
    expect(Math.abs(22.66 / saved - 1.62)).toBeLessThan(0.03);
    expect(Math.abs(20.66 / saved - 1.48)).toBeLessThan(0.03);
  });

  test("is a third less than Thimble's own bf16 blocks, which do not keep the activation either", () => {
    expect(savedBytes([full]) / savedBytes([full, coat()])).toBeGreaterThan(1.32);
    expect(savedBytes([lora]) / savedBytes([lora, coat()])).toBeGreaterThan(1.3);
  });

  test("is what nothing else can be made from, where cheap values are made again", () => {
    // Of linear layers nothing, of the activation its scales.
    const cheap = 2 * rows * wide * scales + 2 * rows * inner * scales + (rows * inner * 2) / 16 + unit + 3 * unit;
    expect(savedBytes([full, coat()], "cheap") / cheap).toBeGreaterThan(1);
    expect(savedBytes([full, coat()], "cheap") / cheap).toBeLessThan(1.03);
  });

  test("leaves no weight, gradient or decoded value in memory but what a kernel is about to read", () => {
    const session = { dtype: "bf16", length: 512, segments: false } as const;
    const options = { ...trainingOptions({ model: shaped, selection: [full, coat()], session }), activation: "bf16" };
    const { programs } = buildTraining(options as Parameters<typeof buildTraining>[0]);
    const { kernels } = formKernels(must(programs[0], "program"), undefined);
    const products = kernels.filter((kernel) => kernel.kind === "contraction");
    const operands = products.flatMap(({ segments }) => segments.flatMap(({ a, b }) => [a, b]));
    // Codes of inputs and gradients, and weights, all made into numbers where they are packed.
    expect(operands.every(({ computed }) => computed !== undefined)).toBe(true);
    const bases = new Set(operands.map(({ node }) => (node.op === leafOp ? "weight" : node.dtype)));
    expect(bases).toEqual(new Set(["weight", "u8"]));
  });
});

describe("COAT", () => {
  const ids = (selection: readonly MethodSelection[]): string[] =>
    composeMethods(selection, trainedModel).methods.map(({ id }) => id);

  test("brings full tuning where nothing else trains, and nothing where something does", () => {
    expect(ids([coat()])).toEqual(["full", "coat"]);
    expect(ids([coat(), lora])).toEqual(["coat", "lora"]);
  });

  test("evaluates what it trained as it is, without quantisation", async () => {
    const evaluate = async (selection: readonly MethodSelection[]) =>
      (await runTraining(trainingOptions({ selection }), { to: 0 })).evaluation;
    expect(await evaluate([full, coat()])).toBe(await evaluate([full]));
  });

  test("takes steps with what it says it goes with, in the memory that was planned", async () => {
    const beside: readonly (readonly [MethodSelection, Record<string, unknown>])[] = [
      [{ id: "qlora", settings: { r: 4 } }, {}],
      [{ id: "galore", settings: { rank: 4 } }, {}],
      [{ id: "lisa", settings: { activated_layers: 1 } }, {}],
      [
        { id: "lora", settings: { r: 4, dora: true, dropout: 0.1 } },
        { statistics: "bf16", group_size: 16 },
      ],
    ];
    for (const [other, settings] of beside) {
      const options = trainingOptions({ selection: [other, coat(settings)] });
      const { losses, planBytes, arenaBytes, tensors } = await runTraining(options, { to: 2, poison: true });
      expect(arenaBytes, other.id).toBe(planBytes);
      expect(losses.every(Number.isFinite), other.id).toBe(true);
      expect([...tensors.keys()].some((name) => name.endsWith("mean_power")), other.id).toBe(true); // prettier-ignore
    }
  });

  test("refuses what it cannot do, in words", () => {
    const compose = (settings: Record<string, unknown>, beside: readonly MethodSelection[] = [full], model = trainedModel) => () => composeMethods([...beside, coat(settings)], model); // prettier-ignore
    const code = (name: string): unknown => expect.objectContaining({ code: name });
    expect(compose({ second_order_expansion: false })).toThrow(code("coat-expansion"));
    expect(compose({ first_order_expansion: false, second_order_expansion: false })).not.toThrow();
    expect(compose({ states: false, activations: false })).toThrow(code("coat-nothing"));
    for (const wrong of [{ qgroup_size: 64 }, { group_size: 24 }, { first_order_bit: "E5M2" }, { fabit: "E2M1" }]) {
      expect(compose(wrong)).toThrow(code("settings"));
    }
    expect(compose({ amsgrad: true })).toThrow(code("settings-unknown"));
    const narrow = tinyLlama({ hidden_size: 16, intermediate_size: 24 });
    expect(compose({}, [full], narrow)).toThrow(code("coat-width"));
    expect(compose({ activations: false }, [full], narrow)).not.toThrow();
    expect(compose({}, [{ id: "mezo", settings: {} }])).toThrow(code("methods-conflict"));
    expect(compose({}, [lora, { id: "wta-crs", settings: {} }])).toThrow(code("methods-conflict"));
    expect(compose({ activations: false }, [lora, { id: "wta-crs", settings: {} }])).not.toThrow();
    for (const wrong of [{ beta1: 1 }, { beta2: -0.1 }]) expect(() => makeOptimizer(wrong)).toThrow(code("settings"));
    const twice = () => planOnly(trainingOptions({ selection: [full, coat()], optimizer: { states: "8bit" } }));
    expect(twice).toThrow(code("optimizer-states"));
  });
});
