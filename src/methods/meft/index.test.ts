import { describe, expect, test } from "vitest";
import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { chained, plainContext } from "../../models/context.js";
import { add, multiply } from "../../ops/arithmetic.js";
import { result } from "../../ops/leaves.js";
import { planOnly } from "../../session/open.js";
import { batchInputs } from "../../step/inputs.js";
import { largestDifference } from "../../testing/method-bench.js";
import { checkTrainingBattery, runTraining, trainedModel, trainingOptions } from "../../testing/method-training.js";
import { deepModel, GradientStep, relativeNorm } from "../../testing/reversible.js";
import { tinyLlama } from "../../testing/tiny.js";
import { makeOptimizer } from "../../optim/registry.js";
import type { MethodSelection } from "../compose.js";
import { composeMethods } from "../compose.js";
import { meftConfig, settledMeft } from "./config.js";
import { predictedError, segmentLengths } from "./segments.js";

const meft = (settings: Record<string, unknown> = {}): MethodSelection => ({ id: "meft", settings });
const variants = ["layer", "adapter", "attn"] as const;
const oneBatch = { "one batch a step": {} };

checkTrainingBattery({ title: "MEFT1", selection: [meft({ dropout: 0.1 })], steps: 3 });
checkTrainingBattery({ title: "MEFT2", selection: [meft({ f_arch: "adapter" })], variants: oneBatch, steps: 2 });
checkTrainingBattery({
  title: "MEFT3, exact",
  selection: [meft({ f_arch: "attn", mode: "exact", layernorm_in_adapter: true })],
  variants: { "one batch a step": {}, "in bf16": { dtype: "bf16" } },
  steps: 2,
});

/** Reversible layers against the same network differentiated as any other. */
function pair(
  kind: Parameters<typeof deepModel>[0],
  layers: number,
  settings: Record<string, unknown>,
): { readonly made: GradientStep; readonly plain: GradientStep } {
  const model = deepModel(kind, layers);
  const step = (more: Record<string, unknown>): GradientStep =>
    new GradientStep(model, [meft({ ...settings, ...more })], { adapters: 5 });
  return { made: step({}), plain: step({ num_rev_layers: 0 }) };
}

describe("reversible layers", () => {
  test.each(variants)("of variant %s are inverted, and differentiated as the plain network, in f64", (f_arch) => {
    const settings = { f_arch, mode: "faithful", x1_factor: 1, x2_factor: 1, dropout: 0.1 };
    const { made, plain } = pair("post-norm", 6, settings);
    const [segment] = made.segments;
    const { start, back } = made.inverse(must(segment, "segment"), "f64");
    expect(largestDifference(back, start)).toBeLessThan(1e-10);
    expect(made.trained.filter(({ name }) => name.startsWith("meft."))).toHaveLength(48);
    const expected = plain.gradient("f64");
    expect(largestDifference(made.gradient("f64"), expected)).toBeLessThan(1e-8);
    expect(Math.max(...expected.map(Math.abs))).toBeGreaterThan(0.01);
  });

  test.each([
    ["layer", 3, 1e-3],
    ["attn", 2, 1e-2],
  ] as const)("of variant %s come back in f32 after %i layers", (f_arch, layers, tolerance) => {
    const { made, plain } = pair("post-norm", layers, { f_arch, mode: "faithful" });
    const { start, back } = made.inverse(must(made.segments[0], "segment"));
    expect(relativeNorm(back, start)).toBeLessThan(tolerance);
    expect(relativeNorm(made.gradient(), plain.gradient())).toBeLessThan(1e-2);
  });

  test.each(["pre-norm", "post-norm"] as const)(
    "in segments are right at 12 %s layers, from their end are not",
    (kind) => {
      const { made, plain } = pair(kind, 12, {});
      const expected = plain.gradient();
      expect(made.segments).toHaveLength(4);
      expect(relativeNorm(made.gradient(), expected)).toBeLessThan(1e-4);
      const faithful = pair(kind, 12, { mode: "faithful" }).made;
      expect(faithful.segments).toHaveLength(1);
      expect(relativeNorm(faithful.gradient(), expected)).toBeGreaterThan(1e-2);
    },
  );

  test.each(variants)("of variant %s come back bit for bit in fixed point, as deep as may be", (f_arch) => {
    const { made, plain } = pair("pre-norm", 12, { f_arch, mode: "exact" });
    const { start, back } = made.inverse(must(made.segments[0], "segment"));
    expect(back).toEqual(start.map((value) => Math.floor(value * 2 ** 16 + 0.5) / 2 ** 16));
    // What is left is the rounding of the streams themselves.
    expect(relativeNorm(made.gradient(), plain.gradient())).toBeLessThan(1e-3);
  });

  test("below, and plain layers above, are the same network", () => {
    const { made, plain } = pair("pre-norm", 4, { num_rev_layers: 2, tolerance: 1e-3 });
    expect(made.segments).toHaveLength(1);
    expect(relativeNorm(made.gradient("f64"), plain.gradient("f64"))).toBeLessThan(1e-9);
  });

  test("without adapters and a first factor near 0 are the model, one layer behind in one stream", () => {
    const model = deepModel("pre-norm", 4);
    const step = new GradientStep(model, [meft({ mode: "faithful", x1_factor: 1e-6 })], { adapters: 0 });
    const segment = must(step.segments[0], "segment");
    const { graph } = step;
    const [batch, length] = [2, 6];
    const hidden: Node[] = [];
    const context = plainContext({ graph, batch, length, activation: "f32" });
    model.forward(
      {
        ...context,
        stack: (tower, x) => {
          for (const block of tower.blocks) hidden.push(block.mlp(block.attention(hidden.at(-1) ?? x)));
          return chained(tower, x);
        },
      },
      batchInputs(graph, batch, length, false, model),
    );
    const streams = [result(segment, 0), result(segment, 1)] as const;
    const [first, second, before, last, mean] = step
      .run([...streams, ...hidden.slice(-2), multiply(add(...streams), 0.5)])
      .map(({ data }) => [...data]);
    expect(largestDifference(must(first, "x1"), must(before, "before"))).toBeLessThan(1e-4);
    expect(largestDifference(must(second, "x2"), must(last, "last"))).toBeLessThan(1e-4);
    const between = must(before, "before").map((value, place) => (value + must(last?.[place], "last")) / 2);
    expect(largestDifference(must(mean, "mean"), between)).toBeLessThan(1e-4);
  });
});

