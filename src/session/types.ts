import type { WeightSource } from "../io/model.js";
import type { LeafRole } from "../ops/leaves.js";
import type { ComposedMethods } from "../methods/compose.js";
import type { SourceTable } from "../methods/examples.js";
import type { ExampleBatch, ProgramOutputs } from "../methods/programs.js";
import type { HostTensors } from "../methods/types.js";
import type { ModelDefinition } from "../models/types.js";
import type { SavedPolicy } from "../passes/saved.js";
import type { PersistentLayout } from "../plan/plan.js";
import type { MemoryReport } from "../plan/report.js";
import type { Optimizer } from "../optim/types.js";
import type { Shape } from "../ir/shape.js";
import type { DType } from "../ir/dtype.js";
import type { Rates } from "../plan/predict.js";
import type { Lever } from "./lever.js";
import type { PlaceOptions } from "./place.js";

export type TargetName = "c" | "interpret";

/** Everything that decides what is compiled and how much memory it takes; no tensor data is needed for any of it. */
export interface SessionOptions {
  readonly definition: ModelDefinition;
  /** Storage format of each checkpoint tensor as it will lie in memory follows from this and `dtype`. */
  readonly storedFormat: (parameter: string) => string;
  readonly methods: ComposedMethods | undefined;
  readonly batch: number;
  readonly length: number;
  readonly accumulate: number;
  readonly dtype: "f32" | "bf16";
  /** From `makeOptimizer` (src/optim/registry.ts): its settings hold the types of states and masters. */
  readonly optimizer: Optimizer;
  /** Largest global gradient norm; undefined = no clipping. */
  readonly clip: number | undefined;
  /** `fastest`: of keeping all and keeping what is dear, the faster by prediction, if it is clearly so. */
  readonly saved: SavedPolicy | "fastest";
  /** Rows hold several records, which must not see each other. */
  readonly segments: boolean;
  /** Whether the training programs exist: they need methods. */
  readonly train: boolean;
  /** Which programs exist besides training: evaluation at the same batch and length; decoding with a cache. */
  readonly evaluate: boolean;
  readonly decode: { readonly capacity: number; readonly chunk: number } | undefined;
  readonly target: TargetName;
  readonly threads: number;
  readonly seed: number;
  /** The block of each turn, where the methods' blocks take turns in training. */
  readonly active?: readonly number[];
  /** Where what persists lies already; if not given, it is laid out. */
  readonly layout?: PersistentLayout;
  /** Frozen weights that lie on disk; if not given, all lie in memory. */
  readonly place?: PlaceOptions | undefined;
  /** Each micro-batch is run in so many parts, whose gradients are added up; 1 if not given. Divides `batch`. */
  readonly split?: number;
  /** What the run may take; training is then planned to keep to it, by all levers there are. */
  readonly budget?: MemoryBudget | undefined;
  /** Levers that change numbers beyond rounding: pulled only where the budget allows it. */
  readonly lossy?: readonly Lever[];
  /** How fast this machine runs kernels; common values if not given. */
  readonly rates?: Rates | undefined;
}

export interface MemoryBudget {
  /** Bytes of the plan and of what the process takes beside it; `min`: hardly more than the fewest that are possible. */
  readonly bytes: number | "min";
  readonly overheadBytes: number;
  readonly allowLossy: boolean;
}

/** One micro-batch; its weights are divided by the step's total in the session. */
export type SessionBatch = ExampleBatch;

export interface StepResult {
  /** Weighted mean loss over all micro-batches, before the update. */
  readonly loss: number;
  /** Present with clipping. */
  readonly gradientNorm?: number;
  /** Present where methods add a term to the loss: the term, before the update; `loss` is without it. */
  readonly regularisation?: number;
  /**
   * Present with a zeroth-order estimator: the difference of the losses along each direction. Where one is not finite,
   * the step was skipped.
   */
  readonly differences?: readonly number[];
  /** Numbers that events before the step had for the log, by `method.name`. */
  readonly logged?: Readonly<Record<string, number>>;
  /** Present where a method chose the step's rows: their numbers in the draw. */
  readonly chosen?: readonly number[];
  readonly seconds: number;
}

