import type { TopKOptions } from "../../ops/top-k.js";
import type { KernelSource } from "./contraction-types.js";

export interface TopKArguments<Word> {
  readonly x: Word;
  readonly values: Word;
  readonly places: Word;
  readonly workspace: Word;
  readonly rows: Word;
  readonly length: Word;
  readonly count: Word;
}

/** Words of a top-k kernel, in order. */
export function topKWords<Word>(args: TopKArguments<Word>): Word[] {
  const { x, values, places, workspace, rows, length, count } = args;
  return [x, values, places, workspace, rows, length, count];
}

const bins = 2048;

/** Each thread sorts the winners of its own rows: 8 bytes each, twice. */
export function topKWorkspace(count: number, threads: number): number {
  return threads * 16 * count + 64;
}

/**
 * Keys are f32 bits made to sort as unsigned numbers, smaller = better. Three counting passes over the row find the
 * key of the last winner, without a copy of the row; a fourth takes what is better and, of equals, the first ones.
 * The winners are then sorted by (key, place) with a radix sort, unless places are wanted in order, as they are found.
 */
export function renderTopK({ by, order }: Pick<TopKOptions, "by" | "order">): KernelSource {
  const name = `top_k_${by}_${order}`;
  const ordered = {
    // Of the usual map (flip all bits of negatives, the sign of the others) the complement sorts the largest first.
    largest: "bits & 0x80000000u ? bits : bits ^ 0x7fffffffu",
    smallest: "bits & 0x80000000u ? ~bits : bits | 0x80000000u",
    magnitude: "0x7fffffffu - (bits & 0x7fffffffu)",
  }[by];
  const source = String.raw`
INLINE uint32_t ${name}_key(const uint32_t* x, int64_t i) {
  uint32_t bits = x[i];
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0xffffffffu;
  if (bits == 0x80000000u) bits = 0;
  return ${ordered};
}
/* The highest bits of the keys that are equal to "prefix" above "shift" + 11 decide which bin the count falls into. */
static uint32_t ${name}_digit(const uint32_t* x, int64_t n, uint32_t prefix, uint32_t mask, int shift, uint32_t top, int64_t* wanted) {
  int64_t counts[${bins}] = {0}, left = *wanted;
  for (int64_t i = 0; i < n; i++) {
    uint32_t key = ${name}_key(x, i);
    if ((key & mask) == prefix) counts[(key >> shift) & top]++;
  }
  uint32_t digit = 0;
  while (digit < top && counts[digit] < left) left -= counts[digit++];
  *wanted = left;
  return digit;
}
static __attribute__((unused)) void ${name}_sort(uint64_t* items, uint64_t* other, int64_t count) {
  for (int pass = 0; pass < 4; pass++) {
    int64_t starts[257] = {0};
    int shift = 32 + 8 * pass;
    for (int64_t i = 0; i < count; i++) starts[1 + ((items[i] >> shift) & 255)]++;
    for (int i = 0; i < 256; i++) starts[i + 1] += starts[i];
    for (int64_t i = 0; i < count; i++) other[starts[(items[i] >> shift) & 255]++] = items[i];
    uint64_t* swap = items; items = other; other = swap;
  }
}
EXPORT void ${name}(const int64_t* a, Context* context) {
  const int64_t rows = a[4], n = a[5], count = a[6];
  uint64_t* items = (uint64_t*)((a[3] + 63) / 64 * 64) + 2 * count * context->thread;
  for (int64_t row = context->thread; row < rows; row += context->threads) {
    const uint32_t* x = (const uint32_t*)a[0] + row * n;
    int64_t equals = count;
    uint32_t last = ${name}_digit(x, n, 0, 0, 21, 2047, &equals) << 21;
    last |= ${name}_digit(x, n, last, 0xffe00000u, 10, 2047, &equals) << 10;
    last |= ${name}_digit(x, n, last, 0xfffffc00u, 0, 1023, &equals);
    int64_t found = 0;
    for (int64_t i = 0; i < n && found < count; i++) {
      uint32_t key = ${name}_key(x, i);
      if (key < last || (key == last && equals-- > 0)) items[found++] = (uint64_t)key << 32 | (uint32_t)i;
    }
    ${order === "rank" ? `${name}_sort(items, items + count, count);` : ""}
    uint32_t* values = (uint32_t*)a[1] + row * count;
    int32_t* places = (int32_t*)a[2] + row * count;
    for (int64_t i = 0; i < count; i++) {
      places[i] = (int32_t)(uint32_t)items[i];
      values[i] = x[places[i]];
    }
  }
}
`;
  return { name, source };
}
