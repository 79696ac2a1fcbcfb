import type { z } from "zod";
import type { DType } from "../ir/dtype.js";
import type { Graph, Node } from "../ir/node.js";
import type { Assignment } from "../ir/program.js";
import type { Shape } from "../ir/shape.js";
import type {
  BlockPart,
  LinearSpec,
  ModelDefinition,
  NarrowModel,
  ParameterSpec,
  Place,
  Tower,
} from "../models/types.js";
import type { Optimizer, StateSettings } from "../optim/types.js";
import type { Estimator } from "./estimator.js";
import type { ExampleChoice } from "./examples.js";
import type { MethodEvent, MethodProgram, MethodState, StateReader } from "./programs.js";

/** What methods compete for. Two methods with exclusive claims on one resource are refused, in words. */
export type Resource =
  /** The values of base tensors: training them, editing them, or relying on them to stay as they are. */
  | "base-weights"
  /** How base tensors are stored: quantising, pruning, decomposing. */
  | "base-format"
  /** What is added to (or made of) a linear layer's weight in its product. */
  | "weight-delta"
  /** The gradient itself, where a method consumes or changes it before the update. */
  | "gradients"
  /** How the blocks of the model are chained. */
  | "stack"
  /** The rows that the first block reads. */
  | "input-rows"
  /** How values are kept for the backward pass. */
  | "saved-values"
  /** The optimizer's states. */
  | "moments"
  /** The sampler that changes the trained set while running. */
  | "trainable-set"
  /** How a gradient is made. */
  | "estimator"
  /** Stable identities of the examples in a batch. */
  | "sample-ids"
  /** Which examples enter a batch. */
  | "batches"
  /** Where weights and states live. */
  | "placement"
  /** What is minimised. */
  | "objective";

export interface Claim {
  readonly resource: Resource;
  readonly exclusive: boolean;
  /** Names of the base tensors it concerns; absent = the whole model. Claims on different tensors never conflict. */
  readonly tensors?: readonly string[];
  /** What the method does with it, to complete "… because it …". */
  readonly reason: string;
}

/** Start value of a new tensor: all are drawn from the run's counter-based bits, keyed by the tensor's name. */
export type Initial =
  | { readonly kind: "zeros" }
  | { readonly kind: "ones" }
  /** Uniform in [-bound, bound). */
  | { readonly kind: "uniform"; readonly bound: number }
  | { readonly kind: "normal"; readonly deviation: number }
  /** Given by the method's `prepare`, from the base weights. */
  | { readonly kind: "prepared" };

/** A tensor that a method brings into the model and trains. */
export interface AdapterTensor {
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: DType;
  readonly initial: Initial;
  /** Optimizer settings of its own: a factor on the learning rate, and whether weight decay applies. */
  readonly rateFactor: number;
  readonly decay: boolean;
  /** The block that it belongs to, where blocks take turns in training; absent = it always trains. */
  readonly block?: number;
  /** The path of the model's layer that it has the part of, where its name does not begin with it. */
  readonly layer?: string;
}

/** A tensor that a method computes from the base weights in `prepare`: it does not train and is never saved. */
export interface FixedTensor {
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: DType;
}

