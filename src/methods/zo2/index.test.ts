import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { must } from "../../errors.js";
import { makeOptimizer } from "../../optim/registry.js";
import type { ProgramPlan } from "../../plan/plan.js";
import { openSession, planOnly } from "../../session/open.js";
import type { RunningSession } from "../../session/session.js";
import type { SessionOptions } from "../../session/types.js";
import { batchOf, changingBytes, floats, optionsOf } from "../../testing/mezo.js";
import { randomWeights } from "../../testing/method-training.js";
import { checkMethodBattery } from "../../testing/methods.js";
import { relativeDifference, tinyLlama } from "../../testing/tiny.js";
import { restoreCheckpoint, verifyCheckpoint, writeCheckpoint } from "../../train/checkpoint.js";
import { sessionTensors } from "../../train/export/tensor-source.js";
import { diskFiles } from "../../train/files.js";
import type { MethodSelection } from "../compose.js";
import { composeMethods } from "../compose.js";

checkMethodBattery({ title: "zo2", selection: { id: "zo2", settings: {} } });

const folder = mkdtempSync(join(tmpdir(), "thimble-zo2-"));
afterAll(() => {
  rmSync(folder, { recursive: true });
});
const open: RunningSession[] = [];
afterEach(() => {
  for (const session of open.splice(0)) session.close();
});

const tied = tinyLlama({ num_hidden_layers: 4 });
const untied = tinyLlama({ num_hidden_layers: 4, tie_word_embeddings: false });
const packable = tinyLlama({ hidden_size: 32, intermediate_size: 64, num_hidden_layers: 6 });
const decaying = { id: "sgd", weight_decay: 0.1 };
const place = { disk: () => false, folder };

type Settings = Readonly<Record<string, unknown>>;
interface Case {
  readonly mezo?: Settings;
  /** undefined = mezo alone, all weights in memory. */
  readonly zo2?: Settings | undefined;
  readonly beside?: readonly MethodSelection[];
  readonly optimizer?: Settings;
  readonly session?: Partial<SessionOptions>;
}

function optionsFor({ mezo = {}, zo2, beside = [], optimizer = decaying, session = {} }: Case): SessionOptions {
  const selection = [
    ...beside,
    { id: "mezo", settings: mezo },
    ...(zo2 === undefined ? [] : [{ id: "zo2", settings: zo2 }]),
  ];
  return optionsOf(selection, { definition: tied, optimizer: makeOptimizer(optimizer), place, ...session });
}

async function start(given: Case): Promise<RunningSession> {
  const options = optionsFor(given);
  const session = await openSession(options, { poison: true });
  open.push(session);
  await session.load(randomWeights(options.definition));
  return session;
}

const rateOf = (step: number): number => 1e-2 / (step + 1);

/** Losses and differences of some steps. */
async function steps(session: RunningSession, from: number, to: number, definition = tied): Promise<unknown[]> {
  const made: unknown[] = [];
  for (let step = from; step < to; step++) {
    const { loss, differences } = await session.step([batchOf(step, definition)], { rate: rateOf(step), step });
    made.push([loss, differences]);
  }
  return made;
}

/** The trained tensors, without what is pending. */
function weights(session: RunningSession): Map<string, Uint8Array> {
  return new Map([...changingBytes(session)].filter(([name]) => !name.startsWith("pending.")));
}

