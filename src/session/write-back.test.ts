import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { composeMethods } from "../methods/compose.js";
import { leafAttributes } from "../ops/leaves.js";
import { makeOptimizer } from "../optim/registry.js";
import { compileProgram } from "../passes/pipeline.js";
import type { Stay, Streaming } from "../passes/place.js";
import { bytesOfLeaf, streamFromDisk } from "../passes/place.js";
import type { Schedule } from "../passes/schedule.js";
import { bytesOfValue, layOutLeaves, planProgram } from "../plan/plan.js";
import { streamedSeconds } from "../plan/stall.js";
import { DiskWeights } from "../runtime/disk-weights.js";
import { tensorToBytes } from "../targets/interpret/memory.js";
import { plausibleValue, sequence, tinyLlama } from "../testing/tiny.js";
import type { Backend } from "./backend.js";
import { InterpretBackend } from "./interpret-backend.js";
import { createNativeBackend } from "./native-backend.js";
import { factsOf, planOnly } from "./open.js";
import type { TargetName } from "./types.js";

const [vocabulary, length] = [31, 9];
const definition = tinyLlama({ vocab_size: vocabulary, num_hidden_layers: 3, tie_word_embeddings: false });

/** A step of full tuning with AdamW. */
function fullStep(target: TargetName, clip: number | undefined) {
  const session = planOnly({
    definition,
    storedFormat: () => "f32",
    methods: composeMethods([{ id: "full", settings: {} }], definition),
    batch: 1,
    length,
    accumulate: 1,
    dtype: "f32",
    optimizer: makeOptimizer({}),
    clip,
    saved: "cheap",
    segments: false,
    train: true,
    evaluate: false,
    decode: undefined,
    target,
    threads: 2,
    seed: 3,
  });
  const source = must(session.training?.programs[0], "program");
  const facts = factsOf(target, 2);
  return { leaves: session.leaves, facts, ...compileProgram(source, { saved: "block", target: facts }) };
}

/** Weights that train and the optimizer's states. */
const pages = (leaf: Node): boolean => {
  const { role, shape } = leafAttributes(leaf);
  return (role === "weight" || role === "state") && shape.length === 2;
};
const nothing = (): boolean => false;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "thimble-pages-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
});

interface Run {
  readonly target: TargetName;
  readonly clip: number | undefined;
  readonly onDisk: (leaf: Node) => boolean;
  readonly streaming?: Streaming;
}

/** Two steps with poisoned memory; every persistent tensor afterwards, and the bytes of the arena. */
async function run({ target, clip, onDisk, streaming = {} }: Run) {
  const { leaves, facts, program, schedule: resident } = fullStep(target, clip);
  const schedule = streamFromDisk(resident, onDisk, streaming);
  const layout = layOutLeaves(leaves.values(), facts.alignment, facts.limits, (leaf) =>
    onDisk(leaf) ? "disk" : "device",
  );
  const outputs = must(program.phases.at(-1), "phase").outputs;
  const plan = planProgram("train", schedule, outputs, program.gradients, layout, facts);
  const options = { threads: 2, poison: true, timed: false };
  const backend: Backend = target === "c" ? await createNativeBackend(options) : new InterpretBackend(options);
  const buffers = [...layout.buffers.values()];
  const disk = new DiskWeights(
    buffers.filter(({ tier }) => tier === "disk"),
    { folder, uncached: false },
  );
  try {
    backend.allocate(layout.bytes + plan.extent);
    await backend.prepare([plan]);
    const next = sequence(5);
    for (const [name, leaf] of leaves) {
      const { tier, offset } = must(layout.buffers.get(name), name);
      const bytes = tier === "disk" ? new Uint8Array(bytesOfValue(leaf)) : backend.bytes(offset, bytesOfValue(leaf));
      tensorToBytes(plausibleValue(leaf, vocabulary, length, next), bytes);
      if (tier === "disk") disk.write(name, bytes);
    }
    backend.attach?.(disk);
    for (let step = 0; step < 2; step++) expect(await backend.run(0)).toBe(true);
    const values = [...leaves].map(([name, leaf]) => {
      const { tier, offset } = must(layout.buffers.get(name), name);
      const bytes = tier === "disk" ? disk.read(name) : backend.bytes(offset, bytesOfValue(leaf));
      return [name, createHash("sha256").update(bytes).digest("hex").slice(0, 12)] as const;
    });
    return { values: Object.fromEntries(values), bytes: backend.allocatedBytes, schedule, plan };
  } finally {
    backend.close();
    disk.close();
  }
}