export interface AdaptContext {
  readonly graph: Graph;
  readonly model: ModelDefinition;
  /** Declares a trainable tensor and returns its value. */
  trainable(tensor: AdapterTensor): Node;
  /** Declares a tensor that `prepare` sets once and returns its value. */
  fixed(tensor: FixedTensor): Node;
  /**
   * Declares a tensor that does not train, but that steps may change (see `watch` and `UpdateResult.also`), and returns its
   * value: zeros unless `prepare` sets it. It lies in checkpoints.
   */
  moving(tensor: FixedTensor): Node;
  /** The kind of the step, by the slot `steps`; "" = ordinary, and outside training. */
  readonly variant: string;
  /**
   * A zero that only rules of gradients read (see `defineGradient`): what they give by it reaches `watch`. Undefined where
   * nothing is watched: outside training, and where gradients are not made by a backward pass.
   */
  probe(name: string, shape: Shape): Node | undefined;
  /** The frozen (or trained) base weight of a linear layer, as stored: [out, in], or [in, out] where transposed. */
  weight(spec: LinearSpec): Node;
  /** The bias [out] of a linear layer that has one. */
  bias(spec: LinearSpec): Node | undefined;
  /**
   * `x` [tokens, n] as the operand of a layer's product whose other side trains: the same value, of which backward reads
   * what the methods keep of it (see the slot `saved`). `x` itself outside training.
   */
  operand(spec: LinearSpec, x: Node): Node;
  /** Uniform f32 in [0, 1), keyed by (seed, step, place); in training alone. */
  uniform(shape: Shape, place: string): Node;
  /** Dropout of `x` (f32) with probability `p`, keyed by (step, place); `x` itself at p = 0 and outside training. */
  dropout(x: Node, p: number, place: string): Node;
  /**
   * A factor of what the method adds to a layer, in which that is linear: `value` itself, or in programs that dim layers
   * (`ModelReads.scale`) times their number. A method whose additions all go through it says so by `scales`.
   */
  scaled(spec: LinearSpec, value: Node): Node;
  /** A network beside the model, which sees the same tokens; `name` is that of its cache, `value` reads its tensors. */
  beside(name: string, network: NarrowModel, value: (parameter: ParameterSpec) => Node): Tower;
}

/** What a method's host-side preparation may do before training: read base weights, set its own tensors. */
export interface PrepareContext {
  readonly model: ModelDefinition;
  readonly seed: number;
  /** Storage format id of a base tensor. */
  format(parameter: string): string;
  /** A base tensor decoded to f32, row-major as stored. */
  read(parameter: string): Promise<Float32Array>;
  /** A base tensor in f32 as the checkpoint has it, before it was packed. */
  original(parameter: string): Promise<Float32Array>;
  /** Replaces a base tensor (refused where its storage format cannot hold it). */
  replace(parameter: string, values: Float32Array): Promise<void>;
  /** Gives a `prepared`, fixed or moving tensor its value. */
  set(tensor: string, values: Float32Array | Int32Array): void;
  /** What the method's `calibrate` made, by name; absent where the values come from a checkpoint or an adapter. */
  readonly calibrated?: HostTensors | undefined;
}

/** Tensors by name, in f32. */
export type HostTensors = ReadonlyMap<string, Float32Array>;

/** Statistics of the model on the run's data, taken in a session of their own before a run starts. */
export interface Calibration {
  /** Examples that are run, one at a time, through the whole model and back. */
  readonly examples: number;
  /** What `prepare` is given, made of the sums of squared gradients of each base tensor, f32, row-major as stored. */
  readonly reduce: (sums: (parameter: string) => Promise<Float32Array>) => Promise<HostTensors>;
}

/** The `integers` of an adapter by name. */
export type HostIntegers = ReadonlyMap<string, Int32Array>;

