/**
 * Plans and compiles cases one after the other, timed: the program that bench/compile.ts starts. Its argument is JSON:
 * settings common to all, and the cases.
 */
import { plan } from "../../src/index.js";
import type { RunSettings } from "../../src/index.js";
import { compileLibrary } from "../../src/runtime/compiler.js";
import { planOnly } from "../../src/session/open.js";
import type { SessionOptions } from "../../src/session/types.js";
import { lowerProgram } from "../../src/targets/c/lower.js";
import { prelude } from "../../src/targets/c/prelude.js";
import type { Case, CaseResult } from "./types.js";

const { common, cases } = JSON.parse(process.argv[2] ?? "{}") as { common: RunSettings; cases: Case[] };

const secondsSince = (started: number): number => (performance.now() - started) / 1000;

async function measure(name: string, options: SessionOptions, planSeconds: number): Promise<CaseResult> {
  const { plans, report } = planOnly(options);
  let started = performance.now();
  const lowered = plans.flatMap((one) => lowerProgram(one, options.threads).kernels);
  const sources = [...new Map(lowered.map((kernel) => [kernel.name, kernel])).values()];
  const lowerSeconds = secondsSince(started);
  started = performance.now();
  const { compiled } = await compileLibrary(sources.map((kernel) => ({ ...kernel, includes: [prelude] })));
  const compileSeconds = secondsSince(started);
  return {
    ...{ name, planSeconds, lowerSeconds, compileSeconds, compiled },
    ...{ kernels: sources.length, planBytes: report.planBytes },
  };
}

const results: CaseResult[] = [];
for (const { name, settings } of cases) {
  const started = performance.now();
  const { options } = await plan({ ...common, ...settings });
  results.push(await measure(name, options, secondsSince(started)));
}
console.log(JSON.stringify(results));
