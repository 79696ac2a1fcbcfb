import type { KernelSource } from "./contraction-types.js";

export interface ScatterSpec {
  readonly dtype: "f32" | "bf16";
  /** `add` sums updates into rows, `maximum` raises rows to them (f32 only); `write` replaces rows. */
  readonly mode: "add" | "write" | "maximum";
}

export interface ScatterArguments<Word> {
  readonly output: Word;
  readonly base: Word;
  readonly ids: Word;
  readonly updates: Word;
  readonly rows: Word;
  readonly width: Word;
  readonly count: Word;
}

/** Words of a scatter kernel, in order. */
export function scatterWords<Word>(args: ScatterArguments<Word>): Word[] {
  const { output, base, ids, updates, rows, width, count } = args;
  return [output, base, ids, updates, rows, width, count];
}

/**
 * output = base with updates [count, width] added to (or written over, or raising) the rows that `ids` name. Threads own columns,
 * so rows are visited in the order of the ids whatever their number. In place where output and base are the same.
 */
export function renderScatter({ dtype, mode }: ScatterSpec): KernelSource {
  const type = dtype === "f32" ? "float" : "uint16_t";
  const name = `scatter_${mode}_${dtype}`;
  const body = {
    add: "for (int64_t c = first; c < last; c++) target[c] += source[c];",
    maximum: "for (int64_t c = first; c < last; c++) target[c] = source[c] > target[c] ? source[c] : target[c];",
    write: "memcpy(target + first, source + first, (size_t)(last - first) * sizeof *target);",
  }[mode];
  const source = `
void ${name}(const int64_t* a, Context* context) {
  ${type}* output = (${type}*)a[0];
  const ${type}* base = (const ${type}*)a[1];
  const int32_t* ids = (const int32_t*)a[2];
  const ${type}* updates = (const ${type}*)a[3];
  const int64_t rows = a[4], width = a[5], count = a[6];
  if (output != base) {
    const int64_t from = rows * context->thread / context->threads, to = rows * (context->thread + 1) / context->threads;
    memcpy(output + from * width, base + from * width, (size_t)((to - from) * width) * sizeof *output);
    barrier(context);
  }
  const int64_t lines = (width + 31) / 32;
  const int64_t first = 32 * (lines * context->thread / context->threads);
  const int64_t end = 32 * (lines * (context->thread + 1) / context->threads), last = end < width ? end : width;
  if (first >= last) return;
  for (int64_t i = 0; i < count; i++) {
    const int64_t id = ids[i];
    ${type}* target = output + (id >= 0 && id < rows ? id : 0) * width;
    const ${type}* source = updates + i * width;
    ${body}
  }
}
`;
  return { name, source };
}
