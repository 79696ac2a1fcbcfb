import { tallRows, tileRows } from "./contraction-micro.js";
import { isDirect } from "./contraction-operand.js";
import { layoutOf } from "./contraction-pack.js";
import type { ContractionSizes, ContractionSpec } from "./contraction-types.js";

/** Blocking limits, in elements of K, panel words and strip words. They and the sizes decide the blocking. */
const longestDepth = 2304;
/** The same where rows of `a` are converted again for each block of columns: shorter, so that blocks are wider. */
const convertedDepth = 1152;
/** Up to so many columns one block holds them all, and nothing is converted again. */
const fewColumns = 128;
/** Most words of a block of B; a machine may prefer fewer (THIMBLE_BLOCK), which changes no sum and no workspace. */
export const blockWords = 229_376;
const stripWords = 2_097_152;
const partialRows = 1020;
/** Calls of at most this many rows, with both sides [x, K], are dot products. */
export const fewRows = 8;
/** Calls with at most this many rows (or columns) whose other side is [K, x] need no packing of that side. */
export const thinRows = 24;
const leastWide = 64;
/** Depth and columns that the thin path takes at a time. */
export const thinDepth = 64;
export const thinWide = 512;
/** Batches of at least this many products a thread are shared out whole. */
export const wholeProducts = 2;
/** Words between strips beyond their own, so that they do not fall into one cache set. */
const stripGap = 16;

/** The blocking, as C; {@link contractionWorkspace} mirrors it. All areas are in words of 4 bytes. */
export const planSource = String.raw`
#ifndef THIMBLE_BLOCK
#define THIMBLE_BLOCK ${blockWords}
#endif
typedef enum { thimble_path_blocks, thimble_path_few, thimble_path_thin_rows, thimble_path_thin_columns } thimble_path;
typedef struct {
  thimble_path path;
  int64_t chunks, chunk, columns, rows, packed, block, strip, partial, private, team, height;
  /* The pieces in which a segment's k are taken, and the chunk of the first; each later piece has the next chunk. */
  int64_t length[THIMBLE_SEGMENTS], start[THIMBLE_SEGMENTS];
} thimble_plan;

/* Segments are cut into pieces of limited length, and neighbouring pieces share a chunk where they fit in it. */
static void thimble_cut_depth(const thimble_contraction* t, const int64_t* w, thimble_plan* p) {
  int64_t used = 0, limit = w[1] <= ${fewColumns} ? ${longestDepth} : t->depth;
  p->chunks = 1;
  p->chunk = 2;
  for (int s = 0; s < t->segments; s++) {
    int64_t K = w[4 + 7 * s + 6], parts = (K + limit - 1) / limit;
    p->start[s] = p->chunks - 1;
    p->length[s] = parts <= 1 ? K : ((K + parts - 1) / parts + 255) / 256 * 256;
    for (int64_t k = 0; k < K; k += p->length[s]) {
      int64_t piece = (smaller(p->length[s], K - k) + 1) / 2 * 2;
      if (k > 0 || (used > 0 && used + piece > limit)) {
        p->chunks++;
        used = 0;
      }
      if (k == 0) p->start[s] = p->chunks - 1;
      used += piece;
      p->chunk = larger(p->chunk, used);
    }
  }
}

static __attribute__((noinline)) thimble_plan thimble_make_plan(const thimble_contraction* t, const int64_t* w, int64_t threads) {
  thimble_plan p = {0};
  int64_t M = w[0], N = w[1], skinny = 0, packed = 0, strips = (M + ${tileRows - 1}) / ${tileRows};
  int along = 1, wide_rows = 1, wide_columns = 1;
  for (int s = 0; s < t->segments; s++) {
    int64_t K = w[4 + 7 * s + 6];
    skinny += (K + 15) / 16 * 16 + ${stripGap};
    if (t->a[s]->across) packed += ${tileRows} * ((K + 1) / 2 * 2) + ${stripGap};
    along &= !t->a[s]->across && !t->b[s]->across;
    wide_rows &= t->a[s]->across;
    wide_columns &= t->b[s]->across;
  }
  p.path = along && M <= ${fewRows} ? thimble_path_few
    : wide_columns && M <= ${thinRows} ? thimble_path_thin_rows
    : wide_rows && N <= ${thinRows} && M >= ${leastWide} ? thimble_path_thin_columns : thimble_path_blocks;
  if (p.path == thimble_path_few) p.private = ${fewRows} * skinny;
  else if (p.path != thimble_path_blocks) p.private = ${thinRows} * (skinny + ${thinWide}) + ${thinDepth} * 64;
  p.team = threads * p.private;
  if (p.path != thimble_path_blocks) return p;
  thimble_cut_depth(t, w, &p);
  p.columns = larger(64, smaller(512, THIMBLE_BLOCK / p.chunk / 64 * 64));
  p.columns = (p.columns + t->granule - 1) / t->granule * t->granule;
  p.rows = strips * ${tileRows};
  if (packed) p.rows = smaller(p.rows, larger(16, ${stripWords} / packed) * ${tileRows});
  if (p.chunks > 1) p.rows = smaller(p.rows, ${partialRows});
  p.packed = (packed * (p.rows / ${tileRows}) + 15) / 16 * 16;
  p.block = p.columns * p.chunk;
  p.height = N <= 16 && !packed && p.chunks == 1 ? TALL : ${tileRows};
  p.strip = ${tallRows} * ((p.chunk + 16 * t->segments + 15) / 16 * 16);
  p.partial = p.chunks > 1 ? p.rows * p.columns : 0;
  p.private = p.strip + p.partial;
  p.team = p.packed + threads * (p.block + p.private);
  return p;
}`;

