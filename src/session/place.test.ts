import { createHash } from "node:crypto";
import { appendFileSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { must } from "../errors.js";
import { elements } from "../ir/shape.js";
import type { WeightSource } from "../io/weight-source.js";
import type { ModelDefinition } from "../models/types.js";
import { storageFormat } from "../storage/registry.js";
import { randomWeights, trainingOptions } from "../testing/method-training.js";
import { sequence, tinyLlama } from "../testing/tiny.js";
import { openSession, planOnly } from "./open.js";
import type { PlaceOptions } from "./place.js";
import type { RunningSession } from "./session.js";
import type { SessionBatch, SessionOptions } from "./types.js";

const [batch, length, vocabulary] = [2, 11, 67];

/** A small model of random sizes; rows are whole blocks of the formats with 32 elements. */
function randomModel(seed: number): ModelDefinition {
  const next = sequence(seed * 7919 + 13);
  const pick = <T>(...from: readonly T[]): T => must(from[Math.floor((next() + 0.5) * 0.999 * from.length)], "choice");
  return tinyLlama({
    vocab_size: vocabulary,
    hidden_size: pick(32, 64),
    intermediate_size: pick(32, 64, 96),
    num_hidden_layers: pick(1, 2, 3),
    num_attention_heads: 2,
    num_key_value_heads: pick(1, 2),
    tie_word_embeddings: pick(true, false),
  });
}

/** Matrices of blocks in `format`, all else in the run's type. */
const formatsOf = (model: ModelDefinition, format: string, dtype: string) => (name: string) =>
  model.parameters.some((spec) => spec.name === name && spec.name.includes("proj")) ? format : dtype;

/** Random weights from one file that holds every tensor in the format in which it is used, at addresses of no alignment. */
async function weightsInFile(
  model: ModelDefinition,
  format: (name: string) => string,
  path: string,
): Promise<WeightSource> {
  const source = randomWeights(model);
  const offsets = new Map<string, number>();
  writeFileSync(path, "header");
  let offset = 6;
  for (const { name, shape } of model.parameters) {
    const { block } = storageFormat(format(name));
    const bytes = new Uint8Array((elements(shape) / block.elements) * block.bytes);
    await source.readInto(name, bytes, format(name));
    appendFileSync(path, bytes);
    offsets.set(name, offset);
    offset += bytes.length;
  }
  return { ...source, place: (name) => ({ path, offset: must(offsets.get(name), name) }) };
}

function batches(count: number): SessionBatch[] {
  return Array.from({ length: count }, (_, step) => {
    const tokens = Array.from({ length: batch * length }, (_unused, index) => index);
    return {
      ids: Int32Array.from(tokens, (index) => (index * 13 + step * 29) % vocabulary),
      labels: Int32Array.from(tokens, (index) => (index * 13 + 13 + step * 29) % vocabulary),
      weights: Float32Array.from(tokens, (index) => (index % 5 === 0 ? 0 : 1)),
      positions: Int32Array.from(tokens, (index) => index % length),
      segments: new Int32Array(0),
    };
  });
}

interface Case extends Partial<SessionOptions> {
  readonly model: ModelDefinition;
  readonly format?: string;
  readonly method?: string;
  readonly settings?: Record<string, unknown>;
}

function options({ model, format, method = "lora", settings = {}, ...rest }: Case): SessionOptions {
  const dtype = rest.dtype ?? "f32";
  const storedFormat = formatsOf(model, format ?? dtype, dtype);
  const session = { storedFormat, batch, length, segments: false, ...rest };
  return trainingOptions({ selection: [{ id: method, settings }], model, session });
}

let folder: string;
const open: RunningSession[] = [];
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "thimble-place-"));
});
afterEach(() => {
  for (const session of open.splice(0)) session.close();
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

const everything = (more: Partial<PlaceOptions> = {}): PlaceOptions => ({ disk: () => true, folder, ...more });

async function train(settings: SessionOptions, { poison = false, weights = randomWeights(settings.definition) } = {}) {
  const session = await openSession(settings, { poison });
  open.push(session);
  await session.load(weights);
  const losses: number[] = [];
  const data = batches(2 * settings.accumulate);
  for (let step = 0; step < 2; step++) {
    const some = data.slice(step * settings.accumulate, (step + 1) * settings.accumulate);
    losses.push((await session.step(some, { rate: 0.01, step })).loss);
  }
  losses.push((await session.evaluate(must(data[0], "batch"))).lossSum);
  const changed = session.tensors.filter(({ changes }) => changes);
  const tensors = Object.fromEntries(
    changed.map(({ name }) => [name, createHash("sha256").update(session.bytes(name)).digest("hex")]),
  );
  return { session, outcome: { losses, tensors } };
}

const variants: readonly [string, Omit<Case, "model">][] = [
  ["f32", {}],
  ["f32, recomputed blocks", { saved: "block" }],
  ["f32, everything saved, two micro-batches", { saved: "all", accumulate: 2 }],
  ["bf16, recomputed blocks, clipped", { dtype: "bf16", saved: "block", clip: 0.1 }],
  ["q8_0", { format: "q8_0" }],
  ["nf4 in bf16, recomputed blocks", { format: "nf4-64-dq", dtype: "bf16", saved: "block" }],
  ["dora", { settings: { dora: true } }],
];

describe("weights on disk change no bit", () => {
  test.each(variants.map(([name, change], seed) => [name, seed, change] as const))(
    "%s",
    async (_name, seed, change) => {
      const settings = options({ model: randomModel(seed), ...change });
      const { outcome } = await train(settings);
      const tight = everything({ ahead: 4, keep: 0 });
      const cases: [Partial<SessionOptions>, boolean][] = [
        [{ place: everything() }, true],
        [{ place: tight, threads: 1 }, true],
        [{ place: everything({ ahead: 0.01, keep: Infinity, uncached: true }) }, false],
        [{ place: everything({ disk: (name) => name.length % 2 === 0 }) }, true],
      ];
      for (const [more, poison] of cases) {
        const streamed = await train({ ...settings, ...more }, { poison });
        expect(streamed.outcome).toEqual(outcome);
        expect(streamed.session.arenaBytes).toBe(streamed.session.report.planBytes);
      }
      expect(readdirSync(folder).filter((name) => name.startsWith("weights-"))).toEqual([]);
    },
  );

  test.each(variants.slice(1, 6))("on the interpreter: %s", async (_name, change) => {
    const settings = options({ model: randomModel(3), target: "interpret", ...change });
    const { outcome } = await train(settings);
    for (const place of [everything(), everything({ ahead: 4, keep: 0 })]) {
      expect((await train({ ...settings, place }, { poison: true })).outcome).toEqual(outcome);
    }
  });

  test("whatever the sizes of the model", async () => {
    for (let seed = 20; seed < 28; seed++) {
      const settings = options({
        model: randomModel(seed),
        target: "interpret",
        saved: seed % 2 === 0 ? "block" : "cheap",
      });
      const { outcome } = await train(settings);
      const place = everything({ ahead: 2 ** ((seed % 7) - 4), keep: (seed % 3) * 4000 });
      expect((await train({ ...settings, place }, { poison: true })).outcome, `model ${seed}`).toEqual(outcome);
    }
  });

  test("while decoding", async () => {
    const settings = options({
      model: randomModel(1),
      train: false,
      evaluate: false,
      decode: { capacity: 24, chunk: 4 },
    });
    const [plain, streamed] = await Promise.all(
      [settings, { ...settings, place: everything() }].map(async (some) => {
        const session = await openSession(some, { poison: true });
        open.push(session);
        await session.load(randomWeights(settings.definition));
        return session.decode(
          Int32Array.from({ length: 9 }, (_, index) => index * 3),
          0,
        );
      }),
    );
    expect(streamed).toEqual(plain);
  });

  test("with a method that changes the base before training", async () => {
    const settings = options({ model: randomModel(2), settings: { init: "pissa", r: 2 } });
    const { outcome, session } = await train(settings);
    const streamed = await train({ ...settings, place: everything() });
    expect(streamed.outcome).toEqual(outcome);
    for (const { name } of session.tensors.filter(({ role }) => role === "weight")) {
      expect(Buffer.compare(streamed.session.bytes(name), session.bytes(name)), name).toBe(0);
    }
  });
});

describe("weights that lie in a file in their format", () => {
  const settings = options({ model: randomModel(4), format: "q8_0" });
  const path = (): string => join(folder, "model.bin");
  const inFile = (): Promise<WeightSource> => weightsInFile(settings.definition, settings.storedFormat, path());

  test("are read from there, and nothing is written", async () => {
    const { outcome } = await train(settings);
    const place = everything({ folder: join(folder, "never-made") });
    const streamed = await train({ ...settings, place }, { weights: await inFile(), poison: true });
    expect(streamed.outcome).toEqual(outcome);
    expect(readdirSync(folder)).not.toContain("never-made");
  });

  test("must stay as they are", async () => {
    const { session } = await train({ ...settings, place: everything() }, { weights: await inFile() });
    truncateSync(path(), 1000);
    await expect(session.step(batches(1), { rate: 0.01, step: 2 })).rejects.toMatchObject({
      code: "disk-weights-changed",
      where: path(),
    });
  });
});

describe("the plan", () => {
  const model = tinyLlama({ vocab_size: vocabulary, hidden_size: 64, intermediate_size: 96, num_hidden_layers: 12 });
  const settings = options({ model, saved: "block", evaluate: false });

  test("tells what lies on disk and what is read, and takes less memory", () => {
    const resident = planOnly(settings).report;
    const { report, layout } = planOnly({ ...settings, place: everything() });
    const matrices = model.parameters.filter(({ shape }) => shape.length === 2);
    const bytes = matrices.reduce((sum, { shape }) => sum + elements(shape) * 4, 0);
    expect(resident.disk).toBeUndefined();
    expect(report.disk).toMatchObject({ bytes: layout.diskBytes });
    expect(layout.diskBytes - bytes).toBeLessThan(4096 * matrices.length);
    // Once for forward; once for backward, but for what is still there; the tied embedding for the loss again.
    const read = must(report.disk?.programs[0], "program").read;
    expect(read).toBeGreaterThan(1.8 * bytes);
    expect(read).toBeLessThan(2.2 * bytes);
    expect(report.planBytes).toBeLessThan(resident.planBytes - 0.7 * bytes);
    expect(report.planBytes).toBeLessThan(1.05 * report.boundBytes);
  });

  test("reads more often or keeps more, as it is told", () => {
    const planned = (more: Partial<PlaceOptions>) => planOnly({ ...settings, place: everything(more) }).report;
    const read = (more: Partial<PlaceOptions>): number => must(planned(more).disk?.programs[0], "program").read;
    expect(read({ keep: 0 })).toBeGreaterThan(read({}));
    expect(read({ keep: Infinity })).toBeLessThan(read({}));
    expect(planned({ keep: 0, ahead: 100 }).planBytes).toBeLessThan(planned({}).planBytes);
    expect(planned({}).planBytes).toBeLessThan(planned({ keep: Infinity }).planBytes);
  });

  test("uses the disk for a memory budget, where it may and must", () => {
    const small = tinyLlama({ vocab_size: vocabulary, hidden_size: 96, intermediate_size: 96, num_hidden_layers: 4 });
    const within = (bytes: number | "min", place: PlaceOptions | undefined) =>
      planOnly({
        ...options({ model: small, evaluate: false, target: "interpret", settings: { r: 1 } }),
        place,
        budget: { bytes, overheadBytes: 0, allowLossy: false },
      }).report;
    const may = everything({ whenNeeded: true });
    const resident = within("min", undefined).planBytes;
    const least = within("min", may);
    expect(least.planBytes).toBeLessThan(0.8 * resident);
    expect(least.disk?.bytes).toBeGreaterThan(0);
    expect(within(10 * resident, may).disk).toBeUndefined();
    const between = within((resident + least.planBytes) / 2, may);
    expect(between.planBytes).toBeLessThanOrEqual((resident + least.planBytes) / 2);
    const what = expect.stringContaining("on disk") as string;
    expect(between.decisions).toContainEqual(expect.objectContaining({ what }));
  });

  test("keeps in memory what trains", () => {
    const full = options({ model, method: "full", place: everything() });
    expect(planOnly(full).report.disk).toBeUndefined();
  });
});