describe.each(["c", "interpret"] as const)("on %s, weights that train and states on disk", (target) => {
  test.each([
    ["updated at birth", undefined, {}],
    ["updated at birth, fetched for every use", undefined, { keep: 0 }],
    ["updated after the global norm is known", 0.5, { keep: 0, ahead: 8 }],
    ["read far ahead", 0.5, { ahead: 0.1 }],
  ] as const)("%s: are written back, and no bit changes", async (_name, clip, streaming) => {
    const resident = await run({ target, clip, onDisk: nothing });
    const paged = await run({ target, clip, onDisk: pages, streaming });
    expect(paged.values).toEqual(resident.values);
    expect(paged.bytes).toBeLessThan(resident.bytes);
    const written = paged.plan.transfers.filter(({ direction }) => direction === "write");
    expect(new Set(written.map(({ stored }) => stored.name)).size).toBe(
      [...must(paged.schedule.stays, "stays")].filter(({ written: at }) => at !== undefined).length,
    );
    expect(written.length).toBeGreaterThan(3 * 7);
  });
});

describe("stays", () => {
  const { schedule: resident } = fullStep("interpret", 0.5);
  const streamed = (streaming: Streaming): Schedule => streamFromDisk(resident, pages, streaming);

  test("cover every use, and no tensor is there twice", () => {
    for (const streaming of [{}, { keep: 0 }, { ahead: 0.01 }, { keep: Infinity }, { keep: 500, ahead: 3 }]) {
      const { stays = [], steps } = streamed(streaming);
      const staysOf = new Map<string, Stay[]>();
      for (const stay of stays) {
        const { name } = leafAttributes(stay.leaf);
        staysOf.set(name, [...(staysOf.get(name) ?? []), stay]);
      }
      for (const own of staysOf.values()) {
        own.forEach(({ fetch, first, last, written = last + 1 }, index) => {
          expect(fetch).toBeLessThanOrEqual(first);
          expect(first).toBeLessThanOrEqual(last);
          expect(written).toBeGreaterThan(last);
          expect(written).toBeLessThanOrEqual(steps.length);
          expect(fetch).toBeGreaterThan(own[index - 1]?.last ?? -1);
        });
      }
      steps.forEach((step, index) => {
        for (const { node } of step.reads) {
          if (!pages(node)) continue;
          const own = staysOf.get(leafAttributes(node).name) ?? [];
          expect(own.filter(({ first, last }) => first <= index && index <= last)).toHaveLength(1);
        }
      });
    }
  });

  test("decide what a disk costs", () => {
    const kernel = (): number => 1e-3;
    const alone = streamedSeconds(resident, kernel);
    expect(alone).toBeCloseTo(resident.steps.length * 1e-3);
    const { stays = [] } = streamed({ keep: 0 });
    const moved = stays.reduce(
      (sum, { leaf, written }) => sum + bytesOfLeaf(leaf) * (written === undefined ? 1 : 2),
      0,
    );
    expect(streamedSeconds(streamed({ keep: 0 }), kernel, Infinity)).toBeCloseTo(alone);
    const slow = streamedSeconds(streamed({ keep: 0 }), kernel, moved / 1000);
    expect(slow).toBeGreaterThan(0.9 * 1000);
    expect(slow).toBeLessThan(1000 + alone);
    const rate = moved / (alone / 2);
    expect(streamedSeconds(streamed({ keep: 0, ahead: 0.01 }), kernel, rate)).toBeLessThan(
      streamedSeconds(streamed({ keep: 0, ahead: 1000 }), kernel, rate),
    );
  });
});