/** Slots a method may fill; see DESIGN. Absent = the default. */
export interface MethodSlots {
  /** The storage format that a base tensor which does not train is packed into; undefined = the run's. */
  readonly format?: (parameter: ParameterSpec) => string | undefined;
  /** Changes base weights before training, or start values that depend on them. */
  readonly prepare?: (context: PrepareContext) => Promise<void>;
  /** Statistics that `prepare` needs at the start of a run. One method alone may. */
  readonly calibrate?: Calibration;
  /** Wraps a linear layer: `next` computes the layer beneath (base, or the adapter before this one). */
  readonly linear?: (context: AdaptContext, spec: LinearSpec, x: Node, next: (x: Node) => Node) => Node;
  /** Rows that `embedded` puts in front of every row of the batch; they have the first positions and no ids. */
  readonly prefix?: number;
  /** The rows of the tokens, made of the embedding's [tokens, d], as stored and before learned positions are added; positions i32 [tokens]. */
  readonly embedded?: (context: AdaptContext, rows: Node, positions: Node) => Node;
  /** Wraps what a part of a block adds to the hidden states: `next` computes it from the part's (normalised) input. */
  readonly part?: (context: AdaptContext, part: BlockPart, block: number, x: Node, next: (x: Node) => Node) => Node;
  /**
   * A value of a block as what follows computes with it, and as backward reads it: `x` itself, another form of it, or `x`
   * with another gradient. Called in training alone; `undefined` = `x`.
   */
  readonly represent?: (context: AdaptContext, place: Place, x: Node) => Node | undefined;
  /** Chains the blocks in another way: from what the first reads to what the head does, the norm included. One method alone may. */
  readonly stack?: (context: AdaptContext, tower: Tower, x: Node) => Node;
  /**
   * What backward reads of `x` [tokens, n], the operand of a layer's product whose other side trains: `x` with another
   * form for backward (`savedAs`, `savedRows`), its value unchanged. Called in training alone, with the same `x` for
   * layers that share their input.
   */
  readonly saved?: (context: AdaptContext, spec: LinearSpec, x: Node) => Node;
  /** Which base tensors train; absent = none. */
  readonly select?: (parameter: ParameterSpec) => boolean;
  /** How gradients are made; absent = backpropagation. */
  readonly estimate?: Estimator;
  /** How the run's update rule stores its states of a trained tensor, whatever `update` makes of it; undefined = as it does. */
  readonly moments?: (tensor: TrainedTensor) => StateSettings | undefined;
  /** The update rule of a trained tensor, made from the run's own; undefined = it keeps that one. */
  readonly update?: (
    tensor: TrainedTensor,
    optimizer: Optimizer,
    variant: string,
    context: UpdateContext,
  ) => Optimizer | undefined;
  /** Blocks that take turns in training what `select` and `linear` let train; absent = all train in every step. */
  readonly turns?: Turns;
  /** Kinds of steps that need programs of their own, such as one that renews projectors. */
  readonly steps?: StepKinds;
  /** What becomes of the gradients of a micro-batch by the probes: of single values of the model, such as whole weights. */
  readonly watch?: (context: WatchContext) => Watched;
  /** Numbers that depend on the step alone (from 0), computed in f64 on the host: pure, so that a run can be resumed. */
  readonly scalars?: (step: number) => Readonly<Record<string, number>>;
  /** A term of the trained tensors that is added to the loss, f32 []: it trains, and is reported apart from the loss. */
  readonly regularise?: (context: RegulariseContext) => Node;
  /** What comes after the updates of a step: statistics of all gradients, and changes that follow from them. */
  readonly collect?: (context: CollectContext) => Collected;
  /** Where the base's tensors lie while they are not used. One method alone may say so. */
  readonly place?: Placement;
  /** Updates are left for the next step to apply, where that reads each tensor anyway. */
  readonly defer?: Deferral;
  /** Tensors of the method's own that persist: scores, counts. What `collect` declares is not among them. */
  readonly states?: readonly MethodState[];
  /** Programs of the method's own, which its events run. */
  readonly programs?: readonly MethodProgram[];
  /** What the host does before some steps, one after the other. */
  readonly events?: readonly MethodEvent[];
  /** Which examples of a larger draw enter a step; after the step's events. One method alone may say so. */
  readonly examples?: ExampleChoice;
}

/** Which tensors lie on disk and visit the memory, block after block; see Streaming. */
export interface Placement {
  /** Whether a base tensor, with the optimizer's states of it, lies there, be it trained or frozen. */
  readonly disk: (parameter: ParameterSpec) => boolean;
  /** Blocks come and go beside the computing of others: three of them are in memory at a time. If not, one. */
  readonly overlap: boolean;
  /** The type in which a tensor of floats is kept there, and read; undefined = the run's. */
  readonly stored?: (parameter: ParameterSpec) => "f32" | "bf16" | "f16" | undefined;
}

export interface Deferral {
  /** Whether what reads the weights applies a pending update first; if not, it is refused. */
  readonly automatic: boolean;
}

export interface RegulariseContext {
  readonly graph: Graph;
  /** What the tensors that train in the step hold before it, by name. */
  readonly values: ReadonlyMap<string, Node>;
}

