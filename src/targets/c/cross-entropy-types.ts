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
  /** Whether dW (f32) is wanted: the logits are then computed a second time. */
  readonly weightGradient?: boolean;
}

export interface CrossEntropySizes {
  /** N, the rows of x. */
  readonly rows: number;
  /** d, the length of a row. */
  readonly depth: number;
  /** V, the rows of W. */
  readonly vocabulary: number;
}

/** Arguments of the kernel. Strides are in elements; absent gradients are passed as zeros. */
export interface CrossEntropyArguments<Word> {
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
  /** f32[N], written. */
  readonly nll: Word;
  readonly inputGradient: { readonly address: Word; readonly rowStride: Word };
  readonly weightGradient: { readonly address: Word; readonly rowStride: Word };
}
