import type { ThimbleError } from "../errors.js";
import type { WeightSource } from "../io/weight-source.js";
import type { SourceTable } from "../methods/examples.js";
import type { ModelTask } from "../models/types.js";
import type { Schedule } from "../optim/schedules.js";
import type { Composition, MemoryReport } from "../plan/report.js";
import type { Session, SessionBatch, SessionOptions } from "../session/types.js";
import type { FileSystem } from "./files.js";
import type { RunIdentity } from "./identity.js";
import type { Scores } from "./scores.js";

/** Micro-batches by number: a pure function of the number, so that a position in the data is a number. */
export interface BatchSource {
  batch(index: number): SessionBatch;
}

/** A finite set of batches, such as the held-out part of the data. */
export interface FiniteBatches extends BatchSource {
  readonly count: number;
}

/** The settings of the loop itself. */
export interface LoopSettings {
  readonly out: string;
  readonly resume: boolean;
  readonly steps: number;
  readonly saveEvery: number;
  readonly evalEvery: number;
  readonly keep: number;
}

/** A run that is ready to start: everything is checked, no weight is read. */
export interface PreparedRun {
  readonly loop: LoopSettings;
  readonly options: SessionOptions;
  /** Highest learning rate, and the one that suits the method. */
  readonly rate: number;
  readonly suggestedRate: number;
  readonly factor: Schedule;
  readonly identity: RunIdentity;
  readonly machine: Readonly<Record<string, string>>;
  readonly batches: BatchSource;
  /** Where the rows of the batches come from, for methods that choose among them. */
  readonly sources?: SourceTable;
  readonly heldOut?: FiniteBatches;
  readonly weights: WeightSource;
  /** Puts the values of `adapter` into a loaded session. */
  readonly startFrom?: (session: Session) => Promise<void>;
  /** Writes what the run is for (an adapter, or a model) into a folder that does not exist yet. */
  readonly saveResult: (session: Session, folder: string) => Promise<void>;
  /** Name of that folder within `out`. */
  readonly resultName: "adapter" | "model";
  /** What a person should know before the run starts, a sentence each. */
  readonly notices: readonly string[];
  close(): Promise<void>;
}

export type Phase = "compile" | "load" | "train" | "save";

export interface Notice {
  /** Short kebab-case name, as errors have. */
  readonly code: string;
  readonly message: string;
}

export interface StepEvent {
  /** Completed steps, this one included. */
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  readonly rate: number;
  readonly seconds: number;
  readonly tokensPerSecond: number;
  readonly gradientNorm?: number;
}

export interface EvaluateEvent {
  readonly step: number;
  readonly loss: number;
  readonly perplexity: number;
  /** Of a model with a task. */
  readonly scores?: Scores;
}

/** What a run tells while it runs; all are optional and none may take long. */
export interface TrainEvents {
  readonly onNotice?: (notice: Notice) => void;
  readonly onPhase?: (phase: Phase) => void;
  readonly onPlan?: (report: MemoryReport, facts: PlanFacts) => void;
  /** Steps that a resumed run has done before. */
  readonly onResume?: (checkpoint: { readonly step: number; readonly folder: string }) => void;
  readonly onStep?: (event: StepEvent) => void;
  readonly onEvaluate?: (event: EvaluateEvent) => void;
  readonly onCheckpoint?: (checkpoint: { readonly step: number; readonly folder: string }) => void;
  readonly onSaved?: (folder: string) => void;
  readonly onDamaged?: (error: ThimbleError) => void;
}

export interface PlanFacts {
  readonly trainableParameters: number;
  readonly rate: number;
  readonly target: string;
  readonly threads: number;
  readonly compileSeconds: number;
}

/** Memory of a run, in bytes. */
export interface PeakMemory {
  readonly planBytes: number;
  readonly arenaBytes: number;
  /** Peak resident memory minus the resident memory just before the model was read. */
  readonly rssBytes: number;
  /** What lives at the moment of the peak; sums to `planBytes`. */
  readonly composition: Composition;
}

/** What `train --json` prints. */
export interface TrainSummary {
  readonly losses: readonly number[];
  readonly stepSeconds: readonly number[];
  /** Median of the steps after the second. */
  readonly tokensPerSecond: number;
  readonly trainableParameters: number;
  readonly target: string;
  readonly dtype: string;
  readonly threads: number;
  readonly peak: PeakMemory;
  readonly out: string;
}

export interface TrainResult {
  readonly summary: TrainSummary;
  /** Completed steps. */
  readonly step: number;
  /** Whether the signal ended the run before its last step. */
  readonly interrupted: boolean;
  /** Folder of the adapter or model; absent where the run was interrupted. */
  readonly result?: string;
  /** What the model tells of records; absent where it predicts tokens. */
  readonly task?: ModelTask["kind"];
  readonly lastEvaluation?: EvaluateEvent;
}

/** What the loop needs of the world; tests replace parts of it. */
export interface Environment {
  readonly openSession: (options: SessionOptions) => Promise<Session>;
  readonly files: FileSystem;
  /** Seconds since 1970. */
  readonly now: () => number;
}
