import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { must } from "../../errors.js";
import { openSession } from "../../session/open.js";
import type { RunningSession } from "../../session/session.js";
import type { SessionBatch, SessionOptions } from "../../session/types.js";
import { largestDifference } from "../../testing/method-bench.js";
import { randomWeights, trainingOptions } from "../../testing/method-training.js";
import { toyModel } from "../../testing/toy-model.js";
import { allocationAt } from "./schedule.js";
import { adaloraConfig, settled } from "./config.js";

const toy = { init_r: 3, target_r: 2, alpha: 5, total_step: 9 };
const adalora = (settings: Record<string, unknown> = toy) => ({ id: "adalora", settings });

const model = toyModel();
const settingsOf = (more: Record<string, unknown>) => settled(adaloraConfig.parse({ ...toy, ...more }));

interface Reference {
  readonly weights: Record<string, number[]>;
  readonly start: Record<string, number[]>;
  readonly steps: { loss: number; term: number; budget: number; diagonals: Record<string, number[]> }[];
  readonly end: Record<string, number[]>;
}

const reference = JSON.parse(
  readFileSync(new URL("fixtures/peft.json", import.meta.url), "utf8"),
) as unknown as Reference;
const referenceSettings = { init_r: 3, target_r: 1, alpha: 8, total_step: 10, tinit: 2, tfinal: 2, deltaT: 2 };

/** Ten tokens of their own record each, as in scripts/fixtures/adalora.py; with two parts, five of them each. */
function referenceBatches(step: number, parts: number): SessionBatch[] {
  const count = 10 / parts;
  return Array.from({ length: parts }, (_, part) => {
    const of = (value: (index: number) => number): Int32Array =>
      Int32Array.from({ length: count }, (_value, index) => value(part * count + index));
    return {
      ids: of((index) => (index * 3 + step * 7) % 11),
      labels: of((index) => (index * 5 + step * 2) % 11),
      weights: new Float32Array(count).fill(1),
      positions: new Int32Array(count),
      segments: Int32Array.from({ length: count }, (_, index) => index),
    };
  });
}

function referenceOptions(session: Partial<SessionOptions>, settings = {}): SessionOptions {
  return trainingOptions({
    selection: [adalora({ ...referenceSettings, ...settings })],
    model,
    session: { batch: 1, length: 10 / (session.accumulate ?? 1), ...session },
  });
}

const floats = (session: RunningSession, name: string): Float32Array => {
  const bytes = session.bytes(name);
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4).slice();
};

async function openReference(options: SessionOptions): Promise<RunningSession> {
  const session = await openSession(options, {});
  await session.load(randomWeights(model));
  for (const [name, values] of [...Object.entries(reference.weights), ...Object.entries(reference.start)]) {
    session.bytes(name).set(new Uint8Array(Float32Array.from(values).buffer));
  }
  return session;
}

describe("AdaLoRA against PEFT", () => {
  test.each([
    ["one batch", { target: "c" as const }],
    ["two micro-batches, interpreted", { target: "interpret" as const, accumulate: 2 }],
  ])("ten steps have its losses, terms, masks and values: %s", async (_title, session) => {
    const options = referenceOptions(session);
    const running = await openReference(options);
    try {
      for (const [index, { loss, term, diagonals }] of reference.steps.entries()) {
        const batches = referenceBatches(index + 1, options.accumulate);
        const made = await running.step(batches, { rate: 0.05, step: index });
        expect(Math.abs(made.loss - loss)).toBeLessThan(2e-5);
        expect(Math.abs(must(made.regularisation, "term") - term)).toBeLessThan(2e-5);
        for (const [name, values] of Object.entries(diagonals)) {
          const own = floats(running, name);
          expect([...own].map((value) => value === 0)).toEqual(values.map((value) => value === 0));
          expect(largestDifference(own, values)).toBeLessThan(1e-4);
        }
      }
      for (const [name, values] of Object.entries(reference.end)) {
        expect(largestDifference(floats(running, name), values)).toBeLessThan(1e-4);
      }
    } finally {
      running.close();
    }
  });

  test("has its budgets", () => {
    const settings = settingsOf(referenceSettings);
    const budgets = reference.steps.map((_, index) => allocationAt(settings, 4, index + 1).budget);
    expect(budgets).toEqual(reference.steps.map(({ budget }) => budget));
  });

  test("the orthogonality term is no part of the loss that is reported, nor there at weight 0", async () => {
    const session = await openReference(referenceOptions({}, { orth_reg_weight: 0 }));
    const made = await session.step(referenceBatches(1, 1), { rate: 0.05, step: 0 });
    session.close();
    expect(made.regularisation).toBeUndefined();
    expect(Math.abs(made.loss - must(reference.steps[0], "step").loss)).toBeLessThan(2e-5);
  });
});