/** A tensor that trains, in the update of a step. */
export interface UpdatedTensor {
  readonly before: Node;
  /** What the update rule was given, f32: the sum over micro-batches, after clipping. */
  readonly gradient: Node;
  /** What the rule made of the tensor, of its stored type. */
  readonly after: Node;
}

export interface CollectContext {
  readonly graph: Graph;
  /** The kind of the step; "" = ordinary. */
  readonly variant: string;
  /** All that train in the step, by name, in the order of their updates. */
  readonly tensors: ReadonlyMap<string, UpdatedTensor>;
  /** What those of the methods' tensors hold that do not train in the step: their blocks have not their turn. */
  readonly idle: ReadonlyMap<string, Node>;
  /** Declares an f32 tensor that persists from step to step, zeros at first, and returns what it held before this one. */
  readonly state: (name: string, shape: Shape) => Node;
  /** One of the method's `scalars`, f32 []. */
  readonly scalar: (name: string) => Node;
}

/** What follows from the updates of a step. */
export interface Collected {
  /** What tensors become, trained ones instead of `after`, by name; for those in f32, which have no master beside them. */
  readonly values: ReadonlyMap<string, Node>;
  /** New values of the declared states, by name; one that is left out stays as it is. */
  readonly states: ReadonlyMap<string, Node>;
}

/** Which program a step runs: `variants` beside the ordinary one, "", and which of them all step number `step` is. */
export interface StepKinds {
  readonly variants: readonly string[];
  /**
   * Pure in the number of the step (from 0), so that a resumed run goes on alike. Where several micro-batches make a step,
   * it may be another for those after the first; that of the first makes the update.
   */
  variant(step: number, microBatch: number): string;
}

export interface WatchContext {
  readonly graph: Graph;
  /** The kind of the step; "" = ordinary. */
  readonly variant: string;
  /** Gradients of the micro-batch's share of the loss by the probes, f32, by name. */
  readonly gradients: ReadonlyMap<string, Node>;
}

/** What a micro-batch leaves of what was watched. */
export interface Watched {
  /** Added up over the micro-batches of a step, f32, by name. */
  readonly sums: ReadonlyMap<string, Node>;
  /** New values of moving tensors: `UpdateContext.moved` reads them. */
  readonly moved: readonly Assignment[];
}

/** Which blocks train in a step, where they take turns. */
export interface Turns {
  /** Blocks that train at a time. */
  readonly count: number;
  /**
   * Whose the optimizer's states are. Of the turns: their memory does not grow, and a block that comes starts with new
   * ones and its own count of steps. Of the blocks: each keeps its own, and counts the steps in which it trains.
   */
  readonly states: "turn" | "block";
  /**
   * The blocks of step `step` (from 0), one a turn, and the step since which each has had it. Pure in its arguments;
   * `state` reads the method's own `states`, after the events of the step.
   */
  at(step: number, seed: number, state: StateReader): readonly Turn[];
}

export interface Turn {
  readonly block: number;
  readonly since: number;
}

/** What an update rule may ask of a tensor that trains. */
export interface TrainedTensor {
  readonly name: string;
  readonly node: Node;
}

/** What an update rule may ask of the step. */
export interface UpdateContext {
  /** One of the sums of `watch`, over the whole step. */
  sum(name: string): Node;
  /** What a moving tensor holds after the last micro-batch. */
  moved(tensor: FixedTensor): Node;
  /** One of the method's `scalars`, f32 []. */
  scalar(name: string): Node;
}

/** An adapter as a PEFT directory holds it: the method's part of `adapter_config.json`, and the tensors. */
export interface PeftForm {
  readonly config: Readonly<Record<string, unknown>>;
  /** By adapter name, without PEFT's `base_model.model.` prefix. */
  readonly tensors: ReadonlyMap<string, { readonly shape: Shape; readonly data: Float32Array }>;
}

