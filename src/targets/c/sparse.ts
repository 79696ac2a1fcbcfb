import type { SparseSize } from "../../ops/sparse.js";
import type { KernelSource } from "./contraction-types.js";

type Storage = "f32" | "bf16";

export interface SparseDotArguments<Word> {
  readonly x: Word;
  readonly places: Word;
  readonly values: Word;
  readonly output: Word;
  readonly workspace: Word;
  readonly tokens: Word;
  readonly rows: Word;
  readonly columns: Word;
  readonly count: Word;
}

/** Words of a product with a sparse matrix, in order. */
export function sparseDotWords<Word>(args: SparseDotArguments<Word>): Word[] {
  const { x, places, values, output, workspace, tokens, rows, columns, count } = args;
  return [x, places, values, output, workspace, tokens, rows, columns, count];
}

/** Tokens of a tile of the product, and of one of single elements. */
const productTile = 32;
const sampleTile = 64;

/** Where each entry reads and writes; each thread has a tile of both sides, token by token within a row of the matrix. */
export function sparseDotWorkspace({ rows, columns }: SparseSize, count: number, threads: number): number {
  return 8 * count + 128 + threads * (rows + columns) * productTile * 4;
}

/** x [tokens, width] to a tile of `width` lines of tokens; what is past the last token is 0. */
function renderTurn(storage: Storage): string {
  const [type, load] = storage === "f32" ? ["float", "x[i]"] : ["uint16_t", "bf16_to_f32(x[i])"];
  return String.raw`
#ifndef SPARSE_TURN_${storage}
#define SPARSE_TURN_${storage}
static __attribute__((unused)) void sparse_turn_${storage}(const ${type}* from, float* tile, int64_t begin, int64_t end, int64_t width, int64_t tokens, int64_t lanes) {
  for (int64_t first = begin; first < end; first += 16) {
    const int64_t last = smaller(first + 16, end);
    for (int64_t t = 0; t < lanes; t++) {
      const ${type}* x = from + t * width;
      for (int64_t i = first; i < last; i++) tile[i * lanes + t] = t < tokens ? ${load} : 0;
    }
  }
}
#endif
`;
}

/**
 * Threads own tokens, which stand in lanes: an entry is one multiplication of a line of the turned operand, added to a
 * line of the turned result. Entries are added in their order, whatever the number of threads.
 */
export function renderSparseDot(storage: Storage, transpose: boolean): KernelSource {
  const name = `sparse_dot_${transpose ? "transposed_" : ""}${storage}`;
  const type = storage === "f32" ? "float" : "uint16_t";
  const source = String.raw`${renderTurn(storage)}
EXPORT void ${name}(const int64_t* a, Context* context) {
  const ${type}* x = (const ${type}*)a[0];
  const int32_t* places = (const int32_t*)a[1];
  const float* values = (const float*)a[2];
  float* output = (float*)a[3];
  const int64_t tokens = a[5], rows = a[6], columns = a[7], count = a[8];
  const int64_t from = ${transpose ? "rows" : "columns"}, to = ${transpose ? "columns" : "rows"};
  int32_t* sides = (int32_t*)((a[4] + 63) / 64 * 64);
  float* tiles = (float*)(((int64_t)(sides + 2 * count) + 63) / 64 * 64);
  float *source = tiles + context->thread * (rows + columns) * ${productTile}, *target = source + from * ${productTile};
  int64_t begin, end;
  share(count, 16, context->thread, context->threads, &begin, &end);
  for (int64_t p = begin; p < end; p++) {
    const uint32_t row = (uint32_t)places[p] / (uint32_t)columns, column = (uint32_t)places[p] % (uint32_t)columns;
    sides[2 * p] = (int32_t)${transpose ? "row" : "column"};
    sides[2 * p + 1] = (int32_t)${transpose ? "column" : "row"};
  }
  barrier(context);
  share(tokens, ${productTile}, context->thread, context->threads, &begin, &end);
  for (int64_t first = begin; first < end; first += ${productTile}) {
    const int64_t own = smaller(${productTile}, end - first);
    sparse_turn_${storage}(x + first * from, source, 0, from, from, own, ${productTile});
    __builtin_memset(target, 0, (size_t)to * ${productTile} * sizeof *target);
    for (int64_t p = 0; p < count; p++) {
      const float *s = source + (int64_t)sides[2 * p] * ${productTile};
      float* t = target + (int64_t)sides[2 * p + 1] * ${productTile};
      const vf value = splat_f(values[p]);
      store_f32(t, fma_f(value, load_f32(s), load_f32(t)));
      store_f32(t + 16, fma_f(value, load_f32(s + 16), load_f32(t + 16)));
    }
    for (int64_t t = 0; t < own; t++)
      for (int64_t i = 0; i < to; i++) output[(first + t) * to + i] = target[i * ${productTile} + t];
  }
}
`;
  return { name, source };
}

