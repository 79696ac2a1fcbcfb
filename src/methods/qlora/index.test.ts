import { describe, expect, test } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import { must, ThimbleError } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { Graph } from "../../ir/node.js";
import { elements } from "../../ir/shape.js";
import type { Tensor } from "../../ir/tensor.js";
import { tensor } from "../../ir/tensor.js";
import { weightOf } from "../../models/parameters.js";
import type { LinearSpec, ModelDefinition } from "../../models/types.js";
import { add, multiply } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import { reduceSum, reshape } from "../../ops/layout.js";
import { leaf } from "../../ops/leaves.js";
import { allocateArena } from "../../runtime/memory.js";
import { createPool } from "../../runtime/pool.js";
import { planOnly } from "../../session/open.js";
import { compileDecoder } from "../../storage/decoder.js";
import { storageFormat } from "../../storage/registry.js";
import { evaluate } from "../../targets/interpret/evaluate.js";
import { tensorToBytes } from "../../targets/interpret/memory.js";
import { compareKernels } from "../../testing/differential.js";
import { largestDifference } from "../../testing/method-bench.js";
import {
  checkTrainingBattery,
  randomWeights,
  runTraining,
  trainedModel,
  trainingOptions,
} from "../../testing/method-training.js";
import { checkMethodBattery } from "../../testing/methods.js";
import { plausibleValue, sequence } from "../../testing/tiny.js";
import { toyModel } from "../../testing/toy-model.js";
import { storedFormats } from "../../train/options.js";
import type { MethodSelection } from "../compose.js";
import { composeMethods } from "../compose.js";
import { defineMethod } from "../define.js";
import { drawNormal } from "../initial.js";
import { lora } from "../lora/index.js";
import type { AdaptContext } from "../types.js";
import { qlora } from "./index.js";

const qloraOf = (settings: Record<string, unknown> = {}): MethodSelection => ({
  id: "qlora",
  settings: { r: 2, alpha: 3, ...settings },
});

checkMethodBattery({ title: "QLoRA", selection: qloraOf() });
checkMethodBattery({ title: "QLoRA with DoRA", selection: qloraOf({ dora: true }), model: { transposed: true } });
// Rows of 48 and 80 values: blocks of 64 straddle them.
checkTrainingBattery({ title: "QLoRA", selection: [qloraOf({ r: 4, alpha: 8 })] });

