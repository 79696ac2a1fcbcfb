import { expect, test } from "vitest";
import { must } from "../errors.js";
import { composeMethods } from "../methods/compose.js";
import { makeOptimizer } from "../optim/registry.js";
import { allocateArena } from "../runtime/memory.js";
import { createPool } from "../runtime/pool.js";
import { tensorToBytes } from "../targets/interpret/memory.js";
import { compareKernels } from "../testing/differential.js";
import { plausibleValue, sequence, tinyLlama } from "../testing/tiny.js";
import { planOnly } from "./open.js";

const sizes = {
  hidden_size: 48,
  intermediate_size: 80,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  vocab_size: 67,
};
const length = 19;

/** What rounding to the storage type explains of one kernel's values, relative to the largest. */
const tolerance = { f32: 2e-6, bf16: 1e-2 } as const;

test.each([
  ["lora", "f32"],
  ["lora", "bf16"],
  ["full", "f32"],
  ["full", "bf16"],
] as const)("every kernel of a %s step in %s computes what the interpreter does", async (method, dtype) => {
  const definition = tinyLlama(sizes);
  const plan = planOnly({
    definition,
    storedFormat: () => dtype,
    methods: composeMethods([{ id: method, settings: {} }], definition),
    batch: 2,
    length,
    accumulate: 1,
    dtype,
    optimizer: makeOptimizer({ states: dtype }),
    clip: 1,
    saved: "cheap",
    segments: true,
    train: true,
    evaluate: false,
    decode: undefined,
    target: "c",
    threads: 2,
    seed: 7,
  });
  const pool = await createPool(2);
  const arena = allocateArena(pool, plan.report.planBytes);
  try {
    const next = sequence(1);
    for (const [name, leaf] of plan.leaves) {
      const { offset, bytes } = must(plan.layout.buffers.get(name), name);
      tensorToBytes(plausibleValue(leaf, sizes.vocab_size, length, next), arena.view(offset, bytes));
    }
    const differences = await compareKernels(must(plan.plans[0], "plan"), arena, pool);
    expect(differences.length).toBeGreaterThan(100);
    expect(differences.filter(({ difference }) => !(difference < tolerance[dtype]))).toEqual([]);
  } finally {
    arena.release();
    pool.close();
  }
});