export interface SampledDotArguments<Word> {
  readonly a: Word;
  readonly b: Word;
  readonly places: Word;
  readonly output: Word;
  readonly workspace: Word;
  readonly tokens: Word;
  readonly rows: Word;
  readonly columns: Word;
  readonly count: Word;
}

/** Words of single elements of a product, in order. */
export function sampledDotWords<Word>(args: SampledDotArguments<Word>): Word[] {
  const { a, b, places, output, workspace, tokens, rows, columns, count } = args;
  return [a, b, places, output, workspace, tokens, rows, columns, count];
}

/** One tile of both sides, which all threads share. */
export function sampledDotWorkspace({ rows, columns }: SparseSize): number {
  return 64 + (rows + columns) * sampleTile * 4;
}

/**
 * Tiles of tokens one after the other: threads turn them together, then each adds to its own elements. A sum is made in
 * lanes within a tile, and of the tiles in their order, whatever the number of threads.
 */
export function renderSampledDot(left: Storage, right: Storage): KernelSource {
  const name = `sampled_dot_${left}_${right}`;
  const types = [left, right].map((storage) => (storage === "f32" ? "float" : "uint16_t"));
  const source = String.raw`${renderTurn(left)}${renderTurn(right)}
EXPORT void ${name}(const int64_t* words, Context* context) {
  const ${types[0]}* a = (const ${types[0]}*)words[0];
  const ${types[1]}* b = (const ${types[1]}*)words[1];
  const int32_t* places = (const int32_t*)words[2];
  float* output = (float*)words[3];
  const int64_t tokens = words[5], rows = words[6], columns = words[7], count = words[8];
  float *left = (float*)((words[4] + 63) / 64 * 64), *right = left + rows * ${sampleTile};
  int64_t begin, end, low, high, first_column, last_column;
  share(count, 16, context->thread, context->threads, &begin, &end);
  share(rows, 16, context->thread, context->threads, &low, &high);
  share(columns, 16, context->thread, context->threads, &first_column, &last_column);
  for (int64_t first = 0; first < tokens; first += ${sampleTile}) {
    const int64_t own = smaller(${sampleTile}, tokens - first);
    sparse_turn_${left}(a + first * rows, left, low, high, rows, own, ${sampleTile});
    sparse_turn_${right}(b + first * columns, right, first_column, last_column, columns, own, ${sampleTile});
    barrier(context);
    for (int64_t p = begin; p < end; p++) {
      const uint32_t row = (uint32_t)places[p] / (uint32_t)columns, column = (uint32_t)places[p] % (uint32_t)columns;
      const float *l = left + (int64_t)row * ${sampleTile}, *r = right + (int64_t)column * ${sampleTile};
      vf sum = load_f32(l) * load_f32(r);
      for (int lane = 16; lane < ${sampleTile}; lane += 16) sum = fma_f(load_f32(l + lane), load_f32(r + lane), sum);
      output[p] = (first == 0 ? 0 : output[p]) + sum_lanes(sum);
    }
    barrier(context);
  }
}
`;
  return { name, source };
}
