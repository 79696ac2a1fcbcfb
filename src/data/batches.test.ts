import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { ThimbleError } from "../errors.js";
import { Batches } from "./batches.js";
import type { Batch, BatchOptions } from "./batches.js";
import { cutRecords, packedRows, paddedRows } from "./packing.js";
import type { Overlong } from "./packing.js";
import { RawTokens } from "./raw-tokens.js";
import { rowsWithTargets, windowRows } from "./rows.js";
import { Permutation } from "./shuffle.js";
import { MemoryTokens } from "./token-source.js";

const folder = mkdtempSync(join(tmpdir(), "thimble-batches-"));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** Records of the given lengths; every token id is unique, so that a label can be traced to its place. */
function records(lengths: readonly number[], weightOf: (token: number) => number = () => 1): MemoryTokens {
  let next = 0;
  return new MemoryTokens(
    lengths.map((length) => {
      const ids = Array.from({ length }, () => next++);
      return { ids, weights: ids.map(weightOf) };
    }),
  );
}

function all(source: MemoryTokens): number[] {
  return Array.from({ length: source.recordCount }, (_, index) => index);
}

/** Every (token, label) pair of one epoch in order, with weight above 0. */
function trainedPairs(batches: Batches): [number, number][] {
  const pairs: [number, number][] = [];
  for (let step = 0; step < batches.batchesPerEpoch; step++) {
    const { ids, labels, weights } = batches.batch(step);
    weights.forEach((weight, at) => {
      if (weight > 0) pairs.push([ids[at] ?? -2, labels[at] ?? -2]);
    });
  }
  return pairs;
}

function checkBatch(batch: Batch, source: MemoryTokens): void {
  const { sequence, ids, labels, weights, positions, segments } = batch;
  const seen = new Set<number>();
  for (const piece of batch.records) {
    for (let i = 0; i < piece.length; i++) {
      const at = piece.row * sequence + piece.offset + i;
      const token = source.start(piece.record) + piece.start + i;
      seen.add(at);
      expect(ids[at]).toBe(token);
      expect(positions[at]).toBe(i);
      expect(segments[at]).toBe(i === 0 ? segments[at] : segments[at - 1]);
      const isLast = token + 1 === source.start(piece.record + 1);
      expect(isLast ? labels[at] === -1 : labels[at] === token + 1 || labels[at] === -1).toBe(true);
    }
  }
  segments.forEach((segment, at) => {
    expect(segment === -1).toBe(!seen.has(at));
    if (segment === -1) expect([labels[at], weights[at], positions[at]]).toEqual([-1, 0, 0]);
  });
  expect(weights.reduce((sum, weight) => sum + weight, 0)).toBe(batch.weightSum);
}

describe("Permutation", () => {
  it("is a permutation for every count", () => {
    for (const count of [1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097]) {
      const permutation = new Permutation(count, 7, 3);
      const image = new Set(Array.from({ length: count }, (_, index) => permutation.at(index)));
      expect(image.size).toBe(count);
      expect(Math.max(...image)).toBe(count - 1);
    }
  });

  it("differs by seed and epoch, and stays as it is between versions", () => {
    const order = (seed: number, epoch: number): number[] => {
      const permutation = new Permutation(10, seed, epoch);
      return Array.from({ length: 10 }, (_, index) => permutation.at(index));
    };
    expect(order(1, 0)).toEqual(order(1, 0));
    expect(new Set([order(1, 0), order(1, 1), order(2, 0), order(2 ** 40 + 1, 0)].map(String)).size).toBe(4);
    expect(order(42, 0)).toMatchInlineSnapshot(`
      [
        9,
        8,
        5,
        3,
        7,
        1,
        2,
        4,
        6,
        0,
      ]
    `);
  });

  it("is even: each element is as likely first, and neighbours are torn apart", () => {
    const counts = new Array<number>(7).fill(0);
    for (let seed = 0; seed < 7000; seed++) {
      const first = new Permutation(7, seed, 0).at(0);
      counts[first] = (counts[first] ?? 0) + 1;
    }
    // Chi-square with 6 degrees of freedom; 22.5 has a probability of 0.001.
    expect(counts.reduce((sum, count) => sum + (count - 1000) ** 2 / 1000, 0)).toBeLessThan(22.5);
    const permutation = new Permutation(10_000, 5, 0);
    let neighbours = 0;
    for (let i = 1; i < 10_000; i++) if (Math.abs(permutation.at(i) - permutation.at(i - 1)) === 1) neighbours++;
    expect(neighbours).toBeLessThan(15);
  });
});

