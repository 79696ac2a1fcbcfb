import type { z } from "zod";
import type { DType } from "../ir/dtype.js";
import type { Graph, Node } from "../ir/node.js";
import type { Shape } from "../ir/shape.js";
import type { Block, BlockPart, LinearSpec, ModelDefinition, ParameterSpec } from "../models/types.js";
import type { Optimizer } from "../optim/types.js";
import type { Estimator } from "./estimator.js";

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
  /** Gives a `prepared` or fixed tensor its value. */
  set(tensor: string, values: Float32Array): void;
}

/** Tensors by name, in f32. */
export type HostTensors = ReadonlyMap<string, Float32Array>;

/** Slots a method may fill; see DESIGN. Absent = the default. */
export interface MethodSlots {
  /** The storage format that a base tensor which does not train is packed into; undefined = the run's. */
  readonly format?: (parameter: ParameterSpec) => string | undefined;
  /** Changes base weights before training, or start values that depend on them. */
  readonly prepare?: (context: PrepareContext) => Promise<void>;
  /** Wraps a linear layer: `next` computes the layer beneath (base, or the adapter before this one). */
  readonly linear?: (context: AdaptContext, spec: LinearSpec, x: Node, next: (x: Node) => Node) => Node;
  /** What the first block reads, made of the embedding's rows [tokens, d], as stored. */
  readonly embedded?: (context: AdaptContext, rows: Node) => Node;
  /** Wraps what a part of a block adds to the hidden states: `next` computes it from the part's (normalised) input. */
  readonly part?: (context: AdaptContext, part: BlockPart, block: number, x: Node, next: (x: Node) => Node) => Node;
  /** Chains the blocks in another way: from what the first reads to what the last norm does. One method alone may. */
  readonly stack?: (context: AdaptContext, blocks: readonly Block[], x: Node) => Node;
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
  /** The update rule of a trained tensor, made from the run's own; undefined = it keeps that one. */
  readonly update?: (tensor: TrainedTensor, optimizer: Optimizer, variant: string) => Optimizer | undefined;
  /** Blocks that take turns in training what `select` and `linear` let train; absent = all train in every step. */
  readonly turns?: Turns;
  /** Kinds of steps that need programs of their own, such as one that renews projectors. */
  readonly steps?: StepKinds;
  /** Numbers that depend on the step alone (from 0), computed in f64 on the host: pure, so that a run can be resumed. */
  readonly scalars?: (step: number) => Readonly<Record<string, number>>;
  /** A term of the trained tensors that is added to the loss, f32 []: it trains, and is reported apart from the loss. */
  readonly regularise?: (context: RegulariseContext) => Node;
  /** What comes after the updates of a step: statistics of all gradients, and changes that follow from them. */
  readonly collect?: (context: CollectContext) => Collected;
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
  /** Declares an f32 tensor that persists from step to step, zeros at first, and returns what it held before this one. */
  readonly state: (name: string, shape: Shape) => Node;
  /** One of the method's `scalars`, f32 []. */
  readonly scalar: (name: string) => Node;
}

/** What follows from the updates of a step. */
export interface Collected {
  /** What trained tensors become instead of `after`, by name; for tensors in f32, which have no master beside them. */
  readonly values: ReadonlyMap<string, Node>;
  /** New values of the declared states, by name; one that is left out stays as it is. */
  readonly states: ReadonlyMap<string, Node>;
}

/** Which program a step runs: `variants` beside the ordinary one, "", and which of them all step number `step` is. */
export interface StepKinds {
  readonly variants: readonly string[];
  /** Pure in the number of the step (from 0), so that a resumed run goes on alike. */
  variant(step: number): string;
}

/**
 * Which blocks train in a step, where they take turns. Optimizer states are those of the turns, not of the blocks, so
 * that their memory does not grow; a block that comes starts with new ones and its own count of steps.
 */
export interface Turns {
  /** Blocks that train at a time. */
  readonly count: number;
  /** The blocks of step `step` (from 0), one a turn, and the step since which each has had it. Pure in its arguments. */
  at(step: number, seed: number): readonly Turn[];
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
  /** Refuses other methods of the selection, all of which are given, where claims cannot say why. */
  readonly check?: (methods: readonly ResolvedMethod[]) => void;
  /** How the result is saved: an adapter of the new tensors, or the changed base tensors; absent = it changes neither. */
  readonly saves?: "adapter" | "weights";
  /** Every trainable tensor that `linear` declares, in order of the model's layers. */
  readonly adapters: readonly AdapterTensor[];
  /** The trained tensors as PEFT reads them over the original checkpoint. */
  readonly peft?: (tensors: HostTensors, context: ExportContext) => Promise<PeftForm>;
  /**
   * The weight of one linear layer with the trained tensors folded in, from the weight that training ran on, as
   * stored; undefined where the method leaves the layer alone. Fails on values that are not finite.
   */
  readonly merge?: (spec: LinearSpec, weight: Float32Array, tensors: HostTensors) => Float32Array | undefined;
  readonly config: unknown;
}

/** A method as its folder declares it; everything else (flags, docs, checks) is derived from this value. */
export interface Method<Schema extends z.ZodObject = z.ZodObject> {
  readonly id: string;
  readonly title: string;
  /** arXiv number or address of the paper. */
  readonly paper: string;
  readonly year: number;
  readonly summary: string;
  /** The slots that the method can fill, for the table of methods. */
  readonly fills: readonly (keyof MethodSlots | "export")[];
  /** Methods that are added, with their defaults, where nothing else of the selection trains. */
  readonly companions?: readonly string[];
  /** Settings with defaults, ranges and a description each; unknown keys are refused. */
  readonly config: Schema;
  /** Settings that follow from the run where they are not given. */
  readonly defaultsFor?: (run: { readonly steps: number }) => Readonly<Record<string, unknown>>;
  /** Checks the config against the model and returns what to do; errors name the offending key. */
  resolve(config: z.infer<Schema>, model: ModelDefinition): ResolvedMethod;
}
