/** What one check of the parity run is, and how it tells what it found. */
import { ThimbleError } from "../../src/errors.js";
import type { Python } from "./python.js";

export interface Outcome {
  readonly name: string;
  /** What was compared with what. */
  readonly compared: string;
  readonly status: "pass" | "fail" | "skip";
  /** What was found; for a skip, why. */
  readonly result: string;
  /** What passes. */
  readonly tolerance: string;
  /** The largest difference, where the result is one. */
  readonly difference?: number;
}

export interface Context {
  readonly python: Python;
  /** The folder that the yardstick's prepare.py wrote, if there is one. */
  readonly data: string | undefined;
  /** The folder with the yardstick's bench.py, if there is one. */
  readonly bench: string | undefined;
  /** Where results of the PyTorch side are kept from run to run, if anywhere. */
  readonly cache: string | undefined;
  /** A folder that has node-llama-cpp in its node_modules; made with npm if not given. */
  readonly llama: string | undefined;
  /** A scratch folder. */
  readonly work: string;
  /** Trains LoRA on the real model, once for all checks that ask for it. */
  trained(): Promise<TrainedAdapter>;
}

export interface TrainedAdapter {
  /** The run's folder, which `--adapter` takes. */
  readonly folder: string;
  readonly losses: readonly number[];
}

export interface Check {
  readonly name: string;
  run(context: Context): Promise<readonly Outcome[]>;
}

/** Why a check cannot run here: thrown, and shown as a skip. */
export class Skip extends Error {}

/** The yardstick's folder, or the end of the check. */
export function requireData({ data }: Context): string {
  if (data !== undefined) return data;
  throw new Skip("no --data (the folder that the yardstick's prepare.py writes)");
}

/** An outcome that passes up to a largest difference; one that is not a number fails. */
export function within(name: string, compared: string, difference: number, limit: number, unit: string): Outcome {
  return {
    name,
    compared,
    status: difference <= limit ? "pass" : "fail",
    result: `${difference.toExponential(1)} ${unit}`,
    tolerance: limit.toExponential(0),
    difference,
  };
}

/** An outcome of facts that must all hold: the result counts them, or names the first that do not. */
export function holds(name: string, compared: string, facts: readonly (readonly [string, boolean])[]): Outcome {
  const wrong = facts.filter(([, held]) => !held).map(([fact]) => fact);
  const result = wrong.length === 0 ? `all ${facts.length} facts hold` : `not so: ${wrong.slice(0, 4).join("; ")}`;
  const status = wrong.length === 0 && facts.length > 0 ? "pass" : "fail";
  return { name, compared, status, result, tolerance: "exact" };
}

/** Runs a check; a Skip becomes a skip, any other error a failure. */
export async function runCheck(check: Check, context: Context): Promise<readonly Outcome[]> {
  try {
    return await check.run(context);
  } catch (error) {
    const skipped = error instanceof Skip;
    const described = error instanceof ThimbleError ? error.describe() : undefined;
    const text = described ?? (error instanceof Error ? error.message : String(error));
    const result = text.replaceAll(/\s*\n\s*/g, "; ").replaceAll(context.work, "WORK");
    return [{ name: check.name, compared: "", status: skipped ? "skip" : "fail", result, tolerance: "" }];
  }
}