/** Number of a step, its learning rate, and the data that events before it may draw from. */
export interface StepOptions {
  readonly rate: number;
  readonly step: number;
  /** Micro-batch number `index` of the run's training data, endless. */
  readonly data?: (index: number) => SessionBatch;
  /** Where the rows of batches come from, for methods that choose among them. */
  readonly sources?: SourceTable;
}

/** What an evaluation of a micro-batch gives. */
export interface Evaluated {
  /** Weighted sum of the losses of tokens, or of rows where the model has a task. */
  readonly lossSum: number;
  readonly weightSum: number;
  /** In models with a task: a number for each row and label, [B, labels]. */
  readonly logits?: Float32Array;
}

export interface PersistentTensor {
  readonly name: string;
  readonly role: LeafRole;
  readonly shape: Shape;
  readonly dtype: DType;
  readonly format: string;
  readonly bytes: number;
  /** Changes while training: what a checkpoint must hold. */
  readonly changes: boolean;
}

/** A compiled run: its arena, its programs, and ways to read and write what persists. */
export interface Session {
  readonly report: MemoryReport;
  /** What the runtime really allocated, counted where it allocates. */
  readonly arenaBytes: number;
  readonly target: TargetName;
  readonly threads: number;
  readonly compileSeconds: number;
  readonly trainableParameters: number;
  readonly tensors: readonly PersistentTensor[];
  /** Streams the base weights into place, prepares methods (with what they calibrated), draws start values from the seed. */
  load(weights: WeightSource, calibrated?: HostTensors): Promise<void>;
  /**
   * One optimizer step, number `step` (from 0), at learning rate `rate`: from `accumulate` micro-batches, or from as many
   * as are drawn (`drawnBatches`) where a method chooses among their rows.
   */
  step(batches: readonly SessionBatch[], options: StepOptions): Promise<StepResult>;
  /**
   * Runs a method's own program (`method.program`) on a batch with its inputs (`input` of the program): rows of the
   * batch's parts are put together, sums added up. Its random bits are those of step `step`.
   */
  readonly run?: (
    program: string,
    batch: SessionBatch,
    options: { readonly step: number; readonly inputs?: Readonly<Record<string, Float32Array>> },
  ) => Promise<ProgramOutputs>;
  /** The update alone, from the sums over micro-batches by name (see Estimate.linear): how a trajectory is replayed. */
  readonly apply?: (
    sums: ReadonlyMap<string, number>,
    options: { readonly rate: number; readonly step: number },
  ) => Promise<void>;
  /** Forward only: no weights are changed. */
  evaluate(batch: SessionBatch): Promise<Evaluated>;
  /** Feeds tokens at `position` into the cache; the logits of the last one. */
  decode(ids: Int32Array, position: number): Promise<Float32Array>;
  /**
   * The bytes of a persistent tensor in place: a view, valid until the session closes. Of a tensor that lies on disk
   * (by `place`, or by the methods' placement) it is a copy: changes of it go by `put`.
   */
  bytes(name: string): Uint8Array;
  /** Whether the weights have every update: a method may leave the last one for the next step. Absent = always. */
  readonly current?: boolean;
  /** Applies the update that is pending, if there is one. What reads the weights while one is pending does this first. */
  readonly settle?: () => Promise<void>;
  /** As `bytes`, without memory of its own for a tensor on disk: to be read before the next call, or the next program. */
  readonly peek?: (name: string) => Uint8Array;
  /** Gives a persistent tensor its bytes, wherever it lies. */
  readonly put?: (name: string, bytes: Uint8Array) => void;
  close(): void;
}
