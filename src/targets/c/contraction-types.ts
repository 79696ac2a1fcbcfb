/** How a float operand lies in memory when it is not packed. */
export type ContractionDType = "f32" | "bf16" | "f16";

/**
 * A packed storage format along the rows of an operand. `source` defines
 * `static inline void NAME(const uint8_t* block, float* out)`, which decodes the `elements` consecutive values of the
 * `bytes` bytes at `block`. Equal names must mean equal sources.
 */
export interface Decoder {
  readonly elements: number;
  readonly bytes: number;
  readonly source: string;
  readonly name: string;
  /**
   * Set where a tensor has parts beside its blocks. `source` then defines, for any stretch of a tensor's elements,
   * `NAME_fill(const char* base, int64_t element, int64_t count, float* out)` and, with `halves`, where
   * HAS_BF16_DOT is defined, `NAME_halves` with the same arguments, which gives bf16 bits. Rows may end within blocks.
   */
  readonly planes?: { readonly halves: boolean };
  /** Set where values are computed from several inputs: so many last arguments of the kernel, at whose address `base` is. */
  readonly words?: number;
}

/**
 * One factor. Untransposed, `a` is stored [M, K] and `b` [K, N]; transposed, `a` is stored [K, M] and `b` [N, K];
 * rows are contiguous. With a decoder, `dtype` is ignored, and strides and stored row lengths are multiples of the
 * decoder's `elements` (unless it has planes).
 */
export interface Operand {
  readonly dtype: ContractionDType;
  readonly transposed: boolean;
  readonly decoder?: Decoder;
}

export interface Segment {
  readonly a: Operand;
  readonly b: Operand;
}

/**
 * What happens to 16 (or fewer, `n`) neighbouring finished sums. `source` defines
 * `static inline void NAME(vf sums, int64_t batch, int64_t row, int64_t column, int n, const int64_t* words)`, which
 * must store them; `words` are the last `words` arguments of the kernel. Equal names must mean equal sources.
 */
export interface Epilogue {
  readonly name: string;
  readonly source: string;
  readonly words: number;
}

/**
 * C[M, N] = the sum over segments of A[M, K] B[K, N], each with its own K, then the epilogue.
 *
 * `compute: "bf16"` rounds both operands to bf16 (nearest, ties to even) and multiplies them into f32 sums. Each sum
 * is one chain of fused multiply-adds in the order of segments and k (with the bf16 dot instruction: of pairs of k,
 * the odd one first), except for at most 8 rows against transposed `b`, where 16 such chains are added as a tree. So a
 * result depends on shapes, never on threads or blocking.
 */
export interface ContractionSpec {
  readonly segments: readonly Segment[];
  readonly compute: "f32" | "bf16";
  readonly epilogue: Epilogue;
}

/** Sizes that decide the workspace. `depths` are the K of the segments. */
export interface ContractionSizes {
  readonly rows: number;
  readonly columns: number;
  readonly depths: readonly number[];
  /** How many products of these sizes one call computes; 1 when left out. */
  readonly batch?: number;
}

/** One operand's address and strides, the latter in elements. `batchStride` 0 shares it between the batch's products. */
export interface OperandArguments<Word> {
  readonly address: Word;
  readonly rowStride: Word;
  readonly batchStride: Word;
}

export interface ContractionArguments<Word> {
  readonly rows: Word;
  readonly columns: Word;
  readonly batch: Word;
  readonly workspace: Word;
  readonly segments: readonly {
    readonly a: OperandArguments<Word>;
    readonly b: OperandArguments<Word>;
    readonly depth: Word;
  }[];
  readonly epilogue: readonly Word[];
  /** Words of the operands whose decoders take some, segment by segment, `a` before `b`; their addresses are ignored. */
  readonly computed?: readonly Word[];
}

/** A generated kernel: an exported C function of the ABI in the prelude, and its source (which needs the prelude). */
export interface KernelSource {
  readonly name: string;
  readonly source: string;
}
