import type { KernelSource } from "./contraction-types.js";

/** A table of numbers by key, open addressing over a power of two of slots; the first of equal keys stays. */
const table = String.raw`
#ifndef INDEX_TABLE
#define INDEX_TABLE
INLINE int64_t index_slots(int64_t count) {
  int64_t slots = 16;
  while (slots < 2 * count) slots *= 2;
  return slots;
}
INLINE int64_t index_find(const int32_t* table, int64_t slots, const int32_t* keys, int32_t key) {
  uint32_t at = (uint32_t)key * 0x9e3779b1u;
  for (at ^= at >> 15;; at++) {
    const int32_t found = table[at & (slots - 1)];
    if (found < 0 || keys[found] == key) return at & (slots - 1);
  }
}
static __attribute__((unused)) void index_fill(int32_t* table, int64_t slots, const int32_t* keys, int64_t count) {
  for (int64_t i = 0; i < slots; i++) table[i] = -1;
  for (int64_t i = 0; i < count; i++) {
    const int64_t at = index_find(table, slots, keys, keys[i]);
    if (table[at] < 0) table[at] = (int32_t)i;
  }
}
#endif
`;

function tableBytes(count: number): number {
  let slots = 16;
  while (slots < 2 * count) slots *= 2;
  return 4 * slots;
}

export interface MatchArguments<Word> {
  readonly keys: Word;
  readonly queries: Word;
  readonly output: Word;
  readonly workspace: Word;
  readonly keyCount: Word;
  readonly queryCount: Word;
}

/** Words of a match of two sets, in order. */
export function matchWords<Word>(args: MatchArguments<Word>): Word[] {
  const { keys, queries, output, workspace, keyCount, queryCount } = args;
  return [keys, queries, output, workspace, keyCount, queryCount];
}

export function matchWorkspace(keyCount: number): number {
  return tableBytes(keyCount) + 64;
}

/** One thread fills the table, all of them read it. */
export function renderMatch(): KernelSource {
  const name = "match_places";
  const source = String.raw`${table}
EXPORT void ${name}(const int64_t* a, Context* context) {
  const int32_t *keys = (const int32_t*)a[0], *queries = (const int32_t*)a[1];
  int32_t *output = (int32_t*)a[2], *table = (int32_t*)((a[3] + 63) / 64 * 64);
  const int64_t count = a[4], slots = index_slots(count);
  if (context->thread == 0) index_fill(table, slots, keys, count);
  barrier(context);
  int64_t begin, end;
  share(a[5], 16, context->thread, context->threads, &begin, &end);
  for (int64_t i = begin; i < end; i++) output[i] = table[index_find(table, slots, keys, queries[i])];
}
`;
  return { name, source };
}

export interface ExchangeArguments<Word> {
  readonly leaving: Word;
  readonly arriving: Word;
  readonly slots: Word;
  readonly limit: Word;
  readonly output: Word;
  readonly workspace: Word;
  readonly slotCount: Word;
  readonly candidateCount: Word;
}

/** Words of an exchange, in order. */
export function exchangeWords<Word>(args: ExchangeArguments<Word>): Word[] {
  const { leaving, arriving, slots, limit, output, workspace, slotCount, candidateCount } = args;
  return [leaving, arriving, slots, limit, output, workspace, slotCount, candidateCount];
}

/** The candidates that come. */
export function exchangeWorkspace(slotCount: number): number {
  return 4 * slotCount + 64;
}

/** Marks of the output while it is made: -1 stays, -2 leaves. A few passes over lines, by one thread. */
export function renderExchange(): KernelSource {
  const name = "exchange_slots";
  const source = String.raw`
EXPORT void ${name}(const int64_t* a, Context* context) {
  if (context->thread != 0) return;
  const int32_t *leaving = (const int32_t*)a[0], *arriving = (const int32_t*)a[1], *slots = (const int32_t*)a[2];
  const int64_t count = a[6], candidates = a[7], wanted = *(const int32_t*)a[3];
  int32_t *output = (int32_t*)a[4], *fresh = (int32_t*)((a[5] + 63) / 64 * 64);
  const int64_t limit = wanted < 0 ? 0 : smaller(wanted, count);
  for (int64_t i = 0; i < count; i++) output[i] = -1;
  for (int64_t i = 0; i < limit; i++) output[leaving[i]] = -2;
  int64_t taken = 0, news = 0, next = 0;
  for (int64_t i = 0; i < candidates && taken < limit; i++) {
    const int32_t candidate = arriving[i];
    if (candidate < 0) continue;
    const int32_t slot = slots[candidate];
    if (slot >= 0 && output[slot] != -2) continue;
    if (slot >= 0) output[slot] = -1;
    else fresh[news++] = candidate;
    taken++;
  }
  for (int64_t i = 0; i < limit; i++) {
    const int32_t slot = leaving[i];
    if (output[slot] == -2) output[slot] = next < news ? fresh[next++] : -1;
  }
}
`;
  return { name, source };
}