function even(value: number): number {
  return Math.ceil(value / 2) * 2;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function roundUp(value: number, granule: number): number {
  return Math.ceil(value / granule) * granule;
}

/** Columns of a block are cut where packed blocks along rows of `b` [K, N] end. */
export function blockGranule(spec: ContractionSpec): number {
  const wide = spec.segments.some(({ b }) => b.decoder !== undefined && b.decoder.elements > 64 && !b.transposed);
  return wide ? 256 : 64;
}

/** The most k that are multiplied between visits to a sum. */
export function depthLimit({ segments, compute }: ContractionSpec): number {
  return segments.some(({ a }) => !a.transposed && !isDirect(a, compute)) ? convertedDepth : longestDepth;
}

function chunking(depths: readonly number[], limit: number): { chunks: number; chunk: number } {
  let [chunks, chunk, used] = [1, 2, 0];
  for (const depth of depths) {
    const parts = Math.ceil(depth / limit);
    const length = parts <= 1 ? depth : roundUp(Math.ceil(depth / parts), 256);
    for (let k = 0; k < depth; k += length) {
      const piece = even(Math.min(length, depth - k));
      if (k > 0 || (used > 0 && used + piece > limit)) {
        chunks += 1;
        used = 0;
      }
      used += piece;
      chunk = Math.max(chunk, used);
    }
  }
  return { chunks, chunk };
}

/** Words that each thread needs for the paths without blocks; undefined where blocks are used. */
function smallPathWords(spec: ContractionSpec, { rows, columns, depths }: ContractionSizes): number | undefined {
  const across = spec.segments.map(({ a, b }) => [layoutOf("a", a) === "across", layoutOf("b", b) === "across"]);
  const skinny = sum(depths.map((depth) => roundUp(depth, 16) + stripGap));
  if (rows <= fewRows && across.every(([a, b]) => a === false && b === false)) return fewRows * skinny;
  const thin = thinRows * (skinny + thinWide) + thinDepth * 64;
  if (rows <= thinRows && across.every(([, b]) => b)) return thin;
  return columns <= thinRows && rows >= leastWide && across.every(([a]) => a) ? thin : undefined;
}

function teamWords(spec: ContractionSpec, sizes: ContractionSizes, threads: number): number {
  const small = smallPathWords(spec, sizes);
  if (small !== undefined) return threads * small;
  const { chunks, chunk } = chunking(sizes.depths, sizes.columns <= fewColumns ? longestDepth : depthLimit(spec));
  const wanted = Math.max(64, Math.min(512, Math.floor(Math.floor(blockWords / chunk) / 64) * 64));
  const columns = roundUp(wanted, blockGranule(spec));
  const across = sizes.depths.filter((_, index) => spec.segments[index]?.a.transposed === true);
  const packed = sum(across.map((depth) => tileRows * even(depth) + stripGap));
  let rows = roundUp(sizes.rows, tileRows);
  if (packed > 0) rows = Math.min(rows, Math.max(16, Math.floor(stripWords / packed)) * tileRows);
  if (chunks > 1) rows = Math.min(rows, partialRows);
  const own = tallRows * roundUp(chunk + 16 * spec.segments.length, 16) + (chunks > 1 ? rows * columns : 0);
  return roundUp((packed * rows) / tileRows, 16) + threads * (columns * chunk + own);
}

/** Exact bytes of the workspace argument for one call; it needs no particular alignment beyond 4 bytes. */
export function contractionWorkspace(spec: ContractionSpec, sizes: ContractionSizes, threads: number): number {
  const whole = (sizes.batch ?? 1) >= wholeProducts * threads;
  const words = whole ? threads * teamWords(spec, sizes, 1) : teamWords(spec, sizes, threads);
  return words * 4 + 64;
}
