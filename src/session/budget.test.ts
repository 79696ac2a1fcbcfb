import { afterEach, describe, expect, test } from "vitest";
import { must, ThimbleError } from "../errors.js";
import { elements } from "../ir/shape.js";
import { forwardValues } from "../passes/saved.js";
import { findStages } from "../plan/budget/stages.js";
import { liveExtent } from "../plan/plan.js";
import { interpretFacts } from "../targets/interpret/execute.js";
import { randomWeights, trainingOptions } from "../testing/method-training.js";
import { relativeDifference, sequence, tinyLlama } from "../testing/tiny.js";
import { formSession } from "./form.js";
import { openSession, planOnly } from "./open.js";
import { outputsOf } from "./predict.js";
import type { RunningSession } from "./session.js";
import type { SessionBatch, SessionOptions } from "./types.js";

const vocabulary = 33;

interface Shape {
  readonly method: string;
  readonly blocks: number;
  readonly batch: number;
  readonly length: number;
  readonly accumulate: number;
  readonly clip: number | undefined;
  readonly evaluate: boolean;
}

function optionsOf({ method, blocks, ...shape }: Shape, more: Partial<SessionOptions> = {}): SessionOptions {
  return trainingOptions({
    selection: [{ id: method, settings: method === "lora" ? { r: 2 } : {} }],
    model: tinyLlama({ num_hidden_layers: blocks, vocab_size: vocabulary }),
    session: { ...shape, saved: "fastest", target: "interpret", ...more },
  });
}

const budgetOf = (bytes: number | "min"): Pick<SessionOptions, "budget"> => ({
  budget: { bytes, overheadBytes: 0, allowLossy: false },
});

/** Bytes of the smallest plan there is, as the refusal of a budget that is too small gives them. */
function smallestPlan(shape: Shape): number {
  try {
    planOnly(optionsOf(shape, budgetOf(1)));
  } catch (error) {
    if (error instanceof ThimbleError) return must(error.facts["smallestPlan"], "smallest plan");
    throw error;
  }
  throw new Error("a budget of one byte is kept to");
}

function batchOf({ batch, length }: SessionOptions, seed: number): SessionBatch {
  const make = (value: (index: number) => number): Int32Array =>
    Int32Array.from({ length: batch * length }, (_, i) => value(i));
  return {
    ids: make((index) => (index * 13 + seed * 29) % vocabulary),
    labels: make((index) => (index * 13 + seed * 29 + 13) % vocabulary),
    weights: Float32Array.from(make((index) => (index % 5 === 0 ? 0 : 1))),
    positions: make((index) => index % length),
    segments: make((index) => Math.floor((index % length) / 4)),
  };
}

const open: RunningSession[] = [];
afterEach(() => {
  for (const session of open.splice(0)) session.close();
});

interface Trained {
  readonly session: RunningSession;
  readonly values: ReadonlyMap<string, Float32Array>;
  readonly evaluation: number;
}

/** Two steps, with poison in all memory that holds nothing. */
async function train(options: SessionOptions): Promise<Trained> {
  const session = await openSession(options, { poison: true });
  open.push(session);
  await session.load(randomWeights(options.definition));
  for (let step = 0; step < 2; step++) {
    const batches = Array.from({ length: options.accumulate }, (_, index) => batchOf(options, step * 7 + index));
    await session.step(batches, { rate: 0.01, step });
  }
  const { lossSum } = options.evaluate ? await session.evaluate(batchOf(options, 99)) : { lossSum: 0 };
  const changed = session.tensors.filter(({ changes }) => changes);
  const values = new Map(changed.map(({ name }) => [name, new Float32Array(session.bytes(name).slice().buffer)]));
  return { session, values, evaluation: lossSum };
}

function expectEqual(actual: Trained, expected: Trained, exact: boolean): void {
  for (const [name, values] of expected.values) {
    const own = must(actual.values.get(name), name);
    if (exact) expect(own, name).toEqual(values);
    else expect(relativeDifference(own, values), name).toBeLessThan(2e-3);
  }
  if (exact) expect(actual.evaluation).toBe(expected.evaluation);
  else expect(relativeDifference([actual.evaluation], [expected.evaluation])).toBeLessThan(1e-4);
}

const shapes: Shape[] = Array.from({ length: 6 }, (_, index) => {
  const next = sequence(index * 77 + 5);
  const of = (count: number): number => Math.floor((next() + 0.5) * count * 0.999);
  return {
    method: index % 2 === 0 ? "lora" : "full",
    blocks: 1 + of(4),
    batch: [1, 2, 4][of(3)] ?? 1,
    length: 5 + of(6),
    accumulate: 1 + of(2),
    clip: of(2) === 0 ? undefined : 0.5,
    evaluate: of(2) === 0,
  };
});