describe("segments", () => {
  const settled = (settings: Record<string, unknown>, layers = 12) =>
    settledMeft(meftConfig.parse(settings), deepModel("pre-norm", layers));

  test("are as long as factors, type and tolerance allow", () => {
    expect(segmentLengths(settled({}), "f32")).toEqual([3, 3, 3, 3]);
    expect(segmentLengths(settled({ f_arch: "adapter" }, 7), "f32")).toEqual([3, 3, 1]);
    expect(segmentLengths(settled({ f_arch: "attn" }, 3), "f32")).toEqual([1, 1, 1]);
    expect(segmentLengths(settled({ x1_factor: 1 }), "f32")).toEqual([12]);
    expect(segmentLengths(settled({ tolerance: 1e-2 }), "f32")).toEqual([5, 5, 2]);
    expect(segmentLengths(settled({}, 2), "bf16")).toEqual([1, 1]);
    expect(segmentLengths(settled({ num_rev_layers: 0 }), "f32")).toEqual([]);
    expect(segmentLengths(settled({ mode: "exact" }), "bf16")).toEqual([12]);
    expect(predictedError(3, [0.1, 1], "f32")).toBeLessThan(predictedError(1, [0.1, 1], "bf16"));
  });

  test.each([1, 2, 3, 4])("predict the error of %i layers within a factor of ten", (layers) => {
    const { made } = pair("post-norm", layers, { mode: "faithful" });
    const { start, back } = made.inverse(must(made.segments[0], "segment"));
    const predicted = predictedError(layers, [0.1, 1], "f32");
    const found = relativeNorm(back, start);
    expect(found).toBeLessThan(10 * predicted);
    expect(found).toBeGreaterThan(predicted / 10);
  });
});

describe("meft is refused", () => {
  const model = trainedModel;
  const refusal = (selection: readonly MethodSelection[]): unknown => {
    try {
      composeMethods(selection, model);
    } catch (error) {
      return error;
    }
    return undefined;
  };

  test.each([
    [{ x1_factor: 0 }, "settings"],
    [{ x2_factor: 0 }, "settings"],
    [{ f_arch: "whole" }, "settings"],
    [{ adapter_bottleneck_dim: 0 }, "settings"],
    [{ num_rev_layers: 3 }, "meft-layers"],
    [{ mode: "exact", x1_factor: 0.1 }, "meft-factor"],
    [{ inner_adapters: false, f_arch: "attn" }, "methods-none"],
  ])("with %o", (settings, code) => {
    expect(refusal([meft(settings)])).toMatchObject({ code });
  });

  test.each([
    ["full", {}],
    ["lisa", {}],
    ["wta-crs", {}],
  ])("beside %s", (id, settings) => {
    expect(refusal([meft(), { id, settings }])).toMatchObject({ code: "methods-conflict" });
  });

  test("in 16 bits from the end alone", () => {
    const deep = trainingOptions({
      selection: [meft({ mode: "faithful" })],
      model: tinyLlama({ num_hidden_layers: 4 }),
      session: { dtype: "bf16" },
    });
    expect(() => planOnly(deep)).toThrow(expect.objectContaining({ code: "meft-faithful" }) as Error);
  });

  test("for a model of no known activation, unless one is given", () => {
    const { activation, ...unknown } = model;
    expect(activation).toBe("silu");
    expect(() => composeMethods([meft()], unknown)).toThrow(/activation/);
    expect(composeMethods([meft({ activation: "gelu" })], unknown).adapters.length).toBeGreaterThan(0);
  });
});

describe("meft goes with", () => {
  test.each([
    ["LoRA inside its layers", [meft({ inner_adapters: false }), { id: "lora", settings: { r: 2 } }], {}],
    [
      "LoRA alone inside them",
      [meft({ inner_adapters: false, f_arch: "attn" }), { id: "lora", settings: { r: 2 } }],
      {},
    ],
    ["a base in NF4", [meft(), { id: "qlora", settings: { r: 2 } }], {}],
    ["8-bit states", [meft()], { optimizer: makeOptimizer({ states: "8bit" }) }],
    ["a zeroth-order estimate", [meft(), { id: "mezo", settings: {} }], {}],
  ] as const)("%s", async (_name, selection, session) => {
    const { losses, planBytes, arenaBytes } = await runTraining(trainingOptions({ selection, session }), {
      poison: true,
    });
    expect(losses.every(Number.isFinite)).toBe(true);
    expect(arenaBytes).toBe(planBytes);
  });

  test("no PEFT form, also beside LoRA", () => {
    const composed = composeMethods([meft({ inner_adapters: false }), { id: "lora", settings: {} }], trainedModel);
    expect(composed.peft).toBeUndefined();
  });
});