describe("tokens:FILE", () => {
  function write(name: string, ids: readonly number[], bytes: 2 | 4): string {
    const buffer = Buffer.alloc(ids.length * bytes);
    ids.forEach((id, index) =>
      bytes === 2 ? buffer.writeUInt16LE(id, 2 * index) : buffer.writeUInt32LE(id, 4 * index),
    );
    writeFileSync(join(folder, name), buffer);
    return join(folder, name);
  }

  it.each([["ids.u16", 2] as const, ["ids.u32", 4] as const])(
    "gives step i the ids from i * batch * sequence (%s)",
    (name, bytes) => {
      const ids = Array.from({ length: 29 }, (_, index) => (index * 977) % 5000);
      const source = new RawTokens(write(name, ids, bytes), 5000);
      const plan = windowRows(source, { start: 0, end: source.tokenCount }, 4, false);
      const batches = new Batches(source, plan, { batch: 2, sequence: 4 });
      for (const step of [2, 0, 1]) {
        const batch = batches.batch(step);
        const expected = ids.slice(step * 8, step * 8 + 8);
        expect(Array.from(batch.ids)).toEqual(expected);
        const labels = expected.map((_, at) => (at % 4 === 3 ? -1 : expected[at + 1]));
        expect(Array.from(batch.labels)).toEqual(labels);
        expect(Array.from(batch.weights)).toEqual(labels.map((label) => (label === -1 ? 0 : 1)));
        expect(Array.from(batch.positions)).toEqual([0, 1, 2, 3, 0, 1, 2, 3]);
        expect([...new Set(batch.segments)]).toEqual([0]);
        expect(batch.weightSum).toBe(6);
      }
      expect(batches.rowsPerEpoch).toBe(7);
      source.close();
    },
  );

  it("refuses odd sizes, empty and missing files, and ids out of range", () => {
    writeFileSync(join(folder, "odd.u16"), Buffer.alloc(3));
    writeFileSync(join(folder, "empty.u16"), Buffer.alloc(0));
    for (const name of ["odd.u16", "empty.u16"]) {
      expect(() => new RawTokens(join(folder, name))).toThrow(expect.objectContaining({ code: "data-tokens-size" }));
    }
    expect(() => new RawTokens(join(folder, "none"))).toThrow(expect.objectContaining({ code: "data-unreadable" }));
    for (const source of [
      new RawTokens(write("big.u16", [1, 9], 2), 9),
      new RawTokens(write("big.u32", [1, 4e9], 4), 9),
    ]) {
      expect(() => {
        source.readIds(0, new Int32Array(2));
      }).toThrow(expect.objectContaining({ code: "data-token-range" }));
      source.close();
    }
  });
});

describe("windows", () => {
  it("predict every token but the first of each record exactly once", () => {
    const source = records([7, 1, 0, 12, 5]);
    const plan = windowRows(source, { start: 0, end: source.tokenCount }, 4, true);
    const batches = new Batches(source, plan, { batch: 3, sequence: 4, endless: false });
    for (let step = 0; step < batches.batchesPerEpoch; step++) checkBatch(batches.batch(step), source);
    const expected = all(source).flatMap((record) => {
      const [start, end] = [source.start(record), source.start(record + 1)];
      return Array.from({ length: Math.max(0, end - start - 1) }, (_, i) => [start + i, start + i + 1]);
    });
    expect(trainedPairs(batches)).toEqual(expected);
  });

  it("of two ranges share no token, not even as a label", () => {
    const source = records([20]);
    const pairs = [
      { start: 0, end: 11 },
      { start: 11, end: 20 },
    ].map((range) => {
      const plan = windowRows(source, range, 4, true);
      return trainedPairs(new Batches(source, plan, { batch: 1, sequence: 4, endless: false })).flat();
    });
    expect(Math.max(...(pairs[0] ?? []))).toBe(10);
    expect(Math.min(...(pairs[1] ?? []))).toBe(11);
  });

  it("without a trained target are left out", () => {
    const source = records([16], (token) => (token >= 5 && token < 7 ? 1 : 0));
    const { plan, dropped } = rowsWithTargets(windowRows(source, { start: 0, end: 16 }, 4, true), source);
    expect([plan.rowCount, dropped, plan.pieces(0)[0]?.start]).toEqual([1, 3, 4]);
  });
});

