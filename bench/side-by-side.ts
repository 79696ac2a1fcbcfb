/**
 * Thimble and every variant of PyTorch in turn on one machine: the same model, tokens, batch and steps.
 *
 *   npx tsx bench/side-by-side.ts --marks MARKS.JSON --bench BENCH.PY --python PYTHON --data DIR
 *     [--row lora-bf16-4x256 …] [--variant thimble:default|thimble:min|pytorch:eager|… …] [--rounds 3] [--steps 8]
 *     [--timeout 900] [--again] [--estimate] [--no-build]
 *
 * Each measurement is a line of bench/results/side-by-side.jsonl the moment it exists; what stands there already is not
 * measured again, so that an interrupted run goes on, and rows can be run in several sittings. `--again` forgets the
 * chosen rows first, `--estimate` only says how long the rest would take. After each row the summary
 * (side-by-side.json) is renewed; `npx tsx bench/table.ts` makes the tables and plots of it. bench/README.md says what
 * the files hold. Nothing else may run meanwhile.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { measurePeak } from "./peak.js";
import { fromHuggingFaceConfig } from "../src/models/registry.js";
import { flopsPerToken } from "./flops.js";
import { describeMachine } from "./machine.js";
import { MeasurementLog } from "./side-by-side/log.js";
import type { Measurement } from "./side-by-side/log.js";
import { endChildrenOnInterrupt } from "./side-by-side/process.js";
import type { Contender, Marks, Row } from "./side-by-side/rows.js";
import { contendersOf, readMarks, roughSeconds, rowName } from "./side-by-side/rows.js";
import type { Rig } from "./side-by-side/run.js";
import { measure } from "./side-by-side/run.js";
import type { SummaryFacts } from "./side-by-side/summary.js";
import { summariseAll } from "./side-by-side/summary.js";

const { values } = parseArgs({
  options: {
    marks: { type: "string" },
    bench: { type: "string" },
    python: { type: "string", default: "python3" },
    data: { type: "string" },
    row: { type: "string", multiple: true },
    variant: { type: "string", multiple: true },
    rounds: { type: "string", default: "3" },
    steps: { type: "string", default: "8" },
    threads: { type: "string", default: String(cpus().length) },
    timeout: { type: "string", default: "900" },
    out: { type: "string", default: "bench/results/side-by-side.json" },
    log: { type: "string" },
    again: { type: "boolean", default: false },
    estimate: { type: "boolean", default: false },
    "no-build": { type: "boolean", default: false },
  },
});

function git(...parameters: string[]): string {
  return execFileSync("git", parameters, { encoding: "utf8" }).trim();
}

/** The commit at hand, with a + where files differ from it; "unknown" outside a repository. */
function commitOf(): string {
  try {
    return `${git("rev-parse", "--short", "HEAD")}${git("status", "--porcelain") === "" ? "" : "+"}`;
  } catch {
    return "unknown";
  }
}

interface Task {
  readonly row: Row;
  readonly contender: Contender;
  readonly round: number;
}

const label = ({ peer, variant }: Contender): string => `${peer}:${variant}`;

/** Whether it was not tried, for want of something that a later version may have. */
const isSkipped = ({ failure }: Measurement): boolean => failure?.startsWith("skipped") === true;

/** What is still to be measured, in order: row by row, round by round, the contenders in turn. */
function tasksOf(marks: Marks, done: readonly Measurement[], rounds: number, steps: number): Task[] {
  const isDone = ({ row, contender, round }: Task): boolean =>
    done.some(
      (one) =>
        one.row === rowName(row) &&
        label(one) === label(contender) &&
        one.steps === steps &&
        (one.round === round ? !isSkipped(one) : one.failure !== undefined && !isSkipped(one)),
    );
  const chosen = marks.rows.filter((row) => values.row?.includes(rowName(row)) ?? true);
  return chosen.flatMap((row) =>
    Array.from({ length: rounds }, (_, round) => round + 1).flatMap((round) =>
      contendersOf(row)
        .filter((contender) => values.variant?.includes(label(contender)) ?? true)
        .map((contender): Task => ({ row, contender, round }))
        .filter((task) => !isDone(task)),
    ),
  );
}