describe("a run with a memory budget", () => {
  test.each(shapes)("keeps to it and learns the same: $method, $blocks blocks, batch $batch", async (shape) => {
    const plain = optionsOf(shape);
    const most = planOnly(plain).report.planBytes;
    const least = smallestPlan(shape);
    expect(least).toBeLessThanOrEqual(most);
    expect(planOnly(optionsOf(shape, budgetOf("min"))).report.planBytes).toBeLessThanOrEqual(1.05 * least);
    const reference = await train(plain);
    const next = sequence(shape.blocks * 31 + shape.length);
    const budgets = [least, ...[0, 1].map(() => Math.round(least + (next() + 0.5) * (most - least)))];
    for (const bytes of budgets) {
      const options = optionsOf(shape, budgetOf(bytes));
      const { report } = planOnly(options);
      expect(report.planBytes).toBeLessThanOrEqual(bytes);
      const trained = await train(options);
      expect(trained.session.arenaBytes).toBe(report.planBytes);
      expectEqual(
        trained,
        reference,
        report.decisions.every(({ exact }) => exact),
      );
    }
    expect(planOnly(optionsOf(shape, budgetOf(most))).report.decisions).toEqual([]);
  });

  test("that is too small is refused with one that works", () => {
    const shape: Shape = { method: "lora", blocks: 3, batch: 2, length: 12, accumulate: 1, clip: 1, evaluate: true };
    const overheadBytes = 1000;
    const plan = (bytes: number | "min"): ReturnType<typeof planOnly> =>
      planOnly(optionsOf(shape, { budget: { bytes, overheadBytes, allowLossy: false } }));
    const refused = (bytes: number): ThimbleError => {
      try {
        plan(bytes);
      } catch (error) {
        if (error instanceof ThimbleError) return error;
        throw error;
      }
      throw new Error("not refused");
    };
    const { code, facts, where, fix } = refused(1);
    const smallest = must(facts["smallestBudget"], "smallest budget");
    expect(code).toBe("budget-too-small");
    expect(fix).toContain(String(smallest));
    expect(where).toContain("at the peak");
    expect(refused(1).toJSON()).toMatchObject({ smallestBudget: smallest });
    expect(plan(smallest).report.planBytes).toBe(smallest - overheadBytes);
    expect(plan("min").report.planBytes).toBeGreaterThanOrEqual(smallest - overheadBytes);
    expect(plan("min").report.planBytes).toBeLessThanOrEqual(1.05 * (smallest - overheadBytes));
    expect(refused(smallest - 1).facts["smallestBudget"]).toBe(smallest);
  });

  test("in compiled code makes again the very same bits", async () => {
    const shape: Shape = { method: "lora", blocks: 6, batch: 1, length: 20, accumulate: 1, clip: 1, evaluate: true };
    const compiled = { target: "c" } as const;
    const reference = await train(optionsOf(shape, compiled));
    const smallest = await train(optionsOf(shape, { ...compiled, ...budgetOf("min") }));
    expect(smallest.session.arenaBytes).toBeLessThan(reference.session.arenaBytes);
    expect(smallest.session.report.decisions.map(({ what }) => what).join("; ")).toContain("recompute");
    expectEqual(smallest, reference, true);
  });
});

describe("the smallest plan", () => {
  test.each(["full", "lora"])(
    "of %s is no larger than any way to keep and recompute the values of a block",
    (method) => {
      const shape: Shape = { method, blocks: 1, batch: 1, length: 12, accumulate: 1, clip: undefined, evaluate: false };
      const formed = formSession(optionsOf(shape), interpretFacts);
      const program = must(formed.programs[0], "program");
      const values = must(forwardValues(program.program, program.kernels), "forward values");
      const inside = must(findStages(values).blocks[0], "block").filter((node) => values.read.has(node));
      // Smaller values, such as row statistics, are made again with what they come from.
      const large = inside.filter((node) => elements(node.shape) > shape.length * 4);
      const others = must(findStages(values).blocks[0], "block").filter((node) => !large.includes(node));
      expect(large.length).toBeGreaterThan(6);
      let least = Infinity;
      for (let subset = 0; subset < 2 ** large.length; subset++) {
        const recomputed = new Set([...others, ...large.filter((_, index) => (subset >> index) & 1)]);
        for (const node of values.atLoss) recomputed.delete(node);
        const schedule = formed.schedule(program, { recomputed });
        const { gradients } = program.program;
        least = Math.min(
          least,
          liveExtent(schedule, outputsOf(program.program), gradients, formed.layout, interpretFacts),
        );
      }
      expect(smallestPlan(shape) - formed.layout.bytes).toBeLessThanOrEqual(least);
    },
  );
});
