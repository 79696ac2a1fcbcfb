import { expect, test } from "vitest";
import { must } from "../errors.js";
import { allocateArena } from "../runtime/memory.js";
import { createPool } from "../runtime/pool.js";
import { planOnly } from "../session/open.js";
import { tensorToBytes } from "../targets/interpret/memory.js";
import { compareKernels } from "../testing/differential.js";
import { checkTrainingBattery, runTraining, trainingOptions } from "../testing/method-training.js";
import { plausibleValue, sequence, tinyLlama } from "../testing/tiny.js";

/** Weights of whole blocks, the embedding with a short last one, and some below 4096 elements. */
const model = tinyLlama({
  hidden_size: 64,
  intermediate_size: 80,
  num_attention_heads: 4,
  num_key_value_heads: 1,
  vocab_size: 67,
});
const optimizer = { id: "adamw", states: "8bit" };
const tolerance = 1e-4;
const variants = { "one batch a step": {}, "in bf16": { dtype: "bf16" as const, accumulate: 2 } };

checkTrainingBattery({
  title: "8-bit states, all weights",
  selection: [{ id: "full", settings: {} }],
  model,
  optimizer,
  tolerance,
  variants,
});
checkTrainingBattery({
  title: "8-bit states, SGD with momentum",
  selection: [{ id: "full", settings: {} }],
  model,
  optimizer: { id: "sgd", momentum: 0.9, weight_decay: 0.01, states: "8bit" },
  tolerance,
  variants: { "one batch a step": {} },
});
checkTrainingBattery({
  title: "8-bit states, LoRA",
  selection: [{ id: "lora", settings: { r: 64 } }],
  model,
  optimizer,
  tolerance,
  variants: { "one batch a step": {} },
});
checkTrainingBattery({
  title: "8-bit states in GaLore's subspace",
  selection: [{ id: "galore", settings: { rank: 52, update_proj_gap: 3 } }],
  model: tinyLlama({
    hidden_size: 64,
    intermediate_size: 80,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    vocab_size: 67,
  }),
  optimizer,
  // A code that falls on the other side of a midpoint, seen through a subspace of few dimensions.
  tolerance: 2e-3,
  variants,
});

test("500 steps end within 2 % of the loss with f32 states", async () => {
  const loss = async (states: string): Promise<number> => {
    const options = trainingOptions({
      selection: [{ id: "lora", settings: { r: 64 } }],
      model,
      optimizer: { id: "adamw", states },
    });
    return (await runTraining(options, { to: 500, rate: 3e-4 })).losses.slice(-50).reduce((sum, one) => sum + one, 0);
  };
  const [full, coded] = [await loss("f32"), await loss("8bit")];
  expect(Math.abs(coded / full - 1)).toBeLessThan(0.02);
});

const full = (states: string, hidden = 64) =>
  planOnly(
    trainingOptions({
      selection: [{ id: "full", settings: {} }],
      model: tinyLlama({
        hidden_size: hidden,
        intermediate_size: 2 * hidden,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        vocab_size: 64,
      }),
      optimizer: { id: "adamw", states },
      session: { evaluate: false },
    }),
  );

test("the update of a weight of whole blocks is one kernel that replaces everything where it lies", () => {
  const plan = must(full("8bit").plans[0], "plan");
  const updates = plan.steps.filter(({ step }) => step.kernel.outputs.some(({ dtype }) => dtype === "u8"));
  expect(updates).toHaveLength(15);
  for (const { step, copies } of updates) {
    expect(step.kernel.outputs.map(({ dtype }) => dtype).sort()).toEqual(["f32", "f32", "f32", "u8", "u8"]);
    expect(copies).toEqual([]);
  }
});

test("states take 2.03 bytes an element", () => {
  const plan = full("8bit", 128);
  const large = [...plan.leaves.values()].filter(
    (node) => node.attributes["role"] === "weight" && node.shape.length === 2,
  );
  const stateBytes = (name: string): number =>
    [...plan.layout.buffers]
      .filter(([key]) => key.startsWith(`${name}.adamw.`))
      .reduce((sum, [, { bytes }]) => sum + bytes, 0);
  const elements = large.reduce((sum, { shape: [rows = 0, columns = 0] }) => sum + rows * columns, 0);
  const states = large.reduce((sum, node) => sum + stateBytes(node.attributes["name"] as string), 0);
  expect(states / elements).toBe(2 + 8 / 256);
});

test("every kernel computes what the interpreter does", async () => {
  const plan = planOnly(trainingOptions({ selection: [{ id: "full", settings: {} }], model, optimizer }));
  const pool = await createPool(2);
  const arena = allocateArena(pool, plan.report.planBytes);
  try {
    const next = sequence(1);
    for (const [name, leaf] of plan.leaves) {
      const { offset, bytes } = must(plan.layout.buffers.get(name), name);
      tensorToBytes(plausibleValue(leaf, 67, 19, next), arena.view(offset, bytes));
    }
    const differences = await compareKernels(must(plan.plans[0], "plan"), arena, pool);
    const codes = differences.filter(({ output }) => output === "cast" || output === "slice");
    expect(codes.length).toBeGreaterThan(20);
    expect(codes.filter(({ difference }) => !(difference < 0.01))).toEqual([]);
    const rest = differences.filter((one) => !codes.includes(one));
    expect(rest.filter(({ difference }) => !(difference < 2e-6))).toEqual([]);
  } finally {
    arena.release();
    pool.close();
  }
});
