import { expect, test } from "vitest";
import { must } from "../errors.js";
import { sizeOf } from "../ir/dtype.js";
import { elements } from "../ir/shape.js";
import { planOnly } from "../session/open.js";
import { checkTrainingBattery, runTraining, trainingOptions } from "../testing/method-training.js";
import { tinyLlama } from "../testing/tiny.js";

const optimizer = { id: "adamw", states: "fp8" };
/** Weights of whole groups, and the embedding, norms and keys with a short last one. */
const model = tinyLlama({ hidden_size: 64, intermediate_size: 80, num_attention_heads: 4, num_key_value_heads: 1, vocab_size: 67 }); // prettier-ignore

checkTrainingBattery({
  title: "FP8 states, all weights",
  selection: [{ id: "full", settings: {} }],
  model,
  optimizer,
  // A code that falls on the other side of a tie, or a power of the next step.
  tolerance: 1e-4,
  variants: { "one batch a step": {} },
});
test("LoRA's factors end within 2 % of the loss with f32 states after 300 steps", async () => {
  const loss = async (states: string): Promise<number> => {
    const options = trainingOptions({
      selection: [{ id: "lora", settings: { r: 8 } }],
      model,
      optimizer: { id: "adamw", states },
    });
    return (await runTraining(options, { to: 300, rate: 1e-3 })).losses.slice(-50).reduce((sum, one) => sum + one, 0);
  };
  const [full, coded] = [await loss("f32"), await loss("fp8")];
  expect(Math.abs(coded / full - 1)).toBeLessThan(0.02);
});

const full = (states: string) =>
  planOnly(
    trainingOptions({
      selection: [{ id: "full", settings: {} }],
      model: tinyLlama({ hidden_size: 64, intermediate_size: 128, num_attention_heads: 4, num_key_value_heads: 4, vocab_size: 64 }), // prettier-ignore
      optimizer: { id: "adamw", states },
      session: { evaluate: false },
    }),
  );

test("the update of a weight of whole groups is one kernel that replaces everything where it lies", () => {
  const plan = must(full("fp8").plans[0], "plan");
  const updates = plan.steps.filter(({ step }) => step.kernel.outputs.filter(({ dtype }) => dtype === "u8").length > 0);
  const whole = updates.filter(({ step }) => step.kernel.outputs.length === 9);
  expect(whole).toHaveLength(15);
  for (const { copies } of whole) expect(copies).toEqual([]);
});

test("the plan counts 2.1875 bytes an element, and a short group for each tensor", () => {
  const plan = full("fp8");
  const bytes = new Map([...plan.leaves].map(([name, { shape, dtype }]) => [name, elements(shape) * sizeOf(dtype)]));
  const weights = [...plan.leaves].flatMap(([name, node]) => (node.attributes["role"] === "weight" ? [name] : []));
  for (const weight of weights) {
    const states = [...bytes].filter(([name]) => name.startsWith(`${weight}.adamw.`));
    const count = must(bytes.get(weight), weight) / 4;
    const all = states.reduce((sum, [, own]) => sum + own, 0);
    expect(all).toBeGreaterThanOrEqual(2.1875 * count);
    expect(all).toBeLessThan(2.1875 * count + 24);
    for (const [name, own] of states) expect(must(plan.layout.buffers.get(name), name).bytes - own).toBeLessThan(64);
  }
});
