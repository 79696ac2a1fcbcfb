import { invariant } from "../../errors.js";

/** What an attention kernel is generated for. All sizes but the head's are arguments of the kernel. */
export interface AttentionSpec {
  /** Elements of a head, 1 to 256. Multiples of 16 are fastest, then multiples of 8. */
  readonly headSize: number;
  /** Element type of q, k, v, out and their gradients in memory. */
  readonly storage: "f32" | "bf16";
  /** Operands of the products: as they are, or rounded to bf16. Sums, softmax and `lse` are always f32. */
  readonly compute: "f32" | "bf16";
  /** A query sees no key after its own position. */
  readonly causal: boolean;
  /** Queries see only keys of their own segment; see {@link AttentionArguments.segments}. */
  readonly segments: boolean;
}

/** Sizes that the workspace depends on. */
export interface AttentionSizes {
  readonly batch: number;
  readonly heads: number;
  /** Divides `heads`. */
  readonly keyHeads: number;
  readonly queries: number;
  readonly keys: number;
}

/** A word of a kernel's argument list: an absolute address, a size, or the bits of an f32. */
type Word = bigint | number;

/** What both kernels take. Tensors are row-major and contiguous. */
export interface AttentionArguments extends AttentionSizes {
  /** [batch, queries, heads, headSize] */
  readonly query: Word;
  /** [batch, keys, keyHeads, headSize] */
  readonly key: Word;
  /** [batch, keys, keyHeads, headSize] */
  readonly value: Word;
  /** [batch, queries, heads, headSize]; written by forward, read by backward. */
  readonly output: Word;
  /** f32 [batch, heads, queries]: the logarithm of each row's sum of exponentials, -Infinity where no key is visible. */
  readonly logSumExp: Word;
  /**
   * i32 [batch, keys], by position: tokens see each other within a segment. Segment -1 is padding, which sees itself
   * alone. 0 where the spec has no segments.
   */
  readonly segments: Word;
  /**
   * i32 scalar in memory: query i stands at position i + offset, and only the first offset + queries keys exist
   * (decoding into a cache of `keys` rows). 0: queries start at position 0 and all keys exist.
   */
  readonly offset: Word;
  /** Scratch memory, 64-byte aligned, of the size that {@link attentionWorkspace} or its backward kin gives. */
  readonly workspace: Word;
  /** Key j is visible to query i only if i - j < window, by position; 0 is no limit. */
  readonly window: number;
  /** The bits of the f32 by which products of queries and keys are multiplied. */
  readonly scaleBits: number;
}

export interface AttentionBackwardArguments extends AttentionArguments {
  /** Gradient of the output, shaped as it. */
  readonly outputGradient: Word;
  readonly queryGradient: Word;
  readonly keyGradient: Word;
  readonly valueGradient: Word;
}

/** The argument words of the forward kernel, in its order. */
export function attentionWords(a: AttentionArguments): Word[] {
  const tensors = [a.query, a.key, a.value, a.output, a.logSumExp, a.segments, a.offset, a.workspace];
  return [...tensors, a.batch, a.queries, a.keys, a.heads, a.keyHeads, a.window, a.scaleBits];
}

/** The argument words of the backward kernel, in its order. */
export function attentionBackwardWords(a: AttentionBackwardArguments): Word[] {
  return [...attentionWords(a), a.outputGradient, a.queryGradient, a.keyGradient, a.valueGradient];
}

/** Rows and columns of the tiles that kernels work on: so many queries meet so many keys at a time. */
export const blockSize = 64;

/** Up to so many queries take the path for decoding, which works key by key. */
export const fewQueries = 4;

/** Keys that one task of the decoding path takes; more are split and combined. */
export const fewKeys = 512;

/** The head's elements rounded up to whole vectors. */
export function paddedHead(spec: AttentionSpec): number {
  return Math.ceil(spec.headSize / 16) * 16;
}

/** A C identifier that tells all of the spec. */
export function attentionName(direction: "forward" | "backward", spec: AttentionSpec): string {
  const { headSize, storage, compute, causal, segments } = spec;
  invariant(Number.isInteger(headSize) && headSize >= 1 && headSize <= 256, "attention heads have 1 to 256 elements");
  const flags = `${causal ? "_causal" : ""}${segments ? "_segments" : ""}`;
  return `attention_${direction}_${storage}_${compute}_${headSize}${flags}`;
}

/** Blocks of queries that one task of the forward kernel takes at most: they share what is loaded of keys and values. */
export const forwardSlots = 4;

/** Floats of scratch memory that one thread of the forward kernel uses. */
export function forwardScratch(spec: AttentionSpec): number {
  return blockSize * ((2 + 2 * forwardSlots) * paddedHead(spec) + 32);
}

/** Floats of scratch memory of the decoding path: a thread's own, and a row's partial result for one split. */
export function fewScratch(
  spec: AttentionSpec,
  sizes: AttentionSizes,
): { thread: number; row: number; splits: number } {
  const padded = paddedHead(spec);
  const rows = Math.ceil(((sizes.heads / sizes.keyHeads) * Math.min(sizes.queries, fewQueries)) / 8) * 8;
  return {
    thread: rows * (2 * padded + fewKeys) + blockSize * padded,
    row: padded + 16,
    splits: Math.ceil(sizes.keys / fewKeys),
  };
}

/** Bytes of workspace that the forward kernel needs on so many threads. */
export function attentionWorkspace(spec: AttentionSpec, sizes: AttentionSizes, threads: number): number {
  if (sizes.queries > fewQueries) return 64 + 4 * threads * forwardScratch(spec);
  const { thread, row, splits } = fewScratch(spec, sizes);
  return 64 + 4 * (threads * thread + sizes.batch * sizes.heads * sizes.queries * splits * row);
}

/** Floats of scratch memory that one thread of the backward kernel uses, its part of the query gradient included. */
export function backwardScratch(spec: AttentionSpec, sizes: AttentionSizes): number {
  const padded = paddedHead(spec);
  const rows = Math.ceil(sizes.queries / blockSize) * blockSize * (sizes.heads / sizes.keyHeads);
  return blockSize * (11 * padded + 2 * blockSize) + (writesQueryGradient(spec) ? 0 : rows * padded);
}

/** Whether blocks of the query gradient are summed up in the gradient itself: it is f32 and made of whole vectors. */
export function writesQueryGradient(spec: AttentionSpec): boolean {
  return spec.storage === "f32" && spec.headSize % 16 === 0;
}

/** Bytes of workspace that the backward kernel needs on so many threads. */
export function attentionBackwardWorkspace(spec: AttentionSpec, sizes: AttentionSizes, threads: number): number {
  const rows = Math.ceil((sizes.batch * sizes.heads * sizes.queries) / 16) * 16;
  const shared = (sizes.batch * sizes.keyHeads) % threads;
  const turns = Math.ceil((threads + 1 + shared * Math.ceil(sizes.queries / blockSize)) / 16) * 16;
  return 64 + 4 * (rows + turns + threads * backwardScratch(spec, sizes));
}
