import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import type { FileSystem } from "./files.js";
import { isMissing } from "./files.js";
import type { Scores } from "./scores.js";
import { restartRecord, scalarRecord, versionRecord } from "./tfevents.js";

/** What a step leaves in metrics.jsonl. `step` counts from 1. */
export interface StepRecord {
  readonly step: number;
  readonly loss: number;
  readonly rate: number;
  readonly seconds: number;
  readonly tokens: number;
  readonly gradientNorm?: number;
  /** What methods add to the loss. */
  readonly regularisation?: number;
  /** Differences of losses of a zeroth-order step. */
  readonly differences?: readonly number[];
  /** Numbers of the methods' own, by `method.name`. */
  readonly logged?: Readonly<Record<string, number>>;
  /** Rows that a method chose for the step: their numbers in its draw. */
  readonly chosen?: readonly number[];
}

/** What an evaluation leaves in metrics.jsonl. */
export interface EvaluationRecord {
  readonly step: number;
  readonly heldOutLoss: number;
  readonly heldOutPerplexity: number;
  /** Of a model with a task. */
  readonly scores?: Scores;
}

/** Losses and seconds of the steps before a resume. */
export interface LogHistory {
  readonly losses: readonly number[];
  readonly stepSeconds: readonly number[];
}

export interface OpenLogs {
  readonly files: FileSystem;
  readonly out: string;
  /** Completed steps, and the bytes of metrics.jsonl that belong to them. */
  readonly step: number;
  readonly metricsBytes: number;
  /** Seconds since 1970. */
  readonly now: () => number;
}

/** The two logs of a run: metrics.jsonl, and an event file for TensorBoard. */
export class RunLogs {
  private constructor(
    private readonly metrics: FileHandle,
    private readonly events: FileHandle,
    private readonly now: () => number,
    /** Bytes of metrics.jsonl. */
    public metricsBytes: number,
    /** What the log holds of earlier steps; undefined where it was lost. */
    readonly history: LogHistory | undefined,
  ) {}

  /** Opens the logs; metrics.jsonl loses what was written after the checkpoint that the run goes on from. */
  static async open({ files, out, step, metricsBytes, now }: OpenLogs): Promise<RunLogs> {
    const path = join(out, "metrics.jsonl");
    const text = await readStart(files, path, metricsBytes);
    const history = text === undefined ? undefined : parseHistory(text, step);
    const length = history === undefined ? 0 : metricsBytes;
    const metrics = await files.open(path, "a");
    try {
      await metrics.truncate(length);
      const folder = join(out, "tensorboard");
      await files.mkdir(folder, { recursive: true });
      const started = now();
      const name = `events.out.tfevents.${Math.floor(started)}.thimble.${process.pid}.${step}`;
      const events = await files.open(join(folder, name), "a");
      const logs = new RunLogs(metrics, events, now, length, history);
      await events.appendFile(versionRecord(started));
      await events.appendFile(restartRecord(started, step + 1));
      return logs;
    } catch (error) {
      await metrics.close();
      throw error;
    }
  }

  async step(record: StepRecord): Promise<void> {
    const { step, loss, rate, seconds, tokens, gradientNorm } = record;
    await this.append(record);
    const scalars = { "train/loss": loss, "train/learning_rate": rate, "train/tokens_per_second": tokens / seconds };
    const norm = gradientNorm === undefined ? {} : { "train/gradient_norm": gradientNorm };
    await this.events.appendFile(scalarRecord(this.now(), step, { ...scalars, ...norm }));
  }

  async evaluation(record: EvaluationRecord): Promise<void> {
    await this.append(record);
    const scores = Object.entries(record.scores ?? {}).map(([name, value]) => [`held_out/${name}`, value] as const);
    const scalars = {
      "held_out/loss": record.heldOutLoss,
      "held_out/perplexity": record.heldOutPerplexity,
      ...Object.fromEntries(scores),
    };
    await this.events.appendFile(scalarRecord(this.now(), record.step, scalars));
  }

  /** Makes what was written last through a power failure; before a checkpoint that counts on it. */
  async sync(): Promise<void> {
    await this.metrics.sync();
  }

  async close(): Promise<void> {
    await this.metrics.close();
    await this.events.close();
  }

  private async append(record: object): Promise<void> {
    const line = new TextEncoder().encode(`${JSON.stringify(record)}\n`);
    await this.metrics.appendFile(line);
    this.metricsBytes += line.length;
  }
}

/** The first `length` bytes of a file as text; undefined where it is shorter. */
async function readStart(files: FileSystem, path: string, length: number): Promise<string | undefined> {
  if (length === 0) return "";
  try {
    const { size } = await files.stat(path);
    if (size < length) return undefined;
    const bytes = await files.readFile(path);
    return bytes.subarray(0, length).toString("utf8");
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Losses and seconds of steps 1 to `steps`; undefined where the text is not the log of just these. */
function parseHistory(text: string, steps: number): LogHistory | undefined {
  const losses: number[] = [];
  const stepSeconds: number[] = [];
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const record = parseLine(line);
    if (record === undefined) return undefined;
    const { step, loss, seconds } = record;
    if (loss === undefined) continue;
    // JSON has no NaN: a step that was skipped because of one has null.
    const value = loss === null ? NaN : loss;
    if (step !== losses.length + 1 || typeof value !== "number" || typeof seconds !== "number") return undefined;
    losses.push(value);
    stepSeconds.push(seconds);
  }
  return losses.length === steps ? { losses, stepSeconds } : undefined;
}

function parseLine(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