describe("is mezo with the same keys, to the bit", () => {
  test.each([
    ["three directions", { mezo: { directions: 3 }, session: { definition: untied } }],
    ["in place", { mezo: { perturbation: "in_place", directions: 2 }, session: { definition: untied } }],
    ["momentum that travels", { optimizer: { id: "sgd", momentum: 0.9 } }],
    ["AdamW", { optimizer: { id: "adamw", weight_decay: 0.1 } }],
    ["bf16 with masters", { optimizer: { id: "sgd", master: true }, session: { dtype: "bf16" } }],
    ["bf16", { session: { dtype: "bf16" } }],
    ["lora", { beside: [{ id: "lora", settings: { r: 2 } }] }],
    ["peqa", { beside: [{ id: "peqa", settings: {} }], optimizer: { id: "sgd" } }],
    [
      "lora over packed blocks",
      {
        beside: [{ id: "lora", settings: { r: 2 } }],
        session: { definition: packable, storedFormat: (name: string) => (/layers.*proj/.test(name) ? "q8_0" : "f32") },
      },
    ],
    ["qlora", { beside: [{ id: "qlora", settings: { r: 2 } }] }],
  ] as const)("%s", async (_name, given: Case) => {
    const definition = given.session?.definition ?? tied;
    const [plain, moved] = [await start(given), await start({ ...given, zo2: {} })];
    expect(await steps(moved, 0, 3, definition)).toEqual(await steps(plain, 0, 3, definition));
    expect(moved.current).toBe(false);
    await moved.settle();
    expect(moved.current).toBe(true);
    expect(weights(moved)).toEqual(weights(plain));
    expect(moved.report.planBytes).toBeLessThan(plain.report.planBytes);
  });

  test.each([tied, untied])("after 20 compiled steps, and one behind without the last update", async (definition) => {
    const given = { session: { definition, target: "c" as const } };
    const [plain, moved] = [await start(given), await start({ ...given, zo2: {} })];
    expect(await steps(moved, 0, 19, definition)).toEqual(await steps(plain, 0, 19, definition));
    const before = weights(plain);
    expect(await steps(moved, 19, 20, definition)).toEqual(await steps(plain, 19, 20, definition));
    expect(weights(moved)).toEqual(before);
    await moved.settle();
    expect(weights(moved)).toEqual(weights(plain));
    expect(moved.arenaBytes).toBe(moved.report.planBytes);
  });

  test("whichever blocks travel, and one after another or side by side", async () => {
    const session = { target: "c" } as const;
    const plain = await start({ session });
    const expected = await steps(plain, 0, 3);
    const subsets = Array.from({ length: 15 }, (_, index) =>
      [0, 1, 2, 3].filter((block) => ((index + 1) >> block) & 1),
    );
    for (const settings of [
      ...subsets.map((blocks) => ({ blocks })),
      { overlap: false },
      { blocks: [0, 2], overlap: false },
    ]) {
      const moved = await start({ zo2: settings, session });
      expect(await steps(moved, 0, 3), JSON.stringify(settings)).toEqual(expected);
      await moved.settle();
      expect(weights(moved)).toEqual(weights(plain));
    }
  });

  test("with sums over micro-batches, and after any number of evaluations", async () => {
    const given = { session: { accumulate: 2, evaluate: true } };
    const [plain, moved] = [await start(given), await start({ ...given, zo2: {} })];
    for (let step = 0; step < 3; step++) {
      const batches = [batchOf(2 * step, tied), batchOf(2 * step + 1, tied)];
      const [expected, actual] = await Promise.all(
        [plain, moved].map((session) => session.step(batches, { rate: rateOf(step), step })),
      );
      expect(actual?.differences).toEqual(expected?.differences);
      expect(await moved.evaluate(batchOf(9, tied))).toEqual(await plain.evaluate(batchOf(9, tied)));
      expect(weights(moved)).toEqual(weights(plain));
    }
  });

  test("and a loss that is not finite is never applied, nor kept in a checkpoint", async () => {
    const [plain, moved] = [await start({}), await start({ zo2: {} })];
    const broken = batchOf(1, tied);
    broken.weights.fill(Infinity);
    for (const session of [plain, moved]) {
      await steps(session, 0, 1);
      const { differences } = await session.step([broken], { rate: 1e-2, step: 1 });
      expect(differences?.every(Number.isFinite)).toBe(false);
    }
    for (const [name, bytes] of changingBytes(moved)) {
      if (name !== "pending.step") expect(floats(bytes).every(Number.isFinite), name).toBe(true);
    }
    await steps(plain, 2, 3);
    await steps(moved, 2, 3);
    await moved.settle();
    expect(weights(moved)).toEqual(weights(plain));
  });
});

