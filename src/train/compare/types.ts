import type { RunConfig } from "../../config/schema.js";
import type { Composition } from "../../plan/report.js";

/** A combination of methods to compare, as `lora` or `qlora+lisa`. */
export interface Contestant {
  readonly name: string;
  readonly methods: RunConfig["method"];
  readonly set: readonly string[];
}

/** One run of a contestant. */
export interface ComparedRun {
  readonly seed: number;
  readonly losses: readonly number[];
  /** Held-out loss after the last step. */
  readonly heldOutLoss: number;
  readonly tokensPerSecond: number;
  readonly rssBytes: number;
}

export interface Spread {
  readonly mean: number;
  /** Sample standard deviation; 0 of a single run. */
  readonly deviation: number;
}

export interface ComparedMethod {
  readonly name: string;
  readonly runs: readonly ComparedRun[];
  readonly heldOutLoss: Spread;
  readonly tokensPerSecond: Spread;
  readonly trainableParameters: number;
  readonly planBytes: number;
  readonly composition: Composition;
  /** The largest of the runs. */
  readonly rssBytes: number;
  /** Bytes of the files that a run leaves. */
  readonly resultBytes: number;
  readonly learningRate: number;
}

/** A combination that does not run, and why. */
export interface RefusedMethod {
  readonly name: string;
  readonly code: string;
  readonly reason: string;
}

export interface Comparison {
  readonly model: string;
  readonly data: readonly string[];
  readonly dtype: string;
  readonly batch: number;
  readonly seq: number;
  readonly steps: number;
  readonly seeds: readonly number[];
  readonly memoryBudget?: string | number;
  readonly machine: Readonly<Record<string, string>>;
  /** Held-out loss of the model as it is. */
  readonly before: number;
  readonly methods: readonly ComparedMethod[];
  readonly refused: readonly RefusedMethod[];
}
