import type { DType } from "../ir/dtype.js";
import type { Graph, Node } from "../ir/node.js";
import type { Shape } from "../ir/shape.js";

/** How positions turn queries and keys. Angles are f32: position * 1/theta^(2i/width), scaled by the variant. */
export interface Rotary {
  readonly theta: number;
  /** How much of each head turns; less than the head's width for partial rotary. */
  readonly width: number;
  readonly scaling:
    | { readonly kind: "none" }
    | { readonly kind: "linear"; readonly factor: number }
    | {
        readonly kind: "llama3";
        readonly factor: number;
        readonly lowFrequencyFactor: number;
        readonly highFrequencyFactor: number;
        readonly originalContext: number;
      };
}

export type Activation = "silu" | "gelu-tanh" | "gelu";

/** What a linear layer does in its block: what methods select by, and the last part of PEFT's names. */
export type LinearRole =
  | "query"
  | "key"
  | "value"
  | "output"
  | "gate"
  | "up"
  | "down"
  | "query-key-value"
  /** Behind the blocks, on one row a record; the layers of these two roles belong to no block. */
  | "pooler"
  | "head";

export interface LinearSpec {
  /** Module path in the base checkpoint, as in `model.layers.0.self_attn.q_proj`. */
  readonly path: string;
  readonly role: LinearRole;
  readonly block: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly bias: boolean;
  /** The checkpoint stores the weight as [in, out] (GPT-2's Conv1D). */
  readonly transposed: boolean;
}

/** A tensor of the checkpoint that the model reads, by its Hugging Face name. */
export interface ParameterSpec {
  readonly name: string;
  readonly shape: Shape;
  /** Its linear layer, where it is the weight or bias of one. */
  readonly linear?: LinearSpec;
  readonly kind: "weight" | "bias" | "norm" | "embedding" | "position";
  readonly block?: number;
  /** How it is drawn from the run's seed where a checkpoint lacks it; absent = every checkpoint must have it. */
  readonly initial?: { readonly kind: "zeros" } | { readonly kind: "normal"; readonly deviation: number };
}

/** One block as it is chained: both parts take and give the hidden states [tokens, d], as stored, residual included. */
export interface Block {
  readonly index: number;
  attention(x: Node): Node;
  mlp(x: Node): Node;
}

export type BlockPart = "attention" | "mlp";

/** A value inside a block, by what reads or makes it. */
export type Place =
  /** What the first norm of a part reads, and what the MLP's activation function reads (`gate`; `up` without gate). */
  | { readonly role: "norm" | "gate" | "up" | "activated"; readonly block: number }
  /** Input, weight (as stored) and output of a linear layer. */
  | { readonly role: "input" | "weight" | "output"; readonly linear: LinearSpec };

/** A model's blocks with the norm behind them. */
export interface Tower {
  readonly blocks: readonly Block[];
  /** What the head reads of the hidden states after the last block, as stored: their norm, where the family has one. */
  norm(x: Node): Node;
}

/**
 * The blocks of a model and the norm behind them at a fraction of its widths, as a network beside it: as many heads,
 * each narrower; no embedding and no head.
 */
export interface NarrowModel {
  readonly width: number;
  /** Its tensors in the order of use, each with that of the model which it is a narrower form of. */
  readonly parameters: readonly { readonly own: ParameterSpec; readonly of: ParameterSpec }[];
  /** The tensors of a block that are not built are never asked for. */
  build(context: ForwardContext, inputs: ForwardInputs): Tower;
}

/**
 * What a family's forward pass is built with. Methods change how parameters and linear layers compute by wrapping
 * these functions; the family's file knows nothing of them.
 */
export interface ForwardContext {
  readonly graph: Graph;
  readonly batch: number;
  readonly length: number;
  /** Type in which activations are stored between kernels: f32 or bf16. */
  readonly activation: DType;
  /** The value of a checkpoint tensor: a leaf, or what a method makes of it. */
  parameter(spec: ParameterSpec): Node;
  /** y = x Wᵀ + b as f32 [tokens, out], with whatever methods add; x [tokens, in]. */
  linear(spec: LinearSpec, x: Node): Node;
  /**
   * Attention of one block: q [B, T, H, D], k and v [B, T, KH, D] -> [B, T, H, D]. Causal unless told otherwise. Decoding
   * programs add a cache, which is named by the block: its number, or a name where it is none of the model's own.
   */
  attention(
    block: number | string,
    q: Node,
    k: Node,
    v: Node,
    options: { readonly window: number; readonly scale: number; readonly causal?: boolean },
  ): Node;
  /** A value of a block as what follows computes with it: itself, or what methods make of it in training. */
  represent(place: Place, x: Node): Node;
  /** The rows [tokens, d] of the tokens, as stored, before learned positions are added: the embedding's, or methods'. */
  embedded(rows: Node): Node;
  /** What a part of a block adds to the hidden states, f32 [tokens, d], from its input: `body`, or more than that. */
  part(part: BlockPart, block: number, x: Node, body: (x: Node) => Node): Node;
  /** What the head reads, from the hidden states before the first block: each after the other, unless a method says. */
  stack(tower: Tower, x: Node): Node;
}

export interface ForwardInputs {
  /** Token ids, i32 [B*T]. */
  readonly ids: Node;
  /** Position of each token within its own record, i32 [B*T]. */
  readonly positions: Node;
  /** Which part of its record a token belongs to, i32 [B*T]; absent = the first. Encoders alone read it. */
  readonly types?: Node | undefined;
}

/** What the loss and generation need of a forward pass. */
export interface ForwardResult {
  /** After the last norm, in the activation type, [B*T, d]. */
  readonly hidden: Node;
  /** Output layer's weight [V, d]: the embedding where they are tied. */
  readonly head: Node;
  /** In models with a task: a number for each row and label, f32 [B, labels]; `hidden` is then [B, d]. */
  readonly logits?: Node;
}

/** What a model tells of a whole record, instead of its next token. */
export interface ModelTask {
  readonly kind: "classification" | "regression";
  /** Names of the classes by their numbers; a regression has one. */
  readonly labels: readonly string[];
  /** Names of the tensors that belong to the task: they train with every method, and are saved beside adapters. */
  readonly head: readonly string[];
}

/** A model of some family with everything its configuration says; no tensor data. */
export interface ModelDefinition {
  readonly family: string;
  readonly vocabularySize: number;
  readonly width: number;
  readonly blocks: number;
  readonly keyHeads: number;
  readonly headWidth: number;
  readonly contextLength: number;
  readonly tiedEmbeddings: boolean;
  /** What its blocks' MLPs apply; absent where they apply none of these. */
  readonly activation?: Activation;
  /** Every tensor of the checkpoint that is read, once (tied ones once), in the order of use. */
  readonly parameters: readonly ParameterSpec[];
  readonly linears: readonly LinearSpec[];
  /**
   * The model's blocks at 1/reduction of their widths, with tensors named `${prefix}...`. Refuses a reduction that does
   * not divide the widths.
   */
  readonly narrow?: (reduction: number, prefix: string) => NarrowModel;
  /** Absent = it predicts the next token. */
  readonly task?: ModelTask;
  /** How many parts of a record its embedding tells apart; absent = it does not. */
  readonly tokenTypes?: number;
  forward(context: ForwardContext, inputs: ForwardInputs): ForwardResult;
}
