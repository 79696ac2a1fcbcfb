import { describe, expect, test } from "vitest";
import { open, write } from "../testing/open-dataset.js";
import { mostSources } from "./ingest.js";

const lines = (name: string, count: number, source?: unknown): unknown[] =>
  Array.from({ length: count }, (_, index) => ({
    text: `${name} number ${index}`,
    ...(source === undefined ? {} : { source }),
  }));

describe("sources of records", () => {
  test("are their files, called by name", async () => {
    const [first, second] = [write(lines("one", 5)), write(lines("two", 2))];
    const { sources, train, report } = await open({ train: [first, second], mode: "padded", batch: 7 });
    expect(sources.map((name) => first.endsWith(name) || second.endsWith(name))).toEqual([true, true]);
    expect(sources[0]).not.toContain("/");
    expect(train.countSources()).toEqual([5, 2]);
    const batch = train.batch(0);
    batch.records.forEach(({ row, record }) => {
      expect(batch.sources[row]).toBe(record < 5 ? 0 : 1);
    });
    expect(report.notices.join()).not.toContain("source");
  });

  test("are what their field says, and their file where they have none", async () => {
    const path = write([...lines("a", 3, "maths"), ...lines("b", 2), ...lines("c", 1, "maths"), ...lines("d", 1, 7)]);
    const { sources, train, report } = await open({ train: path, mode: "padded" });
    expect([sources[0], path.endsWith(sources[1] ?? "-"), sources[2]]).toEqual(["maths", true, "7"]);
    expect(train.countSources()).toEqual([4, 2, 1]);
    expect(report.notices.join()).not.toContain("not used");
    // From the cache, they are the same.
    const again = await open({ train: path, mode: "padded" });
    expect([again.sources, again.train.countSources()]).toEqual([sources, [4, 2, 1]]);
  });

  test("of rows of padding are none, and there are so many at most", async () => {
    const many = Array.from({ length: mostSources + 5 }, (_, index) => ({
      text: `text ${index}`,
      source: `s${index}`,
    }));
    const { sources, train, holdout } = await open({
      train: write(many),
      mode: "padded",
      holdout: 0.3,
      batch: 64,
    });
    expect(sources).toHaveLength(mostSources);
    expect(train.countSources().reduce((a, b) => a + b)).toBe(train.rowsPerEpoch);
    const last = holdout?.batch(holdout.batchesPerEpoch - 1);
    expect(last?.sources.at(-1)).toBe(-1);
  });
});
