import { afterEach, describe, expect, test } from "vitest";
import { must } from "../errors.js";
import { makeOptimizer } from "../optim/registry.js";
import { allocatedBytes } from "../runtime/memory.js";
import {
  randomWeights,
  trainedModel as definition,
  trainingBatch,
  trainingOptions,
} from "../testing/method-training.js";
import { relativeDifference } from "../testing/tiny.js";
import { openSession, planOnly } from "./open.js";
import type { RunningSession } from "./session.js";
import type { SessionOptions } from "./types.js";

type Overrides = Partial<SessionOptions> & { method?: string; settings?: Record<string, unknown> };

function options(overrides: Overrides = {}): SessionOptions {
  const { method = "lora", settings = {}, ...session } = overrides;
  return trainingOptions({ selection: [{ id: method, settings }], session });
}

const open: RunningSession[] = [];
afterEach(() => {
  for (const session of open.splice(0)) session.close();
});

interface Outcome {
  readonly losses: number[];
  readonly norms: (number | undefined)[];
  readonly tensors: Map<string, Uint8Array>;
  readonly evaluation: number;
  readonly session: RunningSession;
}

async function train(settings: SessionOptions, { poison = false, steps = 3 } = {}): Promise<Outcome> {
  const session = await openSession(settings, { poison });
  open.push(session);
  await session.load(randomWeights(definition));
  const losses: number[] = [];
  const norms: (number | undefined)[] = [];
  const data = Array.from({ length: steps * settings.accumulate }, (_, number) => trainingBatch(number));
  for (let step = 0; step < steps; step++) {
    const result = await session.step(data.slice(step * settings.accumulate, (step + 1) * settings.accumulate), {
      rate: 0.01,
      step,
    });
    losses.push(result.loss);
    norms.push(result.gradientNorm);
  }
  const { lossSum, weightSum } = await session.evaluate(must(data[0], "batch"));
  const tensors = new Map(
    session.tensors.filter(({ changes }) => changes).map(({ name }) => [name, session.bytes(name).slice()]),
  );
  return { losses, norms, tensors, evaluation: lossSum / weightSum, session };
}

const f32 = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);

const variants: [string, Overrides][] = [
  ["lora", {}],
  // Clipped to a fortieth, one element of a gradient that is nothing but rounding is as large as AdamW's usual epsilon,
  // and its sign moves the element by a whole step, one way or the other. Every kernel of such a step agrees with the
  // interpreter (kernels.test.ts), and so do the losses with SGD, or with an epsilon above the rounding, as here.
  ["lora, clipped", { clip: 0.05, optimizer: makeOptimizer({ epsilon: 1e-6 }) }],
  ["lora, recomputed blocks", { saved: "block" }],
  ["lora, everything saved", { saved: "all" }],
  ["lora, two micro-batches", { accumulate: 2 }],
  ["dora", { settings: { dora: true } }],
  ["lora with dropout", { settings: { dropout: 0.2 } }],
  ["full", { method: "full" }],
  ["full, clipped, recomputed", { method: "full", clip: 1, saved: "block" }],
  ["full, two micro-batches", { method: "full", accumulate: 2 }],
];

describe("compiled to C", () => {
  test.each(variants)("%s in f32 agrees with the interpreter", async (_name, overrides) => {
    const compiled = await train(options({ ...overrides, target: "c" }), { poison: true });
    const oracle = await train(options({ ...overrides, target: "interpret" }), { poison: true });
    expect(relativeDifference(compiled.losses.slice(0, 1), oracle.losses.slice(0, 1))).toBeLessThan(2e-6);
    expect(relativeDifference(compiled.losses, oracle.losses)).toBeLessThan(1e-5);
    expect(compiled.losses[0]).toBeGreaterThan(must(compiled.losses[2], "loss") - 1);
    if (overrides.clip !== undefined)
      expect(relativeDifference(compiled.norms as number[], oracle.norms as number[])).toBeLessThan(1e-4);
    expect(compiled.evaluation).toBeCloseTo(oracle.evaluation, 4);
    for (const [name, bytes] of oracle.tensors) {
      // Adam turns the sign of a rounding error into a whole step where a gradient is nearly zero.
      const actual = f32(must(compiled.tensors.get(name), name));
      const differences = f32(bytes).map((value, index) => Math.abs(value - (actual[index] ?? NaN)));
      const off = differences.filter((difference) => !(difference < 2e-4)).length;
      expect(off / differences.length, name).toBeLessThan(0.01);
    }
  });

  test.each([
    ["lora", {}],
    ["full", { method: "full", optimizer: makeOptimizer({ states: "bf16" }) }],
    ["full with f32 masters", { method: "full", optimizer: makeOptimizer({ master: true }) }],
  ] as [string, Overrides][])("%s in bf16 agrees with the interpreter to bf16's rounding", async (_name, overrides) => {
    const compiled = await train(options({ ...overrides, dtype: "bf16", target: "c" }), { poison: true });
    const oracle = await train(options({ ...overrides, dtype: "bf16", target: "interpret" }));
    expect(relativeDifference(compiled.losses, oracle.losses)).toBeLessThan(5e-3);
  });

  test.each([
    ["lora", {}],
    ["lora in bf16, recomputed", { dtype: "bf16", saved: "block" }],
    ["full", { method: "full", clip: 1 }],
    ["full in bf16", { method: "full", dtype: "bf16", optimizer: makeOptimizer({ states: "bf16" }) }],
  ] as [string, Overrides][])(
    "%s: the plan is what is allocated, and neither threads, poison nor repetition change a bit",
    async (_name, overrides) => {
      const before = allocatedBytes();
      const reference = await train(options({ ...overrides, threads: 1 }));
      expect(allocatedBytes() - before).toBe(reference.session.report.planBytes);
      expect(reference.session.arenaBytes).toBe(planOnly(options({ ...overrides, threads: 1 })).report.planBytes);
      for (const [threads, poison] of [
        [1, true],
        [2, false],
        [3, true],
      ] as const) {
        const other = await train(options({ ...overrides, threads }), { poison });
        expect(other.losses).toEqual(reference.losses);
        for (const [name, bytes] of reference.tensors) expect(must(other.tensors.get(name), name)).toEqual(bytes);
      }
    },
  );

  test("decoding from the cache gives the logits of the whole text", async () => {
    const settings = options({ train: false, decode: { capacity: 24, chunk: 4 } });
    const ids = trainingBatch(0).ids.subarray(0, 15);
    const results = await Promise.all(
      (["c", "interpret"] as const).map(async (target) => {
        const session = await openSession({ ...settings, target });
        open.push(session);
        await session.load(randomWeights(definition));
        const whole = await session.decode(ids, 0);
        let single = new Float32Array();
        for (let index = 0; index < ids.length; index++) {
          single = (await session.decode(ids.subarray(index, index + 1), index)) as Float32Array<ArrayBuffer>;
        }
        expect(relativeDifference(single, whole)).toBeLessThan(1e-5);
        return whole;
      }),
    );
    expect(relativeDifference(must(results[0], "c"), must(results[1], "interpret"))).toBeLessThan(1e-5);
  });
});
