/** What LST keeps for backward, and that nothing but the side network (and a task's head) changes. */
import { describe, expect, test } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import { must } from "../../errors.js";
import { openModel } from "../../io/model.js";
import type { Node } from "../../ir/node.js";
import { reachable } from "../../ir/node.js";
import { fromHuggingFaceConfig } from "../../models/registry.js";
import { detachOp } from "../../ops/reduce.js";
import { openSession, planOnly } from "../../session/open.js";
import { encoderBatch, encoderFolder, loadEncoderGolden } from "../../testing/encoder-goldens.js";
import { MethodBench } from "../../testing/method-bench.js";
import { trainingOptions } from "../../testing/method-training.js";
import { relativeDifference, tinyLlama } from "../../testing/tiny.js";

const lst = (settings: Record<string, unknown> = {}) => ({ id: "lst", settings: { r: 2, ...settings } });

describe("on an encoder", () => {
  test("trains the side network and the task's head, and nothing else", async () => {
    const golden = await loadEncoderGolden("bert");
    const { definition, batch, length } = golden;
    const run = async (target: "c" | "interpret"): Promise<{ losses: number[]; changed: string[] }> => {
      const selection = [lst({ side_layers: "all" })];
      const options = trainingOptions({ selection, model: definition, session: { batch, length, target } });
      const session = await openSession(options, { poison: true });
      const { weights } = await openModel(encoderFolder("bert"));
      try {
        await session.load(weights);
        const held = new Set(session.tensors.map(({ name }) => name));
        const names = definition.parameters.map(({ name }) => name).filter((name) => held.has(name));
        const before = new Map(names.map((name) => [name, session.bytes(name).slice()]));
        const losses: number[] = [];
        for (let step = 0; step < 4; step++) {
          losses.push((await session.step([encoderBatch(golden)], { rate: 0.01, step })).loss);
        }
        const changed = names.filter((name) => Buffer.compare(session.bytes(name), must(before.get(name), name)) !== 0);
        return { losses, changed };
      } finally {
        session.close();
        await weights.close();
      }
    };
    const [compiled, meant] = [await run("c"), await run("interpret")];
    expect(compiled.changed).toEqual(definition.task?.head);
    expect(compiled.losses.at(-1)).toBeLessThan(must(compiled.losses[0], "loss"));
    expect(relativeDifference(compiled.losses, meant.losses)).toBeLessThan(2e-5);
  });
});

describe("what is kept for backward", () => {
  test("is nothing of the model but the outputs of the blocks that are read", async () => {
    const model = tinyLlama({ num_hidden_layers: 3 });
    const bench = await MethodBench.create(model, [lst({ side_layers: [0, 2] })], { training: true });
    const made = gradients(bench.loss, bench.trainedLeaves());
    const forward = new Set(reachable([bench.loss]));
    const backward = reachable(made).filter((node) => !forward.has(node));
    const inside = (node: Node): boolean => /^(blocks|embedding|norm)/.test(node.scope) && node.op !== detachOp;
    const read = backward.flatMap(({ inputs }) => inputs.filter((input) => forward.has(input) && inside(input)));
    expect(read).toEqual([]);
    const taps = [...forward].filter((node) => node.op === detachOp);
    const scopes = taps.flatMap(({ inputs }) => inputs.map(({ scope }) => scope)).sort();
    expect(scopes).toEqual(["blocks.0.mlp", "blocks.2.mlp", "embedding"]);
  });

  // T5-base's sizes in a decoder: 12 blocks of 768, heads of 64, 32,128 tokens.
  const base = fromHuggingFaceConfig({
    ...{ model_type: "gpt2", architectures: ["GPT2LMHeadModel"], vocab_size: 32128, n_embd: 768, n_layer: 12 },
    ...{ n_head: 12, n_positions: 512, layer_norm_epsilon: 1e-6, activation_function: "gelu_new" },
  });
  const [batch, length] = [100, 128];
  const planned = (id: string, settings: Record<string, unknown>, dtype: "f32" | "bf16") => {
    const session = { batch, length, segments: false, evaluate: false, saved: "all", dtype } as const;
    return planOnly(trainingOptions({ selection: [{ id, settings }], model: base, session })).report;
  };

  test.each(["f32", "bf16"] as const)("is a sixth of LoRA's, and the peak a fifth of full tuning's (%s)", (dtype) => {
    const side = planned("lst", { r: 8 }, dtype);
    expect(side.composition.saved).toBeLessThan(0.18 * planned("lora", { r: 32 }, dtype).composition.saved);
    expect(side.planBytes).toBeLessThan(0.25 * planned("full", {}, dtype).planBytes);
    // (|K| + 1) N d e for the ladders, and |K| N (d / r) 17 e inside the side blocks.
    const bytes = dtype === "f32" ? 4 : 2;
    const formula = batch * length * bytes * (10 * 768 + 9 * (768 / 8) * 17);
    expect(side.composition.saved).toBeLessThan(1.15 * formula);
    expect(side.composition.saved).toBeGreaterThan(0.9 * formula);
  });
});
