import type { ContractionDType, Decoder } from "./contraction-types.js";

/**
 * A linear layer x[N, d] W[V, d]^T with the cross-entropy of its logits against labels, without ever holding the
 * logits of more than a block of vocabulary rows.
 *
 * nll[i] = weight[i] * (logsumexp(logits[i]) - logits[i, label[i]]);
 * dx[i] = weight[i] * (softmax(logits[i]) - onehot(label[i])) W;
 * dW = the sum over i of weight[i] * (softmax(logits[i]) - onehot(label[i]))^T x[i].
 *
 * Rows of weight 0, or with a label outside 0..V-1, are ignored: they cost nothing, their nll and dx are 0.
 */
export interface CrossEntropySpec {
  readonly x: ContractionDType;
  /** Storage of W, rows of d. With a decoder `dtype` is ignored. */
  readonly weight: { readonly dtype: ContractionDType; readonly decoder?: Decoder };
  readonly compute: "f32" | "bf16";
  /** Type of dx, when it is wanted. */
  readonly inputGradient?: "f32" | "bf16";
  /** Whether each row's normalizer and miss are written, from which the kernel of dW makes the logits' errors again. */
  readonly normalizers?: boolean;
}

/** The kernel of dW, which computes the logits a second time. */
export type WeightGradientSpec = Pick<CrossEntropySpec, "x" | "weight" | "compute">;

export interface CrossEntropySizes {
  /** N, the rows of x. */
  readonly rows: number;
  /** d, the length of a row. */
  readonly depth: number;
  /** V, the rows of W. */
  readonly vocabulary: number;
}

/** What both kernels read. Strides are in elements. */
interface Operands<Word> {
  readonly rows: Word;
  readonly depth: Word;
  readonly vocabulary: Word;
  readonly workspace: Word;
  readonly x: { readonly address: Word; readonly rowStride: Word };
  readonly weight: { readonly address: Word; readonly rowStride: Word };
  /** i32[N]. */
  readonly labels: Word;
  /** f32[N]. */
  readonly rowWeights: Word;
}

/** Arguments of the kernel of loss and dx; what is not wanted is passed as zero. */
export interface CrossEntropyArguments<Word> extends Operands<Word> {
  /** f32[N], written. */
  readonly nll: Word;
  readonly inputGradient: { readonly address: Word; readonly rowStride: Word };
  /** f32[N], written: log of the sum of the exponentials of the logits; 0 where a row is ignored. */
  readonly normalizer: Word;
  /** f32[N], written: 1 - softmax at the label; 0 where a row is ignored. */
  readonly miss: Word;
}

/** Arguments of the kernel of dW. */
export interface WeightGradientArguments<Word> extends Operands<Word> {
  /** f32[N] each, as the kernel of the loss wrote them. */
  readonly normalizer: Word;
  readonly miss: Word;
  /** f32[V, d], written. */
  readonly weightGradient: { readonly address: Word; readonly rowStride: Word };
}
