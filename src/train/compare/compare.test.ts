import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resolveConfig } from "../../config/config.js";
import type { RunConfig } from "../../config/schema.js";
import { comparisonPage, comparisonTable } from "../../report/comparison.js";
import { compareMethods, contestantsOf, spreadOf } from "./compare.js";
import type { Comparison } from "./types.js";

const demo = fileURLToPath(new URL("../../../assets/demo", import.meta.url));

describe("comparing methods", () => {
  let folder = "";
  let comparison: Comparison;
  const told: string[] = [];

  const config = (more: Partial<RunConfig> = {}): RunConfig =>
    resolveConfig({
      flags: {
        model: `file:${demo}/base.gguf`,
        data: `${demo}/style.txt`,
        holdout: `${demo}/style-holdout.txt`,
        batch: 2,
        seq: 32,
        steps: 3,
        out: join(folder, "out"),
        ...more,
      },
    });

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "thimble-compare-"));
    const contestants = contestantsOf(["lora", "paca", "lora+full"], ["lora.r=4"]);
    comparison = await compareMethods(config(), contestants, [0, 1], {
      onRun: ({ name, seed, index, count }) => told.push(`${name} ${seed} ${index + 1}/${count}`),
      onRefused: ({ name, code }) => told.push(`${name} ${code}`),
    });
  });
  afterAll(async () => {
    await rm(folder, { recursive: true });
  });

  it("runs every method with every seed and measures each on the held-out data", () => {
    expect(told).toEqual([
      "lora 0 1/6",
      "lora 1 2/6",
      "paca 0 3/6",
      "paca 1 4/6",
      "lora+full 0 5/6",
      "lora+full methods-conflict",
    ]);
    expect(comparison.methods.map(({ name }) => name)).toEqual(["lora", "paca"]);
    for (const { runs, heldOutLoss, planBytes, resultBytes, rssBytes } of comparison.methods) {
      expect(runs.map(({ seed, losses }) => [seed, losses.length])).toEqual([
        [0, 3],
        [1, 3],
      ]);
      expect(heldOutLoss.mean).toBeLessThan(comparison.before);
      expect(heldOutLoss.mean).toBeCloseTo((runs[0]!.heldOutLoss + runs[1]!.heldOutLoss) / 2, 12);
      for (const bytes of [planBytes, resultBytes, rssBytes]) expect(bytes).toBeGreaterThan(1000);
    }
    expect(comparison.refused).toEqual([
      { name: "lora+full", code: "methods-conflict", reason: "lora and full do not go together" },
    ]);
  });

  it("leaves the result of each run, without checkpoints", async () => {
    const adapter = JSON.parse(
      await readFile(join(folder, "out", "lora-1", "adapter", "adapter_config.json"), "utf8"),
    ) as {
      r: number;
    };
    expect(adapter.r).toBe(4);
  });

  it("makes a page that stands alone, with a chart each and the reasons", async () => {
    const page = await comparisonPage(comparison);
    expect(page.match(/<svg/g)).toHaveLength(3);
    expect(page).not.toMatch(/(?:src|href)="http/);
    for (const text of ["lora and full do not go together", "<td>paca</td>", "seeds 0, 1"])
      expect(page).toContain(text);
    const { heads, rows } = comparisonTable(comparison);
    for (const row of rows) expect(row).toHaveLength(heads.length);
  });

  it("gives the spread of a sample", () => {
    const { mean, deviation } = spreadOf([1, 2, 4]);
    expect([mean, deviation]).toEqual([7 / 3, expect.closeTo(Math.sqrt(7 / 3), 12)]);
    expect(spreadOf([5])).toEqual({ mean: 5, deviation: 0 });
  });

  it("refuses names that are unknown, repeated or none, and settings of methods that are not compared", () => {
    expect(() => contestantsOf(["lora", "lora"], [])).toThrow(expect.objectContaining({ code: "compare-methods" }));
    expect(() => contestantsOf([], [])).toThrow(expect.objectContaining({ code: "compare-methods" }));
    expect(() => contestantsOf(["lorra"], [])).toThrow(expect.objectContaining({ code: "method-unknown" }));
    expect(() => contestantsOf(["lora"], ["paca.r=2"])).toThrow(expect.objectContaining({ code: "config-set" }));
  });

  it("refuses to compare without held-out data", async () => {
    const run = compareMethods(config({ holdout: 0, out: join(folder, "none") }), contestantsOf(["lora"], []), [0]);
    await expect(run).rejects.toMatchObject({ code: "compare-holdout" });
  });
});
