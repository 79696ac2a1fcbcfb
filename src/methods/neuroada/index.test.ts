import { describe, expect, test } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import { must } from "../../errors.js";
import { weightOf } from "../../models/parameters.js";
import { fromHuggingFaceConfig } from "../../models/registry.js";
import { leafAttributes } from "../../ops/leaves.js";
import { bytesOfValue } from "../../plan/plan.js";
import { planOnly } from "../../session/open.js";
import { MethodBench } from "../../testing/method-bench.js";
import { checkTrainingBattery, runTraining, trainedModel, trainingOptions } from "../../testing/method-training.js";
import { checkMethodBattery } from "../../testing/methods.js";
import { toyModel } from "../../testing/toy-model.js";
import type { MethodSelection } from "../compose.js";
import { composeMethods } from "../compose.js";
import { sparseLayer } from "../sparse/layer.js";
import { rowPlaces } from "./places.js";

const neuroada = (settings: Record<string, unknown> = {}): MethodSelection => ({ id: "neuroada", settings });

checkMethodBattery({ title: "NeuroAda", selection: neuroada({ times_num: 2 }) });
checkMethodBattery({
  title: "NeuroAda over transposed weights",
  selection: neuroada({ times_num: 2 }),
  model: { transposed: true },
});
checkTrainingBattery({ title: "NeuroAda", selection: [neuroada({ times_num: 4 })] });
checkTrainingBattery({
  title: "NeuroAda over NF4",
  selection: [{ id: "qlora", settings: { adapter: false } }, neuroada({ times_num: 4 })],
  variants: { "one batch a step": {} },
});

describe("NeuroAda", () => {
  const spec = must(toyModel().linears[0], "layer");
  const layer = sparseLayer(spec, spec.outputs * 3, "neuroada");
  const weight = Float32Array.from({ length: spec.inputs * spec.outputs }, (_, place) => Math.sin(7 * place + 1));
  const rows = (places: Int32Array): number[][] =>
    Array.from({ length: spec.outputs }, (_, row) =>
      [...places.subarray(3 * row, 3 * row + 3)].map((place) => place - row * spec.inputs),
    );

  test.each(["magnitude", "reverse"] as const)("chooses the connections of each row by %s", (selection) => {
    rows(rowPlaces(layer, weight, { selection, seed: 0 })).forEach((columns, row) => {
      const sizes = Array.from(weight.subarray(row * spec.inputs, (row + 1) * spec.inputs), Math.abs);
      const chosen = columns.map((column) => must(sizes[column], "chosen"));
      const others = sizes.filter((_, column) => !columns.includes(column));
      expect(new Set(columns).size).toBe(3);
      if (selection === "magnitude") expect(Math.max(...others)).toBeLessThanOrEqual(Math.min(...chosen));
      else expect(Math.min(...others)).toBeGreaterThanOrEqual(Math.max(...chosen));
    });
  });

  test("chooses the first of equal weights, the same of a transposed weight, and random ones by the seed", () => {
    const equal = rowPlaces(layer, new Float32Array(weight.length), { selection: "magnitude", seed: 0 });
    expect(rows(equal).every((columns) => columns.join() === "0,1,2")).toBe(true);
    const stored = Float32Array.from(weight, (_, at) => {
      const [column, row] = [Math.floor(at / spec.outputs), at % spec.outputs];
      return weight[row * spec.inputs + column]!;
    });
    const turned = { ...layer, spec: { ...spec, transposed: true } };
    const choice = { selection: "magnitude", seed: 0 } as const;
    expect(rowPlaces(turned, stored, choice)).toEqual(rowPlaces(layer, weight, choice));
    const random = (seed: number): Int32Array => rowPlaces(layer, weight, { selection: "random", seed });
    expect(random(1)).toEqual(random(1));
    expect(random(1)).not.toEqual(random(2));
  });

  test("has the entries of the dense gradient of the weight", async () => {
    const model = toyModel();
    const bench = (await MethodBench.create(model, [neuroada({ times_num: 2 })])).scramble();
    for (const one of model.linears) {
      const delta = must(bench.adapters.get(`${one.path}.neuroada_delta`), "delta").leaf;
      const base = must(bench.base.get(weightOf(one).name), "weight");
      const [own, dense] = bench.run(gradients(bench.loss, [delta, base]), "f64");
      must(bench.values.get(`${one.path}.neuroada_indices`), "places").forEach((place, entry) => {
        expect(Math.abs(own!.data[entry]! - dense!.data[place]!)).toBeLessThan(1e-10);
      });
    }
  });

  test("takes the bytes of its page and makes no dense gradient", () => {
    const wide = fromHuggingFaceConfig({
      ...{ model_type: "llama", architectures: ["LlamaForCausalLM"], vocab_size: 64, hidden_size: 4096 },
      ...{ intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 32, num_key_value_heads: 32 },
      ...{ rms_norm_eps: 1e-5, rope_theta: 1e4, max_position_embeddings: 64, hidden_act: "silu" },
    });
    const selection = [neuroada({ times_num: 20, target_modules: ["q_proj"] })];
    const plan = planOnly(trainingOptions({ selection, model: wide, session: { evaluate: false } }));
    const bytes = (role: string, name: string): number =>
      [...plan.leaves.values()]
        .filter((node) => leafAttributes(node).role === role && leafAttributes(node).name.includes(name))
        .reduce((sum, node) => sum + bytesOfValue(node), 0);
    const count = 4096 * 20;
    expect(bytes("weight", "neuroada_delta")).toBe(4 * count);
    expect(bytes("state", "neuroada_delta")).toBe(8 * count);
    const dense = plan.plans.flatMap(({ buffers }) => buffers.filter((buffer) => buffer.bytes >= 4096 * 4096 * 4));
    expect(dense).toEqual([]);
  });

  test("trains as many values of LLaMA-7B as its page says, and lowers the loss", async () => {
    const shape = { model_type: "llama", architectures: ["LlamaForCausalLM"], vocab_size: 32000, hidden_size: 4096 };
    const llama = fromHuggingFaceConfig({
      ...{ ...shape, intermediate_size: 11008, num_hidden_layers: 32, num_attention_heads: 32 },
      ...{ num_key_value_heads: 32, rms_norm_eps: 1e-5, rope_theta: 1e4, max_position_embeddings: 2048 },
      ...{ hidden_act: "silu", tie_word_embeddings: false },
    });
    const modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    const { adapters } = composeMethods([neuroada({ times_num: 1, target_modules: modules })], llama);
    expect(adapters.reduce((sum, { shape: [size = 0] }) => sum + size, 0)).toBe(1_359_872);
    const { losses } = await runTraining(trainingOptions({ selection: [neuroada({ times_num: 8 })] }), { to: 8 });
    expect(losses.at(-1)).toBeLessThan(must(losses[0], "first loss"));
  });

  test("refuses what cannot be", () => {
    const compose = (settings: Record<string, unknown>, ...others: MethodSelection[]): unknown =>
      composeMethods([neuroada(settings), ...others], trainedModel);
    const code = (expected: string): unknown => expect.objectContaining({ code: expected });
    expect(() => compose({ times_num: 0 })).toThrow(code("settings"));
    expect(() => compose({ times_num: 1000 })).toThrow(code("neuroada-connections"));
    expect(() => compose({}, { id: "full", settings: {} })).toThrow(code("methods-conflict"));
  });
});