function codeOf(run: () => unknown): ThimbleError {
  try {
    run();
  } catch (error) {
    if (error instanceof ThimbleError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const formatsOf = (model: ModelDefinition, settings: Record<string, unknown> = {}): Map<string, string> => {
  const composed = composeMethods([qloraOf(settings)], model);
  const format = storedFormats(
    model,
    "bf16",
    undefined,
    () => false,
    (parameter) => composed.baseFormat(parameter),
  );
  return new Map(model.parameters.map(({ name }) => [name, format(name)]));
};

describe("what is packed", () => {
  test("linear layers of the blocks, and nothing else", () => {
    const formats = formatsOf(trainedModel);
    for (const { name, kind } of trainedModel.parameters) {
      expect(formats.get(name), name).toBe(kind === "weight" ? "nf4-64-dq" : "bf16");
    }
    expect([...formats.values()].filter((format) => format === "bf16").length).toBeGreaterThan(4);
  });

  test("layers that are not adapted too", () => {
    const formats = formatsOf(trainedModel, { target_modules: ["q_proj"] });
    expect(formats.get("model.layers.0.mlp.down_proj.weight")).toBe("nf4-64-dq");
  });

  test.each([
    [{ quant_type: "fp4" }, "fp4-64-dq"],
    [{ double_quant: false }, "nf4-64"],
    [{ blocksize: 256, double_quant: false, quant_type: "fp4" }, "fp4-256"],
  ])("%j is stored as %s", (settings, id) => {
    expect(formatsOf(toyModel(), settings).get("model.layers.0.mlp.down_proj.weight")).toBe(id);
  });

  test("the plan counts the planes of packed weights, and states of the adapter alone", () => {
    const bytes = (selection: MethodSelection): Map<string, number> => {
      const plan = planOnly(
        trainingOptions({ selection: [selection], model: trainedModel, session: { dtype: "bf16" } }),
      );
      return new Map([...plan.layout.buffers].map(([name, buffer]) => [name, buffer.bytes]));
    };
    const [packed, dense] = [bytes(qloraOf()), bytes({ id: "lora", settings: { r: 2, alpha: 3 } })];
    const name = "model.layers.0.mlp.down_proj.weight";
    // 48 x 80 values: a line, 1920 bytes of codes, and three planes of one line each.
    expect(packed.get(name)).toBe(64 + 1920 + 3 * 64);
    expect(dense.get(name)).toBe(7680);
    const states = (from: Map<string, number>): [string, number][] =>
      [...from].filter(([key]) => key.includes("adamw"));
    expect(states(packed)).toEqual(states(dense));
    expect(states(packed).every(([key]) => key.includes("lora_"))).toBe(true);
  });
});

describe("the maths", () => {
  test("dA, dB and dX are those of a dense base that holds the decoded weight, which gets no gradient", () => {
    const spec: LinearSpec = {
      path: "l",
      role: "query",
      block: 0,
      inputs: 90,
      outputs: 33,
      bias: false,
      transposed: false,
    };
    const one = { ...toyModel(), linears: [spec], parameters: [weightOf(spec)] };
    const composed = composeMethods([qloraOf({ r: 3 })], one);
    const graph = new Graph();
    const values = new Map<Node, Tensor>();
    const make = (name: string, shape: readonly number[]): Node => {
      const node = leaf(graph, { name, role: "weight", shape, dtype: "f32" });
      values.set(node, tensor(shape, drawNormal(1, name, elements(shape)), "f32"));
      return node;
    };
    const format = storageFormat("nf4-64-dq");
    const decoded = new Float32Array(33 * 90);
    compileDecoder(format)(must(format.encode, "encode")(Float32Array.from(drawNormal(1, "w", 33 * 90))), decoded);
    const packed = leaf(graph, { name: "w", role: "weight", shape: [33, 90], dtype: "f32", format: format.id });
    const dense = leaf(graph, { name: "dense", role: "weight", shape: [33, 90], dtype: "f32" });
    for (const node of [packed, dense]) values.set(node, { shape: node.shape, dtype: "f32", data: decoded });
    const x = make("x", [6, 90]);
    const adapters = new Map<string, Node>();
    const context: AdaptContext = {
      graph,
      model: one,
      trainable: ({ name, shape }) => {
        const node = adapters.get(name) ?? make(name, shape);
        adapters.set(name, node);
        return node;
      },
      fixed: ({ name, shape }) => make(name, shape),
      weight: () => packed,
      bias: () => undefined,
      operand: (_spec, value) => value,
      uniform: () => {
        throw new Error("not in training");
      },
      dropout: (value) => value,
      scaled: (_spec, value) => value,
      moving: () => {
        throw new Error("nothing moves");
      },
      variant: "",
      probe: () => undefined,
      beside: () => {
        throw new Error("nothing is beside one layer");
      },
    };
    const y = composed.linear(context, spec, x, (value) => dot(value, packed, { transposeB: true }));
    const [a, b] = ["l.lora_A.weight", "l.lora_B.weight"].map((name) => must(adapters.get(name), name)) as [Node, Node];
    const probe = make("probe", [6, 33]);
    const reference = dot(x, add(dense, multiply(dot(b, a), 3 / 3)), { transposeB: true });
    const loss = (value: Node): Node => reshape(reduceSum(multiply(value, probe), [0, 1]), []);
    const ours = evaluate(gradients(loss(y), [a, b, x]), values);
    const theirs = evaluate(gradients(loss(reference), [a, b, x]), values);
    ours.forEach((made, index) => {
      const wanted = must(theirs[index], "dense gradient").data;
      const scale = Math.max(...wanted.map(Math.abs));
      expect(scale).toBeGreaterThan(0.1);
      expect(largestDifference(made.data, wanted) / scale).toBeLessThan(1e-5);
    });
    expect(composed.trains(must(one.parameters[0], "weight"))).toBe(false);
  });

  test.each(["f32", "bf16"] as const)(
    "every kernel of a step in %s computes what the interpreter does",
    async (dtype) => {
      const plan = planOnly(trainingOptions({ selection: [qloraOf()], session: { dtype, clip: 1, evaluate: false } }));
      const pool = await createPool(2);
      const arena = allocateArena(pool, plan.report.planBytes);
      try {
        const next = sequence(1);
        const weights = randomWeights(trainedModel);
        const base = new Set(trainedModel.parameters.map(({ name }) => name));
        for (const [name, node] of plan.leaves) {
          const { offset, bytes } = must(plan.layout.buffers.get(name), name);
          const format = String(node.attributes["format"]);
          if (!base.has(name)) tensorToBytes(plausibleValue(node, 67, 19, next), arena.view(offset, bytes));
          else {
            const packed = must(storageFormat(format).encode, format)(new Float32Array(elements(node.shape)));
            await weights.readInto(name, arena.view(offset, packed.length), format);
          }
        }
        const differences = await compareKernels(must(plan.plans[0], "plan"), arena, pool);
        const decoding = [...plan.leaves.values()].filter((node) => node.attributes["format"] === "nf4-64-dq");
        expect(decoding).toHaveLength(14);
        expect(differences.length).toBeGreaterThan(100);
        const tolerance = dtype === "f32" ? 2e-6 : 1e-2;
        expect(differences.filter(({ difference }) => !(difference < tolerance))).toEqual([]);
      } finally {
        arena.release();
        pool.close();
      }
    },
  );

  test("learns as LoRA over 16 bits does, and NF4 is the closer of the two codes", async () => {
    const losses = async (id: string, settings: Record<string, unknown>): Promise<{ first: number; last: number }> => {
      const selection = [{ id, settings: { r: 8, alpha: 16, ...settings } }];
      const options = trainingOptions({ selection, session: { dtype: "bf16" } });
      const { losses: all, evaluation } = await runTraining(options, { to: 16 });
      return { first: must(all[0], "loss"), last: evaluation };
    };
    const [dense, nf4, fp4] = [
      await losses("lora", {}),
      await losses("qlora", {}),
      await losses("qlora", { quant_type: "fp4" }),
    ];
    expect(nf4.last).toBeLessThan(1.05 * dense.last);
    expect(nf4.last).toBeLessThan(0.9 * nf4.first);
    expect(Math.abs(nf4.first - dense.first)).toBeLessThan(Math.abs(fp4.first - dense.first) + 1e-3);
  });
});

describe("refusals", () => {
  const model = toyModel();
  test.each([
    [{ blocksize: 48 }, "settings", "qlora.blocksize"],
    [{ blocksize: 8192 }, "settings", "qlora.blocksize"],
    [{ quant_type: "nf3" }, "settings", "qlora.quant_type"],
    [{ bits: 3 }, "settings", "qlora.bits"],
    [{ init: "pissa" }, "settings", "qlora.init"],
    [{ paged: true }, "settings-unknown", "qlora.paged"],
    [{ target_modules: ["q_prog"] }, "targets-none", "qlora.target_modules"],
    [{ rank_pattern: { "(?=q)": 3 } }, "pattern", "qlora.rank_pattern.(?=q)"],
  ])("%j", (settings, code, where) => {
    expect(codeOf(() => composeMethods([qloraOf(settings)], model))).toMatchObject({ code, where });
  });

  test("training or packing what another method packs or trains", () => {
    const both = (id: string) => codeOf(() => composeMethods([qloraOf(), { id, settings: {} }], model)).code;
    expect(both("full")).toBe("methods-conflict");
    // Without claims of its own, a method is still kept from training what is packed.
    const greedy = defineMethod({
      ...lora,
      id: "greedy",
      resolve: () => ({
        id: "greedy",
        config: {},
        claims: [],
        adapters: [],
        learningRate: 1e-3,
        slots: { select: ({ kind }) => kind === "weight" },
      }),
    });
    const selection = [qloraOf(), { id: "greedy", settings: {} }];
    const refused = codeOf(() => composeMethods(selection, model, [qlora, greedy]));
    expect(refused.code).toBe("methods-conflict");
    expect(refused.given).toContain("q_proj.weight");
  });

  test("packing what is no matrix", () => {
    const flat = defineMethod({
      ...lora,
      id: "flat",
      resolve: (config, of) => ({
        ...lora.resolve(config, of),
        id: "flat",
        slots: { format: ({ kind }) => (kind === "norm" ? "nf4-64" : undefined) },
      }),
    });
    const refused = codeOf(() => composeMethods([{ id: "flat", settings: {} }], model, [flat]));
    expect(refused).toMatchObject({ code: "storage-shape" });
  });
});