/** Seconds of a process like this one: measured before, or guessed. */
function secondsOf({ row, contender }: Task, done: readonly Measurement[], steps: number): number {
  const known = done.find((one) => one.row === rowName(row) && label(one) === label(contender) && one.steps === steps);
  return known?.seconds ?? roughSeconds(row, contender, steps);
}

function printEstimate(tasks: readonly Task[], done: readonly Measurement[], steps: number): void {
  const minutes = new Map<string, number>();
  for (const task of tasks) {
    const name = rowName(task.row);
    minutes.set(name, (minutes.get(name) ?? 0) + secondsOf(task, done, steps) / 60);
  }
  for (const [name, own] of minutes) console.error(`${name.padEnd(20)} about ${own.toFixed(0)} minutes`);
  const all = [...minutes.values()].reduce((sum, own) => sum + own, 0);
  console.error(`${tasks.length} processes, about ${all.toFixed(0)} minutes`);
}

/** What the summary needs to know beside the measurements. */
async function factsOf(data: string, threads: number): Promise<SummaryFacts> {
  const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
  const config = JSON.parse(readFileSync(join(data, "smollm2", "config.json"), "utf8")) as Record<string, unknown>;
  const definition = fromHuggingFaceConfig(config);
  return {
    version,
    machine: describeMachine(),
    peak: await measurePeak(threads),
    flopsOf: ({ method, seq }) => flopsPerToken(definition, method, seq),
  };
}

function writeSummary(marks: Marks, log: MeasurementLog, facts: SummaryFacts): void {
  mkdirSync(dirname(values.out), { recursive: true });
  writeFileSync(values.out, `${JSON.stringify(summariseAll(marks, log.read(), facts), undefined, 2)}\n`);
}

async function runTasks(tasks: readonly Task[], rig: Rig, log: MeasurementLog, summarise: () => void): Promise<void> {
  const sitting = new Date().toISOString();
  const commit = commitOf();
  const failed = new Set<string>();
  for (const [place, { row, contender, round }] of tasks.entries()) {
    const name = rowName(row);
    if (failed.has(`${name} ${label(contender)}`)) continue;
    const started = performance.now();
    const result = await measure(row, contender, rig);
    const seconds = (performance.now() - started) / 1000;
    if ("failure" in result) failed.add(`${name} ${label(contender)}`);
    const time = new Date().toISOString();
    log.append({ row: name, ...contender, round, steps: rig.steps, sitting, time, commit, seconds, ...result });
    const said =
      "failure" in result
        ? result.failure
        : `${result.figures.tokensPerSecond.toFixed(1)} tokens/s, ${result.figures.peakMiB.toFixed(0)} MiB`;
    console.error(
      `[${place + 1}/${tasks.length}] ${name} round ${round} ${label(contender)}: ${said} (${seconds.toFixed(0)} s)`,
    );
    summarise();
  }
}

async function main(): Promise<number> {
  const { marks: marksPath, bench, python, data } = values;
  if (marksPath === undefined || bench === undefined || data === undefined) {
    console.error(
      "skipped: give --marks (the rows), --bench (the yardstick's bench.py) and --data (the folder its prepare.py wrote)",
    );
    return 2;
  }
  const marks = readMarks(marksPath);
  const names = marks.rows.map(rowName);
  const unknown = (values.row ?? []).filter((name) => !names.includes(name));
  if (unknown.length > 0) {
    console.error(`there is no row ${unknown.join(", ")}; there are ${names.join(", ")}`);
    return 2;
  }
  const log = new MeasurementLog(values.log ?? values.out.replace(/(\.json)?$/, ".jsonl"));
  if (values.again) log.drop(new Set(values.row ?? names));
  const [rounds, steps] = [Number(values.rounds), Number(values.steps)];
  const tasks = tasksOf(marks, log.read(), rounds, steps);
  printEstimate(tasks, log.read(), steps);
  if (values.estimate) return 0;
  if (!values["no-build"])
    execFileSync("npm", ["run", "--silent", "build"], { stdio: ["ignore", "inherit", "inherit"] });
  const rig = { bench, python, data, steps, threads: Number(values.threads), seconds: Number(values.timeout) };
  const facts = await factsOf(data, rig.threads);
  const summarise = (): void => {
    writeSummary(marks, log, facts);
  };
  summarise();
  await runTasks(tasks, rig, log, summarise);
  return 0;
}

endChildrenOnInterrupt();
process.exitCode = await main();