export interface TopOuterArguments<Word> {
  readonly rows: Word;
  readonly columns: Word;
  readonly taken: Word;
  readonly limit: Word;
  readonly output: Word;
  readonly workspace: Word;
  readonly rowCount: Word;
  readonly columnCount: Word;
  readonly takenCount: Word;
  readonly count: Word;
}

/** Words of a search of an outer product, in order. */
export function topOuterWords<Word>(args: TopOuterArguments<Word>): Word[] {
  const { rows, columns, taken, limit, output, workspace, rowCount, columnCount, takenCount, count } = args;
  return [rows, columns, taken, limit, output, workspace, rowCount, columnCount, takenCount, count];
}

/** Both sides in order and the other half of their sort, the heap of rows, how far each row is, and the set. */
export function topOuterWorkspace(rows: number, columns: number, takenCount: number): number {
  return 16 * (rows + columns) + 8 * rows + tableBytes(takenCount) + 256;
}

/**
 * Rows and columns sorted, best first (a merge sort keeps equal factors in their order). Of each row only its best
 * product that was not yet looked at lies in a heap of rows, so the outer product is never there. By one thread.
 */
export function renderTopOuter(): KernelSource {
  const name = "top_outer";
  const source = String.raw`${table}
typedef struct { float factor; int32_t number; } outer_side;
/* NaN is the least. */
INLINE int outer_above(float a, float b) { return a > b || (b != b && a == a); }
static __attribute__((unused)) outer_side* outer_sort(const float* values, outer_side* items, outer_side* other, int64_t n) {
  for (int64_t i = 0; i < n; i++) items[i] = (outer_side){values[i], (int32_t)i};
  for (int64_t width = 1; width < n; width *= 2) {
    for (int64_t low = 0; low < n; low += 2 * width) {
      const int64_t middle = smaller(low + width, n), high = smaller(low + 2 * width, n);
      int64_t i = low, j = middle;
      for (int64_t k = low; k < high; k++)
        other[k] = j >= high || (i < middle && !outer_above(items[j].factor, items[i].factor)) ? items[i++] : items[j++];
    }
    outer_side* swap = items; items = other; other = swap;
  }
  return items;
}
INLINE float outer_product(const outer_side* rows, const outer_side* columns, const int32_t* next, int32_t row) {
  return rows[row].factor * columns[next[row]].factor;
}
EXPORT void ${name}(const int64_t* a, Context* context) {
  if (context->thread != 0) return;
  const int32_t* taken = (const int32_t*)a[2];
  int32_t* output = (int32_t*)a[4];
  const int64_t m = a[6], n = a[7], set = a[8], count = a[9], wanted = *(const int32_t*)a[3];
  const int64_t limit = wanted < 0 ? 0 : smaller(wanted, count), slots = index_slots(set);
  outer_side* space = (outer_side*)((a[5] + 63) / 64 * 64);
  const outer_side* rows = outer_sort((const float*)a[0], space, space + m, m);
  const outer_side* columns = outer_sort((const float*)a[1], space + 2 * m, space + 2 * m + n, n);
  int32_t *heap = (int32_t*)(space + 2 * (m + n)), *next = heap + m, *table = next + m;
  index_fill(table, slots, taken, set);
  for (int64_t i = 0; i < count; i++) output[i] = -1;
  /* Rows enter in order, so the heap is one from the start: products fall with the rank of the row. */
  int64_t size = 0, found = 0;
  for (int32_t row = 0; row < m; row++) {
    next[row] = 0;
    if (outer_product(rows, columns, next, row) > 0) heap[size++] = row;
  }
  while (size > 0 && found < limit) {
    const int32_t row = heap[0];
    const int32_t place = (int32_t)(rows[row].number * n + columns[next[row]].number);
    if (table[index_find(table, slots, taken, place)] < 0) output[found++] = place;
    next[row]++;
    int32_t sinking = row;
    if (next[row] >= n || !(outer_product(rows, columns, next, row) > 0)) sinking = heap[--size];
    if (size == 0) break;
    const float product = outer_product(rows, columns, next, sinking);
    int64_t at = 0;
    for (;;) {
      int64_t child = 2 * at + 1;
      if (child >= size) break;
      float best = outer_product(rows, columns, next, heap[child]);
      if (child + 1 < size) {
        const float other = outer_product(rows, columns, next, heap[child + 1]);
        if (other > best || (other == best && heap[child + 1] < heap[child])) { child++; best = other; }
      }
      if (product > best || (product == best && sinking < heap[child])) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = sinking;
  }
}
`;
  return { name, source };
}
