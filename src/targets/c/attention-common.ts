import { blockSize, paddedHead, type AttentionSpec } from "./attention.js";

/**
 * What the attention kernels share, as C. The unit of work is a block of 64 queries against a block of 64 keys. All
 * products run through one register tile, `core`: R rows by NV vectors of lanes, whose operand "a" is broadcast
 * element by element and whose operand "b" is a panel of lanes.
 *
 * A "word" is what one multiply-accumulate consumes: an f32, or (PAIRS) two bf16 that a dot instruction multiplies
 * and adds at once. Rows of words lie in buffers of stride WORDS.
 *
 * Every sum runs over its terms in the order of keys or queries, block after block, whoever computes it: neither the
 * number of threads nor the tile's shape changes a bit of the result.
 */
export function attentionCommon(name: string, spec: AttentionSpec): string {
  const n = name;
  const type = spec.storage;
  return String.raw`
enum { ${n}_D = ${spec.headSize}, ${n}_DP = ${paddedHead(spec)}, ${n}_B = ${blockSize} };
/* Registers: 32 of 16 lanes hold 8 x 2 sums besides operands, 16 of 8 lanes 4 x 1. */
#ifdef HAS_AVX512
enum { ${n}_R = 8, ${n}_NV = 2 };
#else
enum { ${n}_R = 4, ${n}_NV = 1 };
#endif
enum { ${n}_PANEL = 16 * ${n}_NV, ${n}_PANELS = ${n}_B / ${n}_PANEL, ${n}_TILES = ${n}_B / ${n}_R };
enum { ${n}_ROUND = ${spec.compute === "bf16" ? 1 : 0} };
/* Intel's cores run vdpbf16ps at half the rate of two FMAs or less; there, operands are rounded and multiplied as f32. */
#if !defined(THIMBLE_BF16_DOT) && (defined(__cooperlake__) || defined(__sapphirerapids__) || defined(__graniterapids__))
#define THIMBLE_BF16_DOT 0
#elif !defined(THIMBLE_BF16_DOT)
#define THIMBLE_BF16_DOT 1
#endif
#if defined(HAS_BF16_DOT) && THIMBLE_BF16_DOT
enum { ${n}_PAIRS = ${n}_ROUND };
#else
enum { ${n}_PAIRS = 0 };
#endif
/* Words of a row's elements, and of a row in a buffer. */
enum { ${n}_DW = ${n}_PAIRS ? (${n}_D + 1) / 2 : ${n}_D, ${n}_WORDS = (${n}_DW + 15) / 16 * 16 };

INLINE vf ${n}_load(const void* tensor, int64_t at, int count) {
  const char* p = (const char*)tensor + at * ${type === "f32" ? 4 : 2};
  return count >= 16 ? load_${type}(p) : load_${type}_n(p, count > 0 ? count : 0);
}
INLINE void ${n}_store(void* tensor, int64_t at, vf value, int count) {
  char* p = (char*)tensor + at * ${type === "f32" ? 4 : 2};
  if (count >= 16) store_${type}(p, value);
  else if (count > 0) store_${type}_n(p, value, count);
}
INLINE vf ${n}_mac(vf a, vf b, vf sum, int pairs) {
#ifdef HAS_BF16_DOT
  if (pairs) return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#endif
  (void)pairs;
  return fma_f(a, b, sum);
}
/* Two rows as one row of pairs, the first in the low halves. */
INLINE vf ${n}_pair(vf low, vf high) { return (vf)(thimble_round_bf16(low) >> 16 | thimble_round_bf16(high)); }
INLINE vf ${n}_operand(vf value) { return ${n}_ROUND ? round_bf16(value) : value; }

/* exp for softmax weights, to which less than exp(-75) adds nothing: tiny results would cost Intel's cores a trap each. */
INLINE vf ${n}_exp(vf x) {
  return select_f(x < splat_f(-75.0f), splat_f(0.0f), exp_f(max_f(splat_f(-75.0f), x)));
}

/*
 * 2^x for softmax weights, 0 below 2^-108, within a unit in the last place: x = n + r with |r| <= 1/2 is exact, and a
 * minimax polynomial gives 2^r. With scores times log2(e), it saves a third of what exp takes.
 */
INLINE vf ${n}_exp2(vf x) {
  const vf least = splat_f(-108.0f), clamped = max_f(least, x), n = round_even_f(clamped), r = clamped - n;
  vf p = splat_f(1.535336196e-4f);
  p = fma_f(p, r, splat_f(1.339887502e-3f));
  p = fma_f(p, r, splat_f(9.618436918e-3f));
  p = fma_f(p, r, splat_f(5.550332367e-2f));
  p = fma_f(p, r, splat_f(2.402264774e-1f));
  p = fma_f(p, r, splat_f(6.931471825e-1f));
  p = fma_f(p, r, splat_f(1.0f));
#ifdef HAS_AVX512
  return (vf)_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask((__m512)x, (__m512)least, _CMP_NLT_UQ), (__m512)p, (__m512)n);
#else
  return select_f(x < least, splat_f(0.0f), p * (vf)((convert_f_to_i(n) + 127) << 23));
#endif
}

/* sums[r][v] = sum over k of a[r * rows + k * steps] * b[k * width + 16 v]. */
INLINE void ${n}_core(vf (*sums)[${n}_NV], int nv, int pairs, const float* a, int64_t rows, int64_t steps, const float* b, int64_t width, int64_t count) {
  for (int r = 0; r < ${n}_R; r++)
    for (int v = 0; v < nv; v++) sums[r][v] = splat_f(0.0f);
  for (int64_t k = 0; k < count; k++) {
    vf lanes[${n}_NV];
    for (int v = 0; v < nv; v++) lanes[v] = load_f32(b + k * width + 16 * v);
    for (int r = 0; r < ${n}_R; r++) {
      const vf element = splat_f(a[r * rows + k * steps]);
      for (int v = 0; v < nv; v++) sums[r][v] = ${n}_mac(element, lanes[v], sums[r][v], pairs);
    }
  }
}

#ifdef HAS_AVX512
INLINE void ${n}_transpose_16(const float* source, int64_t from, float* target, int64_t to) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(source + i * from);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; j++) {
      __m512d low = _mm512_castps_pd(b[i + j]), high = _mm512_castps_pd(b[i + j + 2]);
      a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  for (int i = 0; i < 4; i++) {
    b[i] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88);
    b[i + 4] = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
    b[i + 8] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88);
    b[i + 12] = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; i++) {
    _mm512_storeu_ps(target + i * to, _mm512_shuffle_f32x4(b[i], b[i + 8], 0x88));
    _mm512_storeu_ps(target + (i + 8) * to, _mm512_shuffle_f32x4(b[i], b[i + 8], 0xdd));
  }
}
#else
INLINE void ${n}_transpose_16(const float* source, int64_t from, float* target, int64_t to) {
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 16; j++) target[j * to + i] = source[i * from + j];
}
#endif

/* A block of rows as words, one row after another; rows past "rows" are zero. */
static void ${n}_rows(float* target, const void* source, int64_t at, int64_t stride, int rows) {
  for (int r = 0; r < ${n}_B; r++)
    for (int d = 0; d < ${n}_WORDS * (${n}_PAIRS ? 2 : 1); d += 16) {
      const vf value = r < rows ? ${n}_load(source, at + r * stride + d, ${n}_D - d) : splat_f(0.0f);
      if (${n}_PAIRS) store_bf16((uint16_t*)(target + r * ${n}_WORDS) + d, value);
      else store_f32(target + r * ${n}_WORDS + d, ${n}_operand(value));
    }
}
/* A block of rows as the panel of a product that sums over rows: pairs of rows where words are pairs. Stride DP. */
static void ${n}_summed_rows(float* target, const void* source, int64_t at, int64_t stride, int rows) {
  for (int r = 0; r < ${n}_B; r += 2)
    for (int d = 0; d < ${n}_DP; d += 16) {
      const vf low = r < rows ? ${n}_load(source, at + r * stride + d, ${n}_D - d) : splat_f(0.0f);
      const vf high = r + 1 < rows ? ${n}_load(source, at + (r + 1) * stride + d, ${n}_D - d) : splat_f(0.0f);
      if (${n}_PAIRS) {
        store_f32(target + r / 2 * ${n}_DP + d, ${n}_pair(low, high));
      } else {
        store_f32(target + r * ${n}_DP + d, ${n}_operand(low));
        store_f32(target + (r + 1) * ${n}_DP + d, ${n}_operand(high));
      }
    }
}
/* A block of rows of words as panels of lanes: target[panel][word][lane]. */
static void ${n}_panels(float* target, const float* rows) {
  for (int lane = 0; lane < ${n}_B; lane += 16)
    for (int w = 0; w < ${n}_WORDS; w += 16)
      ${n}_transpose_16(
        rows + lane * ${n}_WORDS + w, ${n}_WORDS,
        target + (lane / ${n}_PANEL * ${n}_WORDS + w) * ${n}_PANEL + lane % ${n}_PANEL, ${n}_PANEL);
}

typedef struct {
  const char *q, *k, *v;
  char* out;
  float* lse;
  const int32_t* segments;
  char* workspace;
  int64_t batch, queries, keys, heads, key_heads, group, window, offset, length;
  /* By which products of queries and keys are multiplied, and the same times log2(e). */
  float scale, scale2;
} ${n}_call;

INLINE ${n}_call ${n}_arguments(const int64_t* w) {
  ${n}_call c = {
    .q = (const char*)w[0], .k = (const char*)w[1], .v = (const char*)w[2], .out = (char*)w[3], .lse = (float*)w[4],
    .segments = (const int32_t*)w[5], .workspace = (char*)w[7], .batch = w[8], .queries = w[9], .keys = w[10],
    .heads = w[11], .key_heads = w[12], .group = w[11] / w[12], .window = w[13], .length = w[10],
  };
  const uint32_t bits = (uint32_t)w[14];
  __builtin_memcpy(&c.scale, &bits, 4);
  c.scale2 = (float)((double)c.scale * 1.4426950408889634);
  if (w[6]) {
    c.offset = *(const int32_t*)w[6];
    c.length = larger(0, smaller(c.keys, c.offset + c.queries));
  }
  return c;
}

/* The keys that a position may see by order, window and length: first..last, none if first > last. */
INLINE int64_t ${n}_last(const ${n}_call* c, int64_t position) { return ${spec.causal ? "smaller(position, c->length - 1)" : "(void)position, c->length - 1"}; }
INLINE int64_t ${n}_first(const ${n}_call* c, int64_t position) { return c->window > 0 ? larger(0, position - c->window + 1) : 0; }

/*
 * For a block of queries: key j is visible to query i if (uint32_t)(j - lower[i]) <= span[i] and its segment is
 * segment[i]. Queries past the end see what the last one sees. low..high are the segments that occur.
 */
typedef struct {
  int32_t lower[${n}_B], span[${n}_B], segment[${n}_B], low, high;
  int64_t start;
  int rows;
} ${n}_bounds;

static void ${n}_bound(const ${n}_call* c, int64_t batch, int64_t start, ${n}_bounds* bounds) {
  bounds->start = start;
  bounds->rows = (int)smaller(${n}_B, c->queries - start);
  bounds->low = INT32_MAX;
  bounds->high = INT32_MIN;
  for (int i = 0; i < ${n}_B; i++) {
    const int64_t position = start + (i < bounds->rows ? i : bounds->rows - 1) + c->offset;
    int64_t first = ${n}_first(c, position), last = ${n}_last(c, position);
    int32_t segment = 0;
${
  spec.segments
    ? `    segment = position >= 0 && position < c->keys ? c->segments[batch * c->keys + position] : -2;
    if (segment == -1) first = larger(first, position), last = smaller(last, position);`
    : "    (void)batch;"
}
    bounds->lower[i] = first <= last ? (int32_t)first : INT32_MAX;
    bounds->span[i] = first <= last ? (int32_t)(last - first) : 0;
    bounds->segment[i] = segment;
    bounds->low = (int32_t)smaller(bounds->low, segment);
    bounds->high = (int32_t)larger(bounds->high, segment);
  }
}

/* How a group of queries from..to (within a block) meets keys first..last: not at all, in part, or wholly. */
enum { ${n}_NONE, ${n}_PART, ${n}_ALL };
INLINE int ${n}_meets(const ${n}_call* c, const ${n}_bounds* bounds, int from, int to, int64_t first, int64_t last) {
  const int64_t lead = bounds->start + c->offset + smaller(from, bounds->rows - 1);
  const int64_t tail = bounds->start + c->offset + smaller(to, bounds->rows - 1);
  if (${n}_first(c, lead) > last || ${n}_last(c, tail) < first) return ${n}_NONE;
  return ${n}_first(c, tail) <= first && ${n}_last(c, lead) >= last ? ${n}_ALL : ${n}_PART;
}
/* The same for the segments of a block of queries and of keys at..at + count. */
INLINE int ${n}_segments_meet(const ${n}_call* c, const ${n}_bounds* bounds, int64_t batch, int64_t at, int count) {
${
  spec.segments
    ? `  int32_t low = INT32_MAX, high = INT32_MIN;
  for (int j = 0; j < count; j++) {
    const int32_t segment = c->segments[batch * c->keys + at + j];
    low = segment < low ? segment : low;
    high = segment > high ? segment : high;
  }
  if (low > bounds->high || high < bounds->low) return ${n}_NONE;
  return low == high && low == bounds->low && low == bounds->high && low >= 0 ? ${n}_ALL : ${n}_PART;`
    : `  (void)c, (void)bounds, (void)batch, (void)at, (void)count;
  return ${n}_ALL;`
}
}

/* Tasks are dealt out one by one, so that no thread waits while there is work; thread 0 must have reset the counter. */
INLINE int64_t ${n}_next(const ${n}_call* c) { return __atomic_fetch_add((int64_t*)c->workspace, 1, __ATOMIC_RELAXED); }
INLINE void ${n}_open(const ${n}_call* c, Context* context) {
  if (context->thread == 0) __atomic_store_n((int64_t*)c->workspace, 0, __ATOMIC_RELAXED);
  barrier(context);
}
`;
}