describe("the last update", () => {
  test("is in a checkpoint, from which a run goes on to the same bits", async () => {
    const given = { zo2: {}, session: { evaluate: true }, optimizer: { id: "sgd", momentum: 0.5, weight_decay: 0.1 } };
    const whole = await start(given);
    const expected = await steps(whole, 0, 4);
    const first = await start(given);
    const begun = await steps(first, 0, 2);
    expect(first.current).toBe(false);
    const out = mkdtempSync(join(folder, "run-"));
    const manifest = { step: 2, metricsBytes: 0, run: {}, rates: [], machine: {} };
    const made = await writeCheckpoint(diskFiles, out, first, manifest);
    const second = await start(given);
    await restoreCheckpoint(diskFiles, await verifyCheckpoint(diskFiles, made), second);
    expect(second.current).toBe(false);
    expect(changingBytes(second)).toEqual(changingBytes(first));
    expect(await second.evaluate(batchOf(7, tied))).toEqual(await first.evaluate(batchOf(7, tied)));
    expect([...begun, ...(await steps(second, 2, 4))]).toEqual(expected);
    await Promise.all([whole.settle(), second.settle()]);
    expect(changingBytes(second)).toEqual(changingBytes(whole));
  });

  test("is applied before an evaluation or an export; without leave to do so, these are refused", async () => {
    const [free, bound] = [true, false].map((automatic) =>
      start({ zo2: { auto_flush: automatic }, session: { evaluate: true } }),
    );
    for (const session of [await must(free, "session"), await must(bound, "session")]) {
      await steps(session, 0, 1);
      const methods = composeMethods([{ id: "zo2", settings: {} }], tied);
      expect(() => sessionTensors(session, methods)).toThrow("has not been applied");
      const evaluated = session.evaluate(batchOf(3, tied));
      if (session === (await bound)) {
        await expect(evaluated).rejects.toMatchObject({ code: "weights-pending" });
        await session.settle();
        await session.evaluate(batchOf(3, tied));
      } else await evaluated;
      expect(session.current).toBe(true);
      const parameter = must(tied.parameters.at(-1), "parameter");
      const read = await sessionTensors(session, methods).read(parameter);
      expect(read).toEqual(floats(session.bytes(parameter.name)));
    }
  });

  test("is replayed from sums alone", async () => {
    const [plain, moved] = [
      await start({ session: { accumulate: 2 } }),
      await start({ zo2: {}, session: { accumulate: 2 } }),
    ];
    for (const session of [plain, moved]) {
      for (let step = 0; step < 3; step++) {
        await session.apply(new Map([["estimate.difference0", 0.1 * (step + 1)]]), { rate: rateOf(step), step });
      }
    }
    expect(weights(moved)).toEqual(weights(plain));
  });
});

