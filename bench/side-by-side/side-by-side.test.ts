import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { must } from "../../src/errors.js";
import { MeasurementLog } from "./log.js";
import type { Measurement } from "./log.js";
import {
  benchmarkPage,
  pagePath,
  plotFolder,
  plots,
  readmePath,
  readmeSection,
  readResults,
  replaceSection,
} from "./pages.js";
import { ratioChart, toSvg } from "./plots.js";
import { runProgram } from "./process.js";
import type { Contender, Marks, Row } from "./rows.js";
import { contendersOf, roughSeconds, rowName } from "./rows.js";
import type { Summary } from "./summary.js";
import { summariseAll } from "./summary.js";
import { budgetTable, gaps, mainTable } from "./table.js";

const lora: Row = {
  ...{ method: "lora", dtype: "bf16", batch: 4, seq: 256 },
  ...{ speed: 1.8, goal: 2.1, memory: 0.48, min: { memory: 0.4, speed: 2.5 } },
};
const forward: Row = { method: "forward", dtype: "bf16", batch: 4, seq: 256, speed: 1.6, memory: 0.45 };
const marks: Marks = { note: "", rows: [lora, forward] };
const machine = { processor: "P", cores: 2, memoryGiB: 8, node: "v20", flags: [] };
const facts = {
  ...{ version: "1", machine, peak: { threads: 2, f32: 400, bf16: 800 } },
  flopsOf: () => 0.8e9,
};

type Rounds = readonly (readonly [tokensPerSecond: number, peakMiB: number])[];

function measured(row: Row, name: string, rounds: Rounds, losses = [4.5, 4]): Measurement[] {
  const [peer, variant] = name.split(":") as [Contender["peer"], string];
  return rounds.map(([tokensPerSecond, peakMiB], index) => ({
    ...{ row: rowName(row), peer, variant, round: index + 1, steps: 2, seconds: 1, commit: "abc" },
    ...{ sitting: "2026-01-01T00:00:00Z", time: "2026-01-01T00:01:00Z" },
    figures: { tokensPerSecond, peakMiB, losses, stepSeconds: [] },
  }));
}

const full = [
  ...measured(lora, "thimble:default", [
    [1000, 500],
    [1100, 510],
    [900, 490],
  ]),
  ...measured(lora, "thimble:min", [[800, 300]]),
  ...measured(lora, "pytorch:eager", [[300, 2000]]),
  ...measured(lora, "pytorch:compile", [[500, 1500]]),
  ...measured(lora, "pytorch:checkpoint", [[250, 1000]]),
];

function summaryOf(all: readonly Measurement[]): Summary {
  return summariseAll(marks, all, facts);
}

describe("a summary", () => {
  test("holds the default plan against the fastest variant, the smallest budget against the leanest", () => {
    const row = must(summaryOf(full).rows[0], "row");
    expect(row.default).toMatchObject({ against: "compile", speed: 2, memory: 500 / 1500, speedMark: 1.8, goal: 2.1 });
    expect(row.min).toMatchObject({ against: "checkpoint", speed: 3.2, memory: 0.3, memoryMark: 0.4 });
  });

  test("withholds the ratios of a row whose losses do not agree", () => {
    const row = must(
      summaryOf([...full, ...measured(lora, "pytorch:compile+checkpoint", [[100, 900]], [4.6, 4])]).rows[0],
      "row",
    );
    expect(row.lossDifference?.first).toBeCloseTo(0.1 / 4.6, 6);
    expect([row.default, row.min]).toEqual([undefined, undefined]);
    expect(row.withheld).toContain("losses differ");
  });

  test("counts losses that one of the two does not have as a difference", () => {
    const short = [
      ...measured(forward, "thimble:default", [[9, 9]], [4.5]),
      ...measured(forward, "pytorch:eager", [[1, 1]]),
    ];
    expect(must(summaryOf(short).rows[0], "row").withheld).toBeDefined();
  });

  test("leaves out measurements of another number of steps", () => {
    const old = measured(lora, "thimble:default", [[1, 1]]).map((one) => ({ ...one, steps: 1 }));
    expect(must(summaryOf([...old, ...full]).rows[0], "row").default?.speed).toBe(2);
  });
});

