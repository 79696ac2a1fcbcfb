import type { WeightSource } from "../io/model.js";
import type { LeafRole } from "../ops/leaves.js";
import type { ComposedMethods } from "../methods/compose.js";
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

/** One micro-batch: B*T of each; weights are raw (0 or 1, say) and are divided by the step's total in the session. */
export interface SessionBatch {
  readonly ids: Int32Array;
  readonly labels: Int32Array;
  readonly weights: Float32Array;
  readonly positions: Int32Array;
  readonly segments: Int32Array;
}

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
  readonly seconds: number;
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
  /** Streams the base weights into place, prepares methods, draws start values from the seed. */
  load(weights: WeightSource): Promise<void>;
  /** One optimizer step, number `step` (from 0), from `accumulate` micro-batches at learning rate `rate`. */
  step(
    batches: readonly SessionBatch[],
    options: { readonly rate: number; readonly step: number },
  ): Promise<StepResult>;
  /** The update alone, from the sums over micro-batches by name (see Estimate.linear): how a trajectory is replayed. */
  readonly apply?: (
    sums: ReadonlyMap<string, number>,
    options: { readonly rate: number; readonly step: number },
  ) => Promise<void>;
  /** Forward only: the weighted sum of the token losses and the sum of the weights. */
  evaluate(batch: SessionBatch): Promise<{ readonly lossSum: number; readonly weightSum: number }>;
  /** Feeds tokens at `position` into the cache; the logits of the last one. */
  decode(ids: Int32Array, position: number): Promise<Float32Array>;
  /**
   * The bytes of a persistent tensor in place: a view, valid until the session closes. Of a tensor that lies on disk
   * (frozen weights, if `place` says so) it is a copy.
   */
  bytes(name: string): Uint8Array;
  close(): void;
}