describe("the schedule", () => {
  const planned = (zo2: Settings, name = "train", more: Case = {}): ProgramPlan => {
    const { plans } = planOnly(optionsFor({ ...more, zo2, session: { evaluate: true, ...more.session } }));
    return must(
      plans.find((plan) => plan.name === name),
      name,
    );
  };
  const blockOf = (name: string): number => Number(/layers\.(\d+)/.exec(name)?.[1] ?? NaN);

  /** The most blocks that have places in memory at one step. */
  function mostLive({ buffers, transfers, steps: all }: ProgramPlan): number {
    const places = new Set(transfers.map(({ memory }) => memory));
    const live = all.map((_, step) => {
      const there = buffers.filter((one) => places.has(one) && one.start <= step && step <= one.end);
      return new Set(there.map(({ name }) => blockOf(name))).size;
    });
    return Math.max(...live);
  }

  test.each([
    [{}, 3],
    [{ overlap: false }, 2],
    [{ blocks: [0, 1, 3] }, 3],
  ])("%j: each block comes and goes once, with at most %i there", (settings, most) => {
    for (const name of ["train", "flush"]) {
      const plan = planned(settings, name);
      for (const direction of ["read", "write"] as const) {
        const moved = plan.transfers
          .filter((transfer) => transfer.direction === direction)
          .map(({ stored }) => stored.name);
        expect(new Set(moved).size).toBe(moved.length);
        expect(new Set(moved.map(blockOf))).toEqual(new Set("blocks" in settings ? settings.blocks : [0, 1, 2, 3]));
        expect(moved.length % 9).toBe(0);
      }
      expect(mostLive(plan)).toBeLessThanOrEqual(most);
    }
    expect(planned(settings, "evaluate").transfers.every(({ direction }) => direction === "read")).toBe(true);
  });

  test("every use of a block lies between its coming and its going, and both passes in one visit", () => {
    const { steps: all, transfers } = planned({});
    const readDone = new Map(
      transfers.flatMap((one) => (one.direction === "read" ? [[one.stored.name, one.done]] : [])),
    );
    const writeAsked = new Map(
      transfers.flatMap((one) => (one.direction === "write" ? [[one.stored.name, one.start]] : [])),
    );
    let uses = 0;
    const spans = [0, 1, 2, 3].map((): [number, number] => [Infinity, -1]);
    all.forEach(({ inputs, outputs }, step) => {
      for (const { name } of [...inputs, ...outputs]) {
        if (!readDone.has(name)) continue;
        uses++;
        expect(readDone.get(name)).toBeLessThanOrEqual(step);
        expect(writeAsked.get(name)).toBeGreaterThan(step);
        const span = must(spans[blockOf(name)], "block");
        spans[blockOf(name)] = [Math.min(span[0], step), Math.max(span[1], step)];
      }
    });
    // The update reads and writes it, and each pass reads it.
    expect(uses).toBeGreaterThanOrEqual(4 * readDone.size);
    spans.slice(1).forEach(([first], index) => {
      expect(first).toBeGreaterThan(must(spans[index], "block")[1]);
    });
  });

  test("of several micro-batches, only the first writes", () => {
    const session = { accumulate: 3 };
    const moved = (name: string, direction: string): number =>
      planned({}, name, { session }).transfers.filter((one) => one.direction === direction).length;
    expect([moved("accumulate", "read"), moved("accumulate", "write")]).toEqual([4 * 9, 4 * 9]);
    expect([moved("accumulate-further", "read"), moved("accumulate-further", "write")]).toEqual([4 * 9, 0]);
    expect(moved("apply", "read")).toBe(0);
  });

  test("what is frozen is never written back", () => {
    const { transfers } = planned({}, "train", { beside: [{ id: "lora", settings: {} }] });
    expect(transfers.length).toBe(4 * 9);
    expect(transfers.every(({ direction }) => direction === "read")).toBe(true);
  });
});

describe("memory", () => {
  const definition = (blocks: number) =>
    tinyLlama({
      ...{ hidden_size: 256, intermediate_size: 1024, num_attention_heads: 4, num_key_value_heads: 4 },
      ...{ vocab_size: 1024, num_hidden_layers: blocks, max_position_embeddings: 128 },
    });
  const reported = (blocks: number, zo2?: Settings, session: Partial<SessionOptions> = {}) =>
    planOnly(
      optionsFor({ zo2, session: { definition: definition(blocks), batch: 8, length: 128, target: "c", ...session } }),
    ).report;
  const block = 4 * (4 * 256 * 256 + 3 * 256 * 1024 + 2 * 256);

  test("does not grow with the number of blocks; what lies on disk does", () => {
    const [few, more, many] = [4, 8, 32].map((blocks) => reported(blocks, {}));
    const bytes = (report: typeof few): number => must(report, "report").planBytes;
    expect(bytes(many) - bytes(few)).toBeLessThanOrEqual(1024);
    expect(bytes(more) - bytes(few)).toBeGreaterThanOrEqual(0);
    const onDisk = (report: typeof few): number => must(report?.disk, "disk").bytes;
    // Tensors on disk begin at whole pages.
    expect((onDisk(many) - onDisk(more)) / 24 - block).toBeLessThan(9 * 4096);
    expect((onDisk(many) - onDisk(more)) / 24).toBeGreaterThanOrEqual(block);
    expect(bytes(many)).toBeLessThan(0.3 * reported(32).planBytes);
    const step = must(
      many?.disk?.programs.find(({ name }) => name === "train"),
      "train",
    );
    expect([step.read, step.written]).toEqual([32 * block, 32 * block]);
  });

  test("is that of inference with three blocks, and one more stream of hidden states", () => {
    const inference = reported(3, undefined, { train: false, evaluate: true }).planBytes;
    expect(reported(32, {}).planBytes).toBeLessThan(1.05 * (inference + 8 * 128 * 256 * 4));
  });

  test("in 16 bits, half as much lies on disk", () => {
    const bytes = (storage: string): number => {
      const programs = must(reported(8, { storage }).disk, "disk").programs;
      return must(programs[0], "program").read;
    };
    expect(bytes("f32")).toBe(8 * block);
    expect(bytes("f16")).toBe(4 * block);
    expect(bytes("bf16")).toBe(4 * block);
  });
});