test("the tables show ratios beside their marks, and what has no figures", () => {
  const summary = summaryOf(full);
  expect(mainTable(summary)).toContain(
    "| lora bf16 4×256 | 1,000 | 500 (compile) | **2.00** (1.80) | 1,000 | 500 | 1,500 | **0.33** (0.48) |",
  );
  expect(budgetTable(summary)).toContain(
    "| 300 | 1,000 (checkpoint) | **0.30** (0.40) | 800 | 250 | **3.20** (2.50) |",
  );
  expect(gaps(summary)).toBe(" Without figures: lora bf16 4×256: compile+checkpoint.");
});

test("charts are self-contained SVG", async () => {
  const svg = await toSvg(ratioChart(summaryOf(full)));
  expect(svg).toMatch(/^<svg /);
  expect(svg).toContain("lora bf16 4×256");
  expect(svg).not.toMatch(/<image|href="http/);
});

describe("the order of a row", () => {
  test("alternates Thimble and PyTorch", () => {
    const order = contendersOf(lora).map(({ peer, variant }) => `${peer}:${variant}`);
    expect(order.slice(0, 4)).toEqual(["thimble:default", "pytorch:eager", "thimble:min", "pytorch:compile"]);
    expect(contendersOf(forward).map(({ variant }) => variant)).toEqual(["default", "eager", "compile"]);
  });

  test("counts the compiler's time where PyTorch compiles", () => {
    const seconds = (variant: string): number => roughSeconds(lora, { peer: "pytorch", variant }, 8);
    expect(seconds("compile") - seconds("eager")).toBeGreaterThan(60);
  });
});

describe("programs and their log", () => {
  const folder = mkdtempSync(join(tmpdir(), "side-by-side-"));
  afterEach(() => {
    rmSync(join(folder, "log.jsonl"), { force: true });
  });

  test("a log keeps what was measured, and forgets a row", () => {
    const log = new MeasurementLog(join(folder, "log.jsonl"));
    expect(log.read()).toEqual([]);
    for (const one of [...full, ...measured(forward, "thimble:default", [[1, 1]])]) log.append(one);
    expect(log.read()).toHaveLength(full.length + 1);
    log.drop(new Set([rowName(lora)]));
    expect(log.read().map(({ row }) => row)).toEqual([rowName(forward)]);
  });

  test("a program that takes too long is ended, with its children, and says so", async () => {
    const flag = join(folder, "alive");
    const script = `sleep 3; touch ${flag}`;
    const outcome = await runProgram("sh", ["-c", `(${script}) & wait`], { seconds: 0.3 });
    expect(outcome).toEqual({ kind: "failed", reason: "took more than 0.3 s" });
    await new Promise((resolve) => setTimeout(resolve, 3200));
    expect(existsSync(flag)).toBe(false);
  });

  test("what a program refuses is the reason", async () => {
    const error = JSON.stringify({ error: { code: "method-unknown", message: "There is no such method" } });
    const refused = await runProgram("sh", ["-c", `echo '${error}'; exit 2`], { seconds: 5 });
    expect(refused).toEqual({ kind: "failed", reason: "method-unknown: There is no such method" });
    const crashed = await runProgram("sh", ["-c", "echo oops >&2; exit 3"], { seconds: 5 });
    expect(crashed).toEqual({ kind: "failed", reason: "ended with 3: oops" });
    expect(await runProgram("sh", ["-c", "echo a; echo b"], { seconds: 5 })).toEqual({ kind: "done", lastLine: "b" });
  });
});

describe("what is committed is what bench/table.ts makes of bench/results:", () => {
  const results = readResults();

  test("the README's section", () => {
    const readme = readFileSync(readmePath, "utf8");
    expect(readme).toBe(replaceSection(readme, readmeSection(results)));
  });

  test("docs/benchmarks.md", () => {
    expect(readFileSync(pagePath, "utf8")).toBe(benchmarkPage(results));
  });

  test("the plots", async () => {
    for (const [name, svg] of await plots(results)) {
      expect(readFileSync(join(plotFolder, name), "utf8") === svg, `${name} is renewed by npx tsx bench/table.ts`).toBe(
        true,
      );
    }
  });
});
