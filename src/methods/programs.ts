import type { DType } from "../ir/dtype.js";
import type { Graph, Node } from "../ir/node.js";
import type { Assignment } from "../ir/program.js";
import type { Shape } from "../ir/shape.js";
import type { ForwardResult, LinearSpec } from "../models/types.js";
import type { RandomKey } from "../ops/random.js";
import type { TrainableLeaf } from "./estimator.js";

/**
 * One micro-batch of examples: B*T of each, or B of labels and weights where the model has a task. Weights are raw (0 or
 * 1, say): how much predicting each label counts.
 */
export interface ExampleBatch {
  readonly ids: Int32Array;
  readonly labels: Int32Array;
  readonly weights: Float32Array;
  readonly positions: Int32Array;
  readonly segments: Int32Array;
  /** Parts of the records that tokens belong to, B*T; absent = all of the first. */
  readonly types?: Int32Array;
  /** Numbers that a regression must tell, B. */
  readonly targets?: Float32Array;
  /** Number of the source that each row comes from, B; -1 for rows of padding. */
  readonly sources?: Int32Array;
}

/** What a program reads in the place of what the model holds. */
export interface ModelReads {
  /** The value of a tensor that trains in some step; its leaf if not given. */
  readonly read?: (tensor: TrainableLeaf) => Node;
  /** What multiplies that which methods add to a linear layer, f32 []; undefined = nothing does. */
  readonly scale?: (spec: LinearSpec) => Node | undefined;
}

/** What a program of a method's own is built from. There is no dropout in it. */
export interface ProgramContext {
  readonly graph: Graph;
  /** Rows and tokens of a row of a batch as the program sees it. */
  readonly rows: number;
  readonly length: number;
  /** The model on the program's batch. Each call builds it again; what two calls have in common is computed once. */
  readonly model: (reads?: ModelReads) => ForwardResult;
  /** Sum of the token losses of each row, times their raw weights, f32 [rows]. */
  readonly rowLosses: (reads?: ModelReads) => Node;
  /** All tensors that train in some step; complete once the model was built. */
  readonly trainables: () => readonly TrainableLeaf[];
  /** A number or vector that the host gives with each run; the method's programs may share it. */
  readonly input: (name: string, shape: Shape, dtype?: DType) => Node;
  /** One of the method's `states`, as a leaf: programs may read it, and assign to it. */
  readonly state: (name: string) => Node;
  /** The run's key of random bits, and the number of the step, u32 []. */
  readonly key: RandomKey;
  readonly step: Node;
}

/** What a program leaves behind. A batch may be run in parts, of equally many rows each. */
export interface ProgramResult {
  /** Whose first dimension are rows of the batch: those of the parts are put together. f32. */
  readonly rows?: Readonly<Record<string, Node>>;
  /** Whose values are added up over the parts, f32. */
  readonly sums?: Readonly<Record<string, Node>>;
  /** New values of `states` or of other persistent leaves, after each part. */
  readonly assignments?: readonly Assignment[];
  /** Gradients that it stores, for the memory report; with `loss`, f32 [], where a backward pass begins. */
  readonly gradients?: readonly Node[];
  readonly loss?: Node;
}

/** A program of a method's own, beside those of the steps; it lies in the same memory as they do. */
export interface MethodProgram {
  readonly name: string;
  readonly build: (context: ProgramContext) => ProgramResult;
}

/** A tensor that persists from step to step and lies in checkpoints: zeros at first, for the host and for programs. */
export interface MethodState {
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: "f32" | "i32";
}

/** Values of a method's states, by name: f32 ones. */
export type StateReader = (name: string) => Float32Array;

/** What outputs a program's run had, by name. */
export type ProgramOutputs = Readonly<Record<string, Float32Array>>;

/** What the host may do in an event. All of it is a function of the seed, the step and what persists. */
export interface EventContext {
  /** Number of the step that comes next, from 0. */
  readonly step: number;
  readonly seed: number;
  /** Runs one of the method's programs on a batch, with its inputs by name. */
  readonly run: (
    program: string,
    batch: ExampleBatch,
    inputs?: Readonly<Record<string, Float32Array>>,
  ) => Promise<ProgramOutputs>;
  /** Micro-batch number `index` of a pass over the run's training data of the method's own, apart from that of the steps. */
  readonly batch: (index: number) => ExampleBatch;
  /** One of the method's f32 states: a view, to read and to write. */
  readonly state: (name: string) => Float32Array;
  /** The bytes of any persistent tensor, by its whole name: a view (of one on disk, a copy). */
  readonly bytes: (tensor: string) => Uint8Array;
  /** Uniform in (0, 1), keyed by the seed, the step and the name. */
  readonly uniform: (name: string, count: number) => Float64Array;
  /** A number for the run's log of this step. */
  readonly log: (name: string, value: number) => void;
}

/** What the host does before some steps: probes, scores, choices. */
export interface MethodEvent {
  /** Whether it comes before step number `step` (from 0): a function of the number alone. */
  readonly due: (step: number) => boolean;
  readonly run: (context: EventContext) => Promise<void>;
}
