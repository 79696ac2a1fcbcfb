import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import type { Contender } from "./rows.js";

/** What one process measured. */
export interface Figures {
  /** Median of the steps after the second. */
  readonly tokensPerSecond: number;
  /** Resident memory of the process above what it was before the model was read. */
  readonly peakMiB: number;
  /** Bytes of the plan, where there is one. */
  readonly planMiB?: number;
  readonly losses: readonly number[];
  readonly stepSeconds: readonly number[];
}

/** One line of the log: one process of one contender, or why it gave nothing. */
export interface Measurement extends Contender {
  readonly row: string;
  /** From 1. */
  readonly round: number;
  readonly steps: number;
  /** When the command that ran it was started: measurements of one sitting have the same. */
  readonly sitting: string;
  readonly time: string;
  /** Commit of Thimble, with a + where files differed from it. */
  readonly commit: string;
  /** Seconds of the whole process. */
  readonly seconds: number;
  readonly figures?: Figures;
  readonly failure?: string;
}

/** A file of measurements, a line each, which an interrupted run leaves whole. */
export class MeasurementLog {
  constructor(private readonly path: string) {}

  read(): Measurement[] {
    if (!existsSync(this.path)) return [];
    return readFileSync(this.path, "utf8")
      .split("\n")
      .filter((line) => line.trim() !== "")
      .map((line) => JSON.parse(line) as Measurement);
  }

  append(measurement: Measurement): void {
    mkdirSync(dirname(this.path), { recursive: true });
    appendFileSync(this.path, `${JSON.stringify(measurement)}\n`);
  }

  /** Forgets the measurements of some rows. */
  drop(rows: ReadonlySet<string>): void {
    const kept = this.read().filter(({ row }) => !rows.has(row));
    if (existsSync(this.path)) writeFileSync(this.path, kept.map((one) => `${JSON.stringify(one)}\n`).join(""));
  }
}
