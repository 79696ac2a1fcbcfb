/**
 * What a machine may choose about contractions: the words of a block of B, at most those that the plan counts on. It
 * decides how often A is read and how much of the cache a block takes. Sums and workspace do not depend on it.
 */
import { storeEpilogue } from "./contraction-epilogue.js";
import { blockWords } from "./contraction-plan.js";
import type { ContractionSpec, KernelSource } from "./contraction-types.js";
import { contractionArguments, contractionWorkspace, renderContraction } from "./contraction.js";

export interface ContractionTuning {
  readonly block: number;
}

/** The default first, then what suits smaller second-level caches. */
export const blockCandidates: readonly number[] = [blockWords, 147_456, 98_304, 49_152];

export const defaultTuning: ContractionTuning = { block: blockWords };

/** C to state before the prelude of kernels that follow a tuning; empty for the default. */
export function tuningSource({ block }: ContractionTuning): string {
  return block === blockWords ? "" : `#define THIMBLE_BLOCK ${block}\n`;
}

const spec: ContractionSpec = {
  segments: [{ a: { dtype: "f32", transposed: false }, b: { dtype: "f32", transposed: true } }],
  compute: "f32",
  epilogue: storeEpilogue("f32"),
};
const depth = 576;
const sizes = { rows: 512, columns: 1536, depths: [depth] };

/** A product as large as those of a small model, and its memory: A, B, C and workspace one after another. */
export const tuningTrial = {
  operandBytes: 4 * (sizes.rows * depth + sizes.columns * depth),
  bytes:
    4 * (sizes.rows * depth + sizes.columns * depth + sizes.rows * sizes.columns) +
    contractionWorkspace(spec, sizes, 1),
  /** Arguments of {@link tuningKernel} for memory at `base` and the address of its result. */
  words(block: number, result: bigint, base: bigint): (bigint | number)[] {
    const b = base + BigInt(4 * sizes.rows * depth);
    const c = b + BigInt(4 * sizes.columns * depth);
    const operand = (address: bigint): { address: bigint; rowStride: number; batchStride: number } => ({
      address,
      rowStride: depth,
      batchStride: 0,
    });
    const words = contractionArguments<bigint | number>({
      rows: sizes.rows,
      columns: sizes.columns,
      batch: 1,
      workspace: c + BigInt(4 * sizes.rows * sizes.columns),
      segments: [{ a: operand(base), b: operand(b), depth }],
      epilogue: [c, sizes.columns, 0],
    });
    return [block, result, ...words];
  },
};

/**
 * A contraction whose first argument is the block, and which leaves the nanoseconds of its thread's CPU at the address
 * of the second: other programs then disturb the choice little. For one thread on a POSIX system; it needs the prelude.
 */
export function tuningKernel(): KernelSource {
  const { name, source } = renderContraction(spec);
  return {
    name: "thimble_tune",
    source: String.raw`#include <time.h>
static int64_t thimble_tuned_block;
#define THIMBLE_BLOCK thimble_tuned_block
${source}
EXPORT void thimble_tune(const int64_t* w, Context* context) {
  struct timespec start, end;
  thimble_tuned_block = w[0];
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
  ${name}(w + 2, context);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
  *(int64_t*)w[1] = (end.tv_sec - start.tv_sec) * 1000000000 + (end.tv_nsec - start.tv_nsec);
}
`,
  };
}

/** The best candidate by the least seconds of each; the default unless another is at least a twentieth faster. */
export function chooseTuning(seconds: readonly number[]): ContractionTuning {
  const standard = seconds[0] ?? 0;
  let best = 0;
  seconds.forEach((time, index) => {
    if (time < standard * 0.95 && time < (seconds[best] ?? standard)) best = index;
  });
  return { block: blockCandidates[best] ?? blockWords };
}

/** A tuning that was written down, or undefined where the text is none. */
export function parseTuning(text: string): ContractionTuning | undefined {
  const block = blockCandidates.find((candidate) => text === `block ${candidate}`);
  return block === undefined ? undefined : { block };
}

export function tuningText({ block }: ContractionTuning): string {
  return `block ${block}`;
}