/** What the maths of an export may read: the base as it was before training. */
export interface ExportContext {
  readonly seed: number;
  /** A base tensor of the original checkpoint, decoded to f32. */
  read(parameter: string): Promise<Float32Array>;
}

/** What suits a method that changes how gradients are made: an explicit choice of the run wins. */
export interface Suggestions {
  readonly optimizer: string;
  /** Learning rate where base weights train, and where only new tensors do. */
  readonly rate: { readonly weights: number; readonly adapter: number };
}

export interface ResolvedMethod {
  readonly id: string;
  readonly slots: MethodSlots;
  readonly claims: readonly Claim[];
  /** Learning rate that suits the method, printed when it is used; absent where the method does not train. */
  readonly learningRate?: number;
  readonly suggests?: Suggestions;
  /** What the method is where no other of the selection trains anything; absent = the same. */
  readonly alone?: ResolvedMethod;
  /** What the method is beside the methods of the selection, all of which are given; absent = the same. */
  readonly beside?: (methods: readonly ResolvedMethod[]) => ResolvedMethod;
  /** Refuses other methods of the selection, all of which are given, where claims cannot say why. */
  readonly check?: (methods: readonly ResolvedMethod[]) => void;
  /** Whether all that it adds to a layer goes through `AdaptContext.scaled`, so that it can be dimmed. */
  readonly scales?: boolean;
  /** How the result is saved: an adapter of the new tensors, or the changed base tensors; absent = it changes neither. */
  readonly saves?: "adapter" | "weights";
  /** Every trainable tensor that `linear` declares, in order of the model's layers. */
  readonly adapters: readonly AdapterTensor[];
  /** Why each row of the batch must hold one record alone; absent = rows may hold several. */
  readonly oneRecord?: string;
  /** Integers (i32) that an adapter must hold beside the trained tensors, such as indices: persistent tensors by name. */
  readonly integers?: readonly string[];
  /** The trained tensors as PEFT reads them over the original checkpoint. */
  readonly peft?: (tensors: HostTensors, context: ExportContext) => Promise<PeftForm>;
  /** Refuses integers that cannot be those of an adapter of this method, such as places outside a matrix. */
  readonly checkIntegers?: (integers: HostIntegers) => void;
  /**
   * The weight of one linear layer with the trained tensors folded in, from the weight that training ran on, as
   * stored; undefined where the method leaves the layer alone. Fails on values that are not finite.
   */
  readonly merge?: (
    spec: LinearSpec,
    weight: Float32Array,
    tensors: HostTensors,
    integers: HostIntegers,
  ) => Float32Array | undefined;
  readonly config: unknown;
}

/** What a training step's memory holds. */
export type MemoryKind = "weights" | "gradients" | "states" | "activations";

/** What settings may follow from. */
export interface RunFacts {
  readonly steps: number;
  /** Tokens of a row. */
  readonly length: number;
}

/** A method as its folder declares it; everything else (flags, docs, checks) is derived from this value. */
export interface Method<Schema extends z.ZodObject = z.ZodObject> {
  readonly id: string;
  readonly title: string;
  /** arXiv number or address of the paper. */
  readonly paper: string;
  readonly year: number;
  readonly summary: string;
  /** The kinds of memory that it takes less of than training all weights does. */
  readonly reduces: readonly MemoryKind[];
  /** The slots that the method can fill, for the table of methods. */
  readonly fills: readonly (keyof MethodSlots | "export")[];
  /** Methods that are added, with their defaults, where nothing else of the selection trains. */
  readonly companions?: readonly string[];
  /** Settings with defaults, ranges and a description each; unknown keys are refused. */
  readonly config: Schema;
  /** Settings that follow from the run where they are not given. */
  readonly defaultsFor?: (run: RunFacts) => Readonly<Record<string, unknown>>;
  /** Settings that are texts, each with the setting that takes its token ids where there is a tokenizer. */
  readonly textSettings?: Readonly<Record<string, string>>;
  /** Checks the config against the model and returns what to do; errors name the offending key. */
  resolve(config: z.infer<Schema>, model: ModelDefinition): ResolvedMethod;
}
