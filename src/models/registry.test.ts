import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { ThimbleError } from "../errors.js";
import type { Shape } from "../ir/shape.js";
import { Graph } from "../ir/node.js";
import { leafOp } from "../ops/leaves.js";
import type { GoldenFamily } from "../testing/goldens.js";
import { goldenFamilies, goldenFolder, goldenGraph, loadGolden } from "../testing/goldens.js";
import { llama3Scaling } from "./config-rotary.js";
import { plainContext } from "./context.js";
import { biasOf, weightOf } from "./parameters.js";
import { fromGgufMetadata, fromHuggingFaceConfig, modelFamilies, modelFamily } from "./registry.js";
import type { ModelDefinition } from "./types.js";

type Json = Record<string, unknown>;

function configOf(family: GoldenFamily): Json {
  return JSON.parse(readFileSync(`${goldenFolder(family)}/config.json`, "utf8")) as Json;
}

function without(config: Json, ...keys: string[]): Json {
  return Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)));
}

function failure(config: unknown): ThimbleError {
  try {
    fromHuggingFaceConfig(config);
  } catch (error) {
    expect(error).toBeInstanceOf(ThimbleError);
    return error as ThimbleError;
  }
  throw new Error("no error");
}

/** The graph of one forward pass, as text: equal where two definitions compute the same. */
function graphOf(definition: ModelDefinition): string[] {
  const graph = new Graph();
  const context = plainContext({ graph, batch: 1, length: 6, activation: "f32" });
  const input = (name: string) =>
    graph.add(leafOp, [], { name, role: "input", shape: [6], dtype: "i32", format: "i32", version: 0 });
  definition.forward(context, { ids: input("ids"), positions: input("positions") });
  return graph.nodes.map(
    (node) => `${node.op.name} ${node.inputs.map(({ id }) => id).join()} ${JSON.stringify(node.attributes)}`,
  );
}

describe("every family", () => {
  it.each(goldenFamilies)("%s asks for just its parameters, in their order", async (family) => {
    const golden = await loadGolden(family);
    const names = golden.definition.parameters.map(({ name }) => name);
    const asked: string[] = [];
    const graph = new Graph();
    const plain = plainContext({ graph, batch: 1, length: 4, activation: "f32" });
    const context = {
      ...plain,
      parameter: (spec: Parameters<typeof plain.parameter>[0]) => {
        if (!asked.includes(spec.name)) asked.push(spec.name);
        return plain.parameter(spec);
      },
      linear: (spec: Parameters<typeof plain.linear>[0], x: Parameters<typeof plain.linear>[1]) => {
        asked.push(weightOf(spec).name, ...(spec.bias ? [biasOf(spec).name] : []));
        return plain.linear(spec, x);
      },
    };
    const input = (name: string) =>
      graph.add(leafOp, [], { name, role: "input", shape: [4], dtype: "i32", format: "i32", version: 0 });
    golden.definition.forward(context, { ids: input("ids"), positions: input("positions") });
    expect([...asked].sort()).toEqual([...names].sort());
    expect(new Set(names).size).toBe(names.length);
    const linears = new Set(
      golden.definition.parameters.flatMap(({ linear }) => (linear && linear.role !== "head" ? [linear] : [])),
    );
    expect([...linears].map(({ path }) => path)).toEqual(
      expect.arrayContaining(golden.definition.linears.map(({ path }) => path)),
    );
  });

  it.each(goldenFamilies)("%s keeps bf16 activations between kernels and multiplies them as bf16", async (family) => {
    const { graph } = goldenGraph(await loadGolden(family), "bf16");
    const products = graph.nodes.filter(({ op }) => op.name === "dot" || op.name === "attention");
    expect(products.length).toBeGreaterThan(10);
    for (const { inputs } of products) for (const input of inputs.slice(0, 2)) expect(input.dtype).toBe("bf16");
  });

  it("computes its rotary tables once", async () => {
    const { graph } = goldenGraph(await loadGolden("gemma3"));
    const forward = graph.nodes.filter(({ scope }) => !scope.startsWith("backward"));
    // One for each of its two bases.
    expect(forward.filter(({ op }) => op.name === "cos").length).toBe(2);
    expect(forward.filter(({ op }) => op.name === "sin").length).toBe(2);
    expect(forward.find(({ op }) => op.name === "cos")?.scope).toBe("rotary");
  });
});