describe("packing", () => {
  const lengths = fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 1, maxLength: 60 });

  function build(source: MemoryTokens, mode: "packed" | "padded", overlong: Overlong, options: BatchOptions): Batches {
    const { pieces } = cutRecords(source, all(source), options.sequence, overlong);
    const limit = overlong === "split" ? source.tokenCount : 0;
    const plan = mode === "packed" ? packedRows(pieces, options.sequence, limit) : paddedRows(pieces, limit);
    return new Batches(source, plan, options);
  }

  it("puts every target into exactly one place, whatever the lengths", () => {
    fc.assert(
      fc.property(lengths, fc.constantFrom("packed" as const, "padded" as const), fc.nat(100), (list, mode, seed) => {
        fc.pre(list.some((length) => length > 1));
        const source = records(list);
        const batches = build(source, mode, "split", { batch: 3, sequence: 16, seed, endless: false });
        const pairs = trainedPairs(batches);
        for (let step = 0; step < batches.batchesPerEpoch; step++) checkBatch(batches.batch(step), source);
        const targets = all(source).reduce((sum, record) => sum + source.targets(record), 0);
        expect(new Set(pairs.map(String)).size).toBe(targets);
        expect(pairs.length).toBe(targets);
      }),
      { numRuns: 60 },
    );
  });

  it("fills rows by best fit, as few as a search can find", () => {
    const source = records([6, 4, 5, 5, 3, 7, 2, 8]);
    const batches = build(source, "packed", "split", { batch: 1, sequence: 10 });
    expect(batches.rowsPerEpoch).toBe(4);
    const naive = fc.sample(lengths, { numRuns: 40, seed: 3 });
    for (const list of naive.map((lengths_) => lengths_.map((length) => Math.max(2, Math.min(length, 16))))) {
      const rows = build(records(list), "packed", "split", { batch: 1, sequence: 16 }).rowsPerEpoch;
      // The textbook algorithm, by linear search.
      const rooms: number[] = [];
      for (const length of [...list].sort((a, b) => b - a)) {
        const best = rooms.filter((room) => room >= length).sort((a, b) => a - b)[0];
        if (best === undefined) rooms.push(16 - length);
        else rooms[rooms.indexOf(best)] = best - length;
      }
      expect(rows).toBe(rooms.length);
    }
  });

  it("reports records that are too long", () => {
    const source = records([30, 5, 1, 0]);
    const report = (overlong: Overlong): unknown => cutRecords(source, all(source), 8, overlong).report;
    expect(report("split")).toEqual({ split: 1, truncated: 0, dropped: 0, untrained: 2, tokensLost: 1 });
    expect(report("truncate")).toEqual({ split: 0, truncated: 1, dropped: 0, untrained: 2, tokensLost: 23 });
    expect(report("drop")).toEqual({ split: 0, truncated: 0, dropped: 1, untrained: 2, tokensLost: 31 });
  });

  it("leaves out a record whose trained part was cut off", () => {
    const source = records([30], (token) => (token > 20 ? 1 : 0));
    const { pieces, report } = cutRecords(source, [0], 8, "truncate");
    expect([pieces.record.length, report.untrained, report.tokensLost]).toEqual([0, 1, 30]);
    expect(() => new Batches(source, packedRows(pieces, 8, 0), { batch: 1, sequence: 8 })).toThrow(ThimbleError);
  });

  it("keeps prompts in the row but out of the loss", () => {
    const source = records([6], (token) => (token >= 4 ? 1 : 0));
    const batch = build(source, "padded", "truncate", { batch: 1, sequence: 8, padding: 99 }).batch(0);
    expect(Array.from(batch.ids)).toEqual([0, 1, 2, 3, 4, 5, 99, 99]);
    expect(Array.from(batch.labels)).toEqual([1, 2, 3, 4, 5, -1, -1, -1]);
    expect(Array.from(batch.weights)).toEqual([0, 0, 0, 1, 1, 0, 0, 0]);
    expect(batch.weightSum).toBe(2);
  });
});

describe("Batches", () => {
  const source = records([3, 4, 5, 6, 7, 8, 9]);
  const { pieces } = cutRecords(source, all(source), 10, "split");
  const build = (options: Partial<BatchOptions>): Batches =>
    new Batches(source, paddedRows(pieces, 0), { batch: 2, sequence: 10, seed: 11, ...options });

  it("are a pure function of the step, in any order and through epochs", () => {
    const first = Array.from({ length: 20 }, (_, step) => build({}).batch(step));
    const again = build({});
    for (const step of [19, 3, 0, 11, 4]) expect(again.batch(step)).toEqual(first[step]);
    expect(again.step(again.position(13))).toBe(13);
    expect(again.position(4)).toEqual({ epoch: 1, index: 1 });
  });

  it("go through all rows once an epoch, in another order each time", () => {
    const batches = build({ batch: 1 });
    const epochs = [0, 1, 2].map((epoch) =>
      Array.from({ length: 7 }, (_, index) => batches.batch(epoch * 7 + index).records[0]?.record),
    );
    for (const epoch of epochs) expect([...epoch].sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(new Set(epochs.map(String)).size).toBe(3);
  });

  it("have the same rows for every batch size", () => {
    const rows = (batch: number): (number | undefined)[] =>
      Array.from({ length: 12 / batch }, (_, step) =>
        build({ batch })
          .batch(step)
          .records.map((piece) => piece.record),
      ).flat();
    expect(rows(4)).toEqual(rows(1));
    expect(rows(2)).toEqual(rows(1));
  });

  it("end with padding when they are not endless", () => {
    const batches = build({ endless: false });
    expect(batches.batchesPerEpoch).toBe(4);
    expect(batches.batch(3).records.length).toBe(1);
    expect(batches.batch(4).weightSum).toBe(0);
  });
});