describe("kept in 16 bits", () => {
  test("learns as in f32, since small updates count in the mean", async () => {
    const lossIn = async (settings: Settings): Promise<number> => {
      const session = await start({
        zo2: settings,
        mezo: { directions: 4 },
        optimizer: { id: "sgd" },
        session: { target: "c", evaluate: true, threads: 1 },
      });
      for (let step = 0; step < 60; step++) await session.step([batchOf(step % 2, tied)], { rate: 1e-2, step });
      const { lossSum, weightSum } = await session.evaluate(batchOf(0, tied));
      return lossSum / weightSum;
    };
    const wide = await lossIn({});
    expect(wide).toBeLessThan(3.2);
    for (const storage of ["bf16", "f16"]) {
      expect(Math.abs((await lossIn({ storage })) - wide), storage).toBeLessThan(0.05 * wide);
    }
  });

  test.each(["bf16", "f16"])("%s: compiled as interpreted", async (storage) => {
    const given = { zo2: { storage, blocks: [1, 2] } };
    const [meant, made] = [await start(given), await start({ ...given, session: { target: "c" } })];
    const [expected, actual] = [await steps(meant, 0, 3), await steps(made, 0, 3)];
    expect(relativeDifference(actual.flat(3) as number[], expected.flat(3) as number[])).toBeLessThan(1e-3);
    const held = made.tensors.filter(({ format }) => format === storage).map(({ name }) => name);
    expect(held).toHaveLength(2 * 9);
    await Promise.all([meant.settle(), made.settle()]);
    for (const name of held) {
      expect(made.bytes(name).length).toBe(
        must(
          made.tensors.find((one) => one.name === name),
          name,
        ).bytes,
      );
    }
  });

  test("updates rounded to nearest are refused: they would vanish", () => {
    const given = { zo2: { storage: "f16" }, optimizer: { id: "sgd", rounding: "nearest" } };
    expect(() => planOnly(optionsFor(given))).toThrow("vanish");
  });
});

describe("refusals", () => {
  test.each([
    ["a block that there is not", { zo2: { blocks: [4] } }, "no such block"],
    ["clipping", { zo2: {}, session: { clip: 1 } }, "cannot be left for the next step"],
    ["a tied table moved in place", { zo2: {}, mezo: { perturbation: "in_place" } }, "side by side"],
  ])("%s", (_name, given: Case, message) => {
    expect(() => planOnly(optionsFor(given))).toThrow(message);
  });

  test("a backward pass through blocks that are not there", () => {
    const selection = ["zo2", "lora"].map((id) => ({ id, settings: {} }));
    expect(() => composeMethods(selection, tied)).toThrow("need backward");
  });

  test("a memory budget below front, tail and the blocks in memory, with what is missing", () => {
    const within = (bytes: number) =>
      optionsFor({ zo2: {}, session: { budget: { bytes, overheadBytes: 0, allowLossy: false } } });
    const needed = planOnly(optionsFor({ zo2: {} })).report.planBytes;
    expect(planOnly(within(needed)).report.planBytes).toBe(needed);
    expect(() => planOnly(within(needed - 1))).toThrow(
      expect.objectContaining({ code: "budget-too-small", facts: { smallestBudget: needed, smallestPlan: needed } }),
    );
  });

  test("alone it brings mezo", () => {
    const composed = composeMethods([{ id: "zo2", settings: {} }], tied);
    expect(composed.methods.map(({ id }) => id)).toEqual(["mezo", "zo2"]);
    expect([composed.saves, composed.learningRate, composed.optimizer]).toEqual(["weights", 1e-6, "sgd"]);
  });
});
