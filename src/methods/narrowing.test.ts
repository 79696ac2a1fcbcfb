import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import { elements } from "../ir/shape.js";
import { fromHuggingFaceConfig } from "../models/registry.js";
import type { ModelDefinition, ParameterSpec } from "../models/types.js";
import { tinyLlama } from "../testing/tiny.js";
import { drawNormal } from "./initial.js";
import { keptParts, largestPlaces, narrowed } from "./narrowing.js";

const gpt = fromHuggingFaceConfig({
  ...{ model_type: "gpt2", architectures: ["GPT2LMHeadModel"], vocab_size: 20, n_embd: 8, n_layer: 2, n_head: 2 },
  ...{ n_positions: 16, layer_norm_epsilon: 1e-5, activation_function: "gelu_new" },
});
const llama = tinyLlama({ num_attention_heads: 4, num_key_value_heads: 2, hidden_size: 16, head_dim: 8 });

/** Values of any tensor of a model; `change` gives some of them others. */
function valuesOf(model: ModelDefinition, change: Record<string, (spec: ParameterSpec) => Float32Array> = {}) {
  const specs = new Map(model.parameters.map((spec) => [spec.name, spec]));
  return (name: string): Promise<Float32Array> => {
    const spec = must(specs.get(name), name);
    const made = change[name]?.(spec);
    return Promise.resolve(made ?? Float32Array.from(drawNormal(3, name, elements(spec.shape))));
  };
}

const narrowOf = (model: ModelDefinition, reduction: number) => must(model.narrow, "narrow")(reduction, "side");

describe("structured pruning", () => {
  test("keeps the rows of the largest L1 norm, ascending, and of equal ones the first", () => {
    const matrix = [
      [1, -2, 0, 0],
      [5, 0, 0, -1],
      [0, 0, 0, 1],
      [-2, 2, 2, 0],
    ];
    const scores = Float64Array.from(matrix, (row) => row.reduce((sum, value) => sum + Math.abs(value), 0));
    expect([...largestPlaces(scores, 2, "matrix")]).toEqual([1, 3]);
    expect([...largestPlaces(Float64Array.of(1, 2, 1, 1), 3, "ties")]).toEqual([0, 1, 2]);
    expect(() => largestPlaces(Float64Array.of(1, NaN), 1, "broken")).toThrow(
      expect.objectContaining({ code: "importance-not-finite" }),
    );
  });

  test.each([
    ["llama with grouped heads", llama],
    ["gpt2", gpt],
  ])("of %s to its own width gives its weights", async (_name, model) => {
    const read = valuesOf(model);
    const narrow = narrowOf(model, 1);
    const kept = await keptParts(model, narrow, read);
    for (const { own, of } of narrow.parameters) {
      const values = await read(of.name);
      expect(narrowed(of, must(kept.get(own.name), own.name), values), own.name).toEqual(values);
    }
  });

  test.each([
    ["llama", llama],
    ["gpt2", gpt],
  ])("of %s to half gives every tensor its narrow shape", async (_name, model) => {
    const read = valuesOf(model);
    const narrow = narrowOf(model, 2);
    const kept = await keptParts(model, narrow, read);
    for (const { own, of } of narrow.parameters) {
      const values = narrowed(of, must(kept.get(own.name), own.name), await read(of.name));
      expect(values.length, own.name).toBe(elements(own.shape));
    }
  });

  test("each matrix reads what the one before it kept, and keeps its own largest", async () => {
    const read = valuesOf(llama);
    const narrow = narrowOf(llama, 2);
    const kept = await keptParts(llama, narrow, read);
    const of = (name: string) => must(kept.get(`side.layers.${name}`), name);
    const embedding = await read("model.embed_tokens.weight");
    const sums = new Float64Array(16);
    embedding.forEach((value, place) => (sums[place % 16]! += Math.abs(value)));
    const first = largestPlaces(sums, 8, "embedding");
    expect(of("0.input_layernorm.weight").outputs).toEqual(first);
    expect(of("0.self_attn.k_proj.weight").inputs).toEqual(first);
    expect(of("0.self_attn.o_proj.weight").inputs).toEqual(of("0.self_attn.q_proj.weight").outputs);
    const out = await read("model.layers.0.self_attn.o_proj.weight");
    const rows = Float64Array.from({ length: 16 }, (_, row) =>
      of("0.self_attn.o_proj.weight").inputs!.reduce((sum, column) => sum + Math.abs(out[row * 32 + column]!), 0),
    );
    expect(of("0.self_attn.o_proj.weight").outputs).toEqual(largestPlaces(rows, 8, "o"));
    expect(of("0.mlp.gate_proj.weight").outputs).toEqual(of("0.mlp.up_proj.weight").outputs);
    expect(of("0.mlp.down_proj.weight").inputs).toEqual(of("0.mlp.up_proj.weight").outputs);
    expect(of("1.self_attn.q_proj.weight").inputs).toEqual(of("0.mlp.down_proj.weight").outputs);
    expect(kept.get("side.norm.weight")!.outputs).toEqual(of("1.mlp.down_proj.weight").outputs);
  });

  test("queries of grouped heads go with the keys that they meet", async () => {
    const kept = await keptParts(llama, narrowOf(llama, 2), valuesOf(llama));
    const keys = must(kept.get("side.layers.0.self_attn.k_proj.weight"), "keys").outputs;
    const queries = must(kept.get("side.layers.0.self_attn.q_proj.weight"), "queries").outputs;
    expect(keys).toHaveLength(8);
    expect(new Set(queries).size).toBe(16);
    queries.forEach((query, place) => {
      const [head, element] = [Math.floor(place / 4), place % 4];
      const key = keys[Math.floor(head / 2) * 4 + element]!;
      expect([Math.floor(query / 16), query % 8]).toEqual([Math.floor(key / 8), key % 8]);
    });
  });

  test("ranks by products of three whose size no f32 has", async () => {
    const projections = ["q_proj", "k_proj", "v_proj"].map((name) => `model.layers.0.self_attn.${name}.weight`);
    const tiny = (factor: number) =>
      valuesOf(
        llama,
        Object.fromEntries(
          projections.map((name) => [
            name,
            ({ shape }: ParameterSpec) =>
              Float32Array.from(drawNormal(3, name, elements(shape)), (value) => value * factor),
          ]),
        ),
      );
    const narrow = narrowOf(llama, 2);
    const [plain, small] = [await keptParts(llama, narrow, tiny(1)), await keptParts(llama, narrow, tiny(1e-30))];
    for (const name of ["q_proj", "k_proj", "v_proj"].map((one) => `side.layers.0.self_attn.${one}.weight`)) {
      expect(small.get(name)).toEqual(plain.get(name));
    }
  });
});
