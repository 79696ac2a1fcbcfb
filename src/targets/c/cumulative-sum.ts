import type { KernelSource } from "./contraction-types.js";

export interface CumulativeSumArguments<Word> {
  readonly x: Word;
  readonly sums: Word;
  readonly rows: Word;
  readonly length: Word;
}

/** Words of a cumulative sum, in order. */
export function cumulativeSumWords<Word>({ x, sums, rows, length }: CumulativeSumArguments<Word>): Word[] {
  return [x, sums, rows, length];
}

/** Rows are shared out among threads; each is one chain of additions in f64. In place where both are the same. */
export function renderCumulativeSum(): KernelSource {
  const name = "cumulative_sum";
  const source = `
EXPORT void ${name}(const int64_t* a, Context* context) {
  const int64_t rows = a[2], n = a[3];
  for (int64_t row = context->thread; row < rows; row += context->threads) {
    const float* x = (const float*)a[0] + row * n;
    float* sums = (float*)a[1] + row * n;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
      sum += (double)x[i];
      sums[i] = (float)sum;
    }
  }
}
`;
  return { name, source };
}
