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
export type LinearRole = "query" | "key" | "value" | "output" | "gate" | "up" | "down" | "query-key-value" | "head";

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
}

/** One block as it is chained: both parts take and give the hidden states [tokens, d], as stored, residual included. */
export interface Block {
  readonly index: number;
  attention(x: Node): Node;
  mlp(x: Node): Node;
}

export type BlockPart = "attention" | "mlp";

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
  /** Attention of one block: q [B, T, H, D], k and v [B, T, KH, D] -> [B, T, H, D]. Decoding programs add a cache. */
  attention(
    block: number,
    q: Node,
    k: Node,
    v: Node,
    options: { readonly window: number; readonly scale: number },
  ): Node;
  /** The rows [tokens, d] that the first block reads, as stored: those of the embedding, or what methods make of them. */
  embedded(rows: Node): Node;
  /** What a part of a block adds to the hidden states, f32 [tokens, d], from its input: `body`, or more than that. */
  part(part: BlockPart, block: number, x: Node, body: (x: Node) => Node): Node;
  /** The hidden states after all blocks, from those before the first: each block after the other, unless a method says. */
  stack(blocks: readonly Block[], x: Node): Node;
}

export interface ForwardInputs {
  /** Token ids, i32 [B*T]. */
  readonly ids: Node;
  /** Position of each token within its own record, i32 [B*T]. */
  readonly positions: Node;
}

/** What the loss and generation need of a forward pass. */
export interface ForwardResult {
  /** After the last norm, in the activation type, [B*T, d]. */
  readonly hidden: Node;
  /** Output layer's weight [V, d]: the embedding where they are tied. */
  readonly head: Node;
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
  /** Every tensor of the checkpoint that is read, once (tied ones once), in the order of use. */
  readonly parameters: readonly ParameterSpec[];
  readonly linears: readonly LinearSpec[];
  forward(context: ForwardContext, inputs: ForwardInputs): ForwardResult;
}