describe("config.json", () => {
  it("says the same in its old form", () => {
    const mistral = without(configOf("mistral"), "rope_parameters");
    const old = { ...mistral, rope_theta: 10000, rope_scaling: { type: "linear", factor: 2.5 } };
    expect(graphOf(fromHuggingFaceConfig(old))).toEqual(graphOf(fromHuggingFaceConfig(configOf("mistral"))));
    const gemma = without(configOf("gemma3"), "rope_parameters", "layer_types");
    const scaling = { rope_type: "linear", factor: 8 };
    const older = {
      ...gemma,
      rope_theta: 1e6,
      rope_local_base_freq: 1e4,
      rope_scaling: scaling,
      sliding_window_pattern: 3,
    };
    expect(graphOf(fromHuggingFaceConfig(older))).toEqual(graphOf(fromHuggingFaceConfig(configOf("gemma3"))));
    const qwen = without(configOf("qwen2"), "layer_types");
    expect(graphOf(fromHuggingFaceConfig(qwen))).toEqual(graphOf(fromHuggingFaceConfig(configOf("qwen2"))));
    const smollm = without(configOf("smollm3"), "no_rope_layers", "layer_types");
    expect(graphOf(fromHuggingFaceConfig(smollm))).toEqual(graphOf(fromHuggingFaceConfig(configOf("smollm3"))));
  });

  it("lists the known families where the model is of none", () => {
    const error = failure({ model_type: "mamba" });
    expect(error.code).toBe("model-family");
    expect(error.given).toBe("mamba");
    for (const { modelTypes } of modelFamilies) for (const name of modelTypes) expect(error.expected).toContain(name);
    expect(failure([]).code).toBe("model-family");
    expect(failure(null).code).toBe("model-family");
    expect(modelFamily("gemma3_text").id).toBe("gemma3");
  });

  const refused: readonly (readonly [string, GoldenFamily, Json, string])[] = [
    ["an unknown rope_type", "llama", { rope_parameters: { rope_type: "yarn", factor: 4 } }, "yarn"],
    ["an incomplete rope_type", "llama", { rope_parameters: { rope_type: "llama3", factor: 4 } }, "low_freq_factor"],
    ["partial rotary", "llama", { partial_rotary_factor: 0.5 }, "partial_rotary_factor"],
    ["an odd head", "llama", { head_dim: 7 }, "head_dim"],
    ["an unknown activation", "llama", { hidden_act: "relu2" }, "relu2"],
    ["heads that do not divide", "llama", { num_key_value_heads: 3 }, "num_key_value_heads"],
    ["a width that heads do not divide", "smollm", { num_attention_heads: 5, head_dim: null }, "num_attention_heads"],
    ["a quantised checkpoint", "llama", { quantization_config: { quant_method: "gptq" } }, "gptq"],
    ["soft-capped logits", "gemma3", { final_logit_softcapping: 30 }, "final_logit_softcapping"],
    ["attention both ways", "gemma3", { use_bidirectional_attention: true }, "use_bidirectional_attention"],
    ["layer types of another length", "qwen2", { layer_types: ["full_attention"] }, "layer_types"],
    ["unknown layer types", "qwen3", { layer_types: ["full_attention", "linear_attention"] }, "layer_types"],
    ["too short a list of turning layers", "smollm3", { no_rope_layers: [1] }, "no_rope_layers"],
    ["cross attention", "gpt2", { add_cross_attention: true }, "add_cross_attention"],
    ["GPT-2's heads that do not divide", "gpt2", { n_head: 5 }, "n_head"],
  ];
  it.each(refused)("refuses %s", (_title, family, change, word) => {
    const error = failure({ ...configOf(family), ...change });
    expect(["model-setting", "model-config"]).toContain(error.code);
    expect(`${error.message} ${error.given ?? ""}`).toContain(word);
  });

  it("names the field that is missing, of the wrong type or absurd", () => {
    expect(failure(without(configOf("llama"), "hidden_size")).given).toContain("hidden_size");
    expect(failure({ ...configOf("llama"), vocab_size: "many" }).given).toContain("vocab_size");
    expect(failure({ ...configOf("llama"), num_hidden_layers: 1e9 }).given).toContain("num_hidden_layers");
    expect(failure({ ...configOf("llama"), hidden_size: -4 }).code).toBe("model-config");
  });
});

describe("GGUF metadata", () => {
  const keys: Json = {
    "general.architecture": "llama",
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 48,
    "llama.block_count": 1,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 128,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
  };
  const tensors = new Map<string, Shape>([["token_embd.weight", [97, 32]]]);
  const define = (change: Json, rotaryFactors?: readonly number[]): ModelDefinition =>
    fromGgufMetadata({
      metadata: new Map(Object.entries({ ...keys, ...change }).filter(([, value]) => value !== undefined)),
      tensors,
      rotaryFactors,
    });

  it("defines a model", () => {
    const { vocabularySize, width, blocks, keyHeads, headWidth, tiedEmbeddings } = define({});
    expect({ vocabularySize, width, blocks, keyHeads, headWidth, tiedEmbeddings }).toEqual({
      vocabularySize: 97,
      width: 32,
      blocks: 1,
      keyHeads: 2,
      headWidth: 8,
      tiedEmbeddings: true,
    });
  });

  it.each([
    ["another architecture", { "general.architecture": "mamba" }, "model-family"],
    ["a missing key", { "llama.block_count": undefined }, "model-config"],
    ["heads that differ from block to block", { "llama.attention.head_count_kv": [2, 4] }, "model-setting"],
    ["mixtures of experts", { "llama.expert_count": 8 }, "model-setting"],
    ["partial rotary", { "llama.rope.dimension_count": 4 }, "model-setting"],
    ["an unknown scaling", { "llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4 }, "model-setting"],
  ])("refuses %s", (_title, change, code) => {
    expect(() => define(change as Json)).toThrow(expect.objectContaining({ code }) as Error);
  });

  it("holds Llama 3's scaling as frequencies only", () => {
    const original = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
    const factors = [1, 1 / ((1 - 0.34589) / 8 + 0.34589), 8, 8];
    const recovered = llama3Scaling(factors, 10000);
    expect(recovered).toMatchObject(original);
    const json = { ...configOf("smollm"), hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1 };
    const heads = { num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8 };
    const config = { ...json, ...heads, rope_parameters: { rope_theta: 10000, ...recovered } };
    expect(graphOf(define({}, factors))).toEqual(graphOf(fromHuggingFaceConfig(config)));
    expect(() => llama3Scaling([1, 5, 2, 8], 10000)).toThrow("do not follow");
  });
});
