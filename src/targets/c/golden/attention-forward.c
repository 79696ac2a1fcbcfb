enum { attention_forward_f32_f32_16_causal_D = 16, attention_forward_f32_f32_16_causal_DP = 16, attention_forward_f32_f32_16_causal_B = 64 };
/* Registers: 32 of 16 lanes hold 8 x 2 sums besides operands, 16 of 8 lanes 4 x 1. */
#ifdef HAS_AVX512
enum { attention_forward_f32_f32_16_causal_R = 8, attention_forward_f32_f32_16_causal_NV = 2 };
#else
enum { attention_forward_f32_f32_16_causal_R = 4, attention_forward_f32_f32_16_causal_NV = 1 };
#endif
enum { attention_forward_f32_f32_16_causal_PANEL = 16 * attention_forward_f32_f32_16_causal_NV, attention_forward_f32_f32_16_causal_PANELS = attention_forward_f32_f32_16_causal_B / attention_forward_f32_f32_16_causal_PANEL, attention_forward_f32_f32_16_causal_TILES = attention_forward_f32_f32_16_causal_B / attention_forward_f32_f32_16_causal_R };
enum { attention_forward_f32_f32_16_causal_ROUND = 0 };
/* Intel's cores run vdpbf16ps at half the rate of two FMAs or less; there, operands are rounded and multiplied as f32. */
#if !defined(THIMBLE_BF16_DOT) && (defined(__cooperlake__) || defined(__sapphirerapids__) || defined(__graniterapids__))
#define THIMBLE_BF16_DOT 0
#elif !defined(THIMBLE_BF16_DOT)
#define THIMBLE_BF16_DOT 1
#endif
#if defined(HAS_BF16_DOT) && THIMBLE_BF16_DOT
enum { attention_forward_f32_f32_16_causal_PAIRS = attention_forward_f32_f32_16_causal_ROUND };
#else
enum { attention_forward_f32_f32_16_causal_PAIRS = 0 };
#endif
/* Words of a row's elements, and of a row in a buffer. */
enum { attention_forward_f32_f32_16_causal_DW = attention_forward_f32_f32_16_causal_PAIRS ? (attention_forward_f32_f32_16_causal_D + 1) / 2 : attention_forward_f32_f32_16_causal_D, attention_forward_f32_f32_16_causal_WORDS = (attention_forward_f32_f32_16_causal_DW + 15) / 16 * 16 };

INLINE vf attention_forward_f32_f32_16_causal_load(const void* tensor, int64_t at, int count) {
  const char* p = (const char*)tensor + at * 4;
  return count >= 16 ? load_f32(p) : load_f32_n(p, count > 0 ? count : 0);
}
INLINE void attention_forward_f32_f32_16_causal_store(void* tensor, int64_t at, vf value, int count) {
  char* p = (char*)tensor + at * 4;
  if (count >= 16) store_f32(p, value);
  else if (count > 0) store_f32_n(p, value, count);
}
INLINE vf attention_forward_f32_f32_16_causal_mac(vf a, vf b, vf sum, int pairs) {
#ifdef HAS_BF16_DOT
  if (pairs) return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#endif
  (void)pairs;
  return fma_f(a, b, sum);
}
/* Two rows as one row of pairs, the first in the low halves. */
INLINE vf attention_forward_f32_f32_16_causal_pair(vf low, vf high) { return (vf)(thimble_round_bf16(low) >> 16 | thimble_round_bf16(high)); }
INLINE vf attention_forward_f32_f32_16_causal_operand(vf value) { return attention_forward_f32_f32_16_causal_ROUND ? round_bf16(value) : value; }

/* exp for softmax weights, to which less than exp(-75) adds nothing: tiny results would cost Intel's cores a trap each. */
INLINE vf attention_forward_f32_f32_16_causal_exp(vf x) {
  return select_f(x < splat_f(-75.0f), splat_f(0.0f), exp_f(max_f(splat_f(-75.0f), x)));
}

/*
 * 2^x for softmax weights, 0 below 2^-108, within a unit in the last place: x = n + r with |r| <= 1/2 is exact, and a
 * minimax polynomial gives 2^r. With scores times log2(e), it saves a third of what exp takes.
 */
INLINE vf attention_forward_f32_f32_16_causal_exp2(vf x) {
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
INLINE void attention_forward_f32_f32_16_causal_core(vf (*sums)[attention_forward_f32_f32_16_causal_NV], int nv, int pairs, const float* a, int64_t rows, int64_t steps, const float* b, int64_t width, int64_t count) {
  for (int r = 0; r < attention_forward_f32_f32_16_causal_R; r++)
    for (int v = 0; v < nv; v++) sums[r][v] = splat_f(0.0f);
  for (int64_t k = 0; k < count; k++) {
    vf lanes[attention_forward_f32_f32_16_causal_NV];
    for (int v = 0; v < nv; v++) lanes[v] = load_f32(b + k * width + 16 * v);
    for (int r = 0; r < attention_forward_f32_f32_16_causal_R; r++) {
      const vf element = splat_f(a[r * rows + k * steps]);
      for (int v = 0; v < nv; v++) sums[r][v] = attention_forward_f32_f32_16_causal_mac(element, lanes[v], sums[r][v], pairs);
    }
  }
}

#ifdef HAS_AVX512
INLINE void attention_forward_f32_f32_16_causal_transpose_16(const float* source, int64_t from, float* target, int64_t to) {
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
INLINE void attention_forward_f32_f32_16_causal_transpose_16(const float* source, int64_t from, float* target, int64_t to) {
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 16; j++) target[j * to + i] = source[i * from + j];
}
#endif

/* A block of rows as words, one row after another; rows past "rows" are zero. */
static void attention_forward_f32_f32_16_causal_rows(float* target, const void* source, int64_t at, int64_t stride, int rows) {
  for (int r = 0; r < attention_forward_f32_f32_16_causal_B; r++)
    for (int d = 0; d < attention_forward_f32_f32_16_causal_WORDS * (attention_forward_f32_f32_16_causal_PAIRS ? 2 : 1); d += 16) {
      const vf value = r < rows ? attention_forward_f32_f32_16_causal_load(source, at + r * stride + d, attention_forward_f32_f32_16_causal_D - d) : splat_f(0.0f);
      if (attention_forward_f32_f32_16_causal_PAIRS) store_bf16((uint16_t*)(target + r * attention_forward_f32_f32_16_causal_WORDS) + d, value);
      else store_f32(target + r * attention_forward_f32_f32_16_causal_WORDS + d, attention_forward_f32_f32_16_causal_operand(value));
    }
}
/* A block of rows as the panel of a product that sums over rows: pairs of rows where words are pairs. Stride DP. */
static void attention_forward_f32_f32_16_causal_summed_rows(float* target, const void* source, int64_t at, int64_t stride, int rows) {
  for (int r = 0; r < attention_forward_f32_f32_16_causal_B; r += 2)
    for (int d = 0; d < attention_forward_f32_f32_16_causal_DP; d += 16) {
      const vf low = r < rows ? attention_forward_f32_f32_16_causal_load(source, at + r * stride + d, attention_forward_f32_f32_16_causal_D - d) : splat_f(0.0f);
      const vf high = r + 1 < rows ? attention_forward_f32_f32_16_causal_load(source, at + (r + 1) * stride + d, attention_forward_f32_f32_16_causal_D - d) : splat_f(0.0f);
      if (attention_forward_f32_f32_16_causal_PAIRS) {
        store_f32(target + r / 2 * attention_forward_f32_f32_16_causal_DP + d, attention_forward_f32_f32_16_causal_pair(low, high));
      } else {
        store_f32(target + r * attention_forward_f32_f32_16_causal_DP + d, attention_forward_f32_f32_16_causal_operand(low));
        store_f32(target + (r + 1) * attention_forward_f32_f32_16_causal_DP + d, attention_forward_f32_f32_16_causal_operand(high));
      }
    }
}
/* A block of rows of words as panels of lanes: target[panel][word][lane]. */
static void attention_forward_f32_f32_16_causal_panels(float* target, const float* rows) {
  for (int lane = 0; lane < attention_forward_f32_f32_16_causal_B; lane += 16)
    for (int w = 0; w < attention_forward_f32_f32_16_causal_WORDS; w += 16)
      attention_forward_f32_f32_16_causal_transpose_16(
        rows + lane * attention_forward_f32_f32_16_causal_WORDS + w, attention_forward_f32_f32_16_causal_WORDS,
        target + (lane / attention_forward_f32_f32_16_causal_PANEL * attention_forward_f32_f32_16_causal_WORDS + w) * attention_forward_f32_f32_16_causal_PANEL + lane % attention_forward_f32_f32_16_causal_PANEL, attention_forward_f32_f32_16_causal_PANEL);
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
} attention_forward_f32_f32_16_causal_call;

INLINE attention_forward_f32_f32_16_causal_call attention_forward_f32_f32_16_causal_arguments(const int64_t* w) {
  attention_forward_f32_f32_16_causal_call c = {
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
INLINE int64_t attention_forward_f32_f32_16_causal_last(const attention_forward_f32_f32_16_causal_call* c, int64_t position) { return smaller(position, c->length - 1); }
INLINE int64_t attention_forward_f32_f32_16_causal_first(const attention_forward_f32_f32_16_causal_call* c, int64_t position) { return c->window > 0 ? larger(0, position - c->window + 1) : 0; }

/*
 * For a block of queries: key j is visible to query i if (uint32_t)(j - lower[i]) <= span[i] and its segment is
 * segment[i]. Queries past the end see what the last one sees. low..high are the segments that occur.
 */
typedef struct {
  int32_t lower[attention_forward_f32_f32_16_causal_B], span[attention_forward_f32_f32_16_causal_B], segment[attention_forward_f32_f32_16_causal_B], low, high;
  int64_t start;
  int rows;
} attention_forward_f32_f32_16_causal_bounds;

static void attention_forward_f32_f32_16_causal_bound(const attention_forward_f32_f32_16_causal_call* c, int64_t batch, int64_t start, attention_forward_f32_f32_16_causal_bounds* bounds) {
  bounds->start = start;
  bounds->rows = (int)smaller(attention_forward_f32_f32_16_causal_B, c->queries - start);
  bounds->low = INT32_MAX;
  bounds->high = INT32_MIN;
  for (int i = 0; i < attention_forward_f32_f32_16_causal_B; i++) {
    const int64_t position = start + (i < bounds->rows ? i : bounds->rows - 1) + c->offset;
    int64_t first = attention_forward_f32_f32_16_causal_first(c, position), last = attention_forward_f32_f32_16_causal_last(c, position);
    int32_t segment = 0;
    (void)batch;
    bounds->lower[i] = first <= last ? (int32_t)first : INT32_MAX;
    bounds->span[i] = first <= last ? (int32_t)(last - first) : 0;
    bounds->segment[i] = segment;
    bounds->low = (int32_t)smaller(bounds->low, segment);
    bounds->high = (int32_t)larger(bounds->high, segment);
  }
}

/* How a group of queries from..to (within a block) meets keys first..last: not at all, in part, or wholly. */
enum { attention_forward_f32_f32_16_causal_NONE, attention_forward_f32_f32_16_causal_PART, attention_forward_f32_f32_16_causal_ALL };
INLINE int attention_forward_f32_f32_16_causal_meets(const attention_forward_f32_f32_16_causal_call* c, const attention_forward_f32_f32_16_causal_bounds* bounds, int from, int to, int64_t first, int64_t last) {
  const int64_t lead = bounds->start + c->offset + smaller(from, bounds->rows - 1);
  const int64_t tail = bounds->start + c->offset + smaller(to, bounds->rows - 1);
  if (attention_forward_f32_f32_16_causal_first(c, lead) > last || attention_forward_f32_f32_16_causal_last(c, tail) < first) return attention_forward_f32_f32_16_causal_NONE;
  return attention_forward_f32_f32_16_causal_first(c, tail) <= first && attention_forward_f32_f32_16_causal_last(c, lead) >= last ? attention_forward_f32_f32_16_causal_ALL : attention_forward_f32_f32_16_causal_PART;
}
/* The same for the segments of a block of queries and of keys at..at + count. */
INLINE int attention_forward_f32_f32_16_causal_segments_meet(const attention_forward_f32_f32_16_causal_call* c, const attention_forward_f32_f32_16_causal_bounds* bounds, int64_t batch, int64_t at, int count) {
  (void)c, (void)bounds, (void)batch, (void)at, (void)count;
  return attention_forward_f32_f32_16_causal_ALL;
}

/* Tasks are dealt out one by one, so that no thread waits while there is work; thread 0 must have reset the counter. */
INLINE int64_t attention_forward_f32_f32_16_causal_next(const attention_forward_f32_f32_16_causal_call* c) { return __atomic_fetch_add((int64_t*)c->workspace, 1, __ATOMIC_RELAXED); }
INLINE void attention_forward_f32_f32_16_causal_open(const attention_forward_f32_f32_16_causal_call* c, Context* context) {
  if (context->thread == 0) __atomic_store_n((int64_t*)c->workspace, 0, __ATOMIC_RELAXED);
  barrier(context);
}

/* scores[r][lane] = log2(e) scale * key r . query lane, -infinity where not visible; most[] keeps each lane's maximum. */
INLINE void attention_forward_f32_f32_16_causal_scores(const float* keys, const float* queries, float* scores, vf* most, float scale, int masked,
                        const attention_forward_f32_f32_16_causal_bounds* bounds, int lane, int32_t key, const int32_t* segments) {
  vf sums[attention_forward_f32_f32_16_causal_R][attention_forward_f32_f32_16_causal_NV];
  (void)segments;
  attention_forward_f32_f32_16_causal_core(sums, attention_forward_f32_f32_16_causal_NV, attention_forward_f32_f32_16_causal_PAIRS, keys, attention_forward_f32_f32_16_causal_WORDS, 1, queries, attention_forward_f32_f32_16_causal_PANEL, attention_forward_f32_f32_16_causal_DW);
  for (int r = 0; r < attention_forward_f32_f32_16_causal_R; r++)
    for (int v = 0; v < attention_forward_f32_f32_16_causal_NV; v++) {
      vf score = sums[r][v] * splat_f(scale);
      if (masked) {
        const vi lower = load_i32(bounds->lower + lane + 16 * v);
        const vu span = load_u32(bounds->span + lane + 16 * v);
        score = select_f(((vu)(splat_i(key + r) - lower) <= span), score, splat_f(-__builtin_inff()));
      }
      most[v] = max_f(score, most[v]);
      store_f32(scores + r * attention_forward_f32_f32_16_causal_PANEL + 16 * v, score);
    }
}
static void attention_forward_f32_f32_16_causal_scores_all(const float* keys, const float* queries, float* scores, vf* most, float scale, int from, int to) {
  vf best[attention_forward_f32_f32_16_causal_NV];
  for (int v = 0; v < attention_forward_f32_f32_16_causal_NV; v++) best[v] = most[v];
  for (int r = from; r < to; r += attention_forward_f32_f32_16_causal_R)
    attention_forward_f32_f32_16_causal_scores(keys + r * attention_forward_f32_f32_16_causal_WORDS, queries, scores + r * attention_forward_f32_f32_16_causal_PANEL, best, scale, 0, 0, 0, 0, 0);
  for (int v = 0; v < attention_forward_f32_f32_16_causal_NV; v++) most[v] = best[v];
}
static void attention_forward_f32_f32_16_causal_scores_part(const float* keys, const float* queries, float* scores, vf* most, float scale, int from, int to,
                             const attention_forward_f32_f32_16_causal_bounds* bounds, int lane, int32_t key, const int32_t* segments) {
  vf best[attention_forward_f32_f32_16_causal_NV];
  for (int v = 0; v < attention_forward_f32_f32_16_causal_NV; v++) best[v] = most[v];
  for (int r = from; r < to; r += attention_forward_f32_f32_16_causal_R)
    attention_forward_f32_f32_16_causal_scores(keys + r * attention_forward_f32_f32_16_causal_WORDS, queries, scores + r * attention_forward_f32_f32_16_causal_PANEL, best, scale, 1, bounds, lane, key + r, segments + r);
  for (int v = 0; v < attention_forward_f32_f32_16_causal_NV; v++) most[v] = best[v];
}
/* 2^(score - most) of rows from..to in place, as words, and added to the lanes' totals. */
static void attention_forward_f32_f32_16_causal_exponentials(float* scores, const vf* most, vf* total, int from, int to) {
  for (int r = from; r < to; r += 2)
    for (int v = 0; v < attention_forward_f32_f32_16_causal_NV; v++) {
      const vf low = attention_forward_f32_f32_16_causal_exp2(load_f32(scores + r * attention_forward_f32_f32_16_causal_PANEL + 16 * v) - most[v]);
      const vf high = attention_forward_f32_f32_16_causal_exp2(load_f32(scores + (r + 1) * attention_forward_f32_f32_16_causal_PANEL + 16 * v) - most[v]);
      total[v] = total[v] + low + high;
      if (attention_forward_f32_f32_16_causal_PAIRS) {
        store_f32(scores + r / 2 * attention_forward_f32_f32_16_causal_PANEL + 16 * v, attention_forward_f32_f32_16_causal_pair(low, high));
      } else {
        store_f32(scores + r * attention_forward_f32_f32_16_causal_PANEL + 16 * v, attention_forward_f32_f32_16_causal_operand(low));
        store_f32(scores + (r + 1) * attention_forward_f32_f32_16_causal_PANEL + 16 * v, attention_forward_f32_f32_16_causal_operand(high));
      }
    }
}
/* out[d][lane] = out[d][lane] * fade + sum over keys of value[key][d] * weight[key][lane]. */
static void attention_forward_f32_f32_16_causal_weigh(float* out, const vf* fade, const float* values, const float* weights, int from, int to) {
  const int words = attention_forward_f32_f32_16_causal_PAIRS ? 2 : 1;
  for (int d = 0; d < attention_forward_f32_f32_16_causal_D; d += attention_forward_f32_f32_16_causal_R) {
    vf sums[attention_forward_f32_f32_16_causal_R][attention_forward_f32_f32_16_causal_NV];
    attention_forward_f32_f32_16_causal_core(sums, attention_forward_f32_f32_16_causal_NV, attention_forward_f32_f32_16_causal_PAIRS, values + from / words * attention_forward_f32_f32_16_causal_DP + d, 1, attention_forward_f32_f32_16_causal_DP, weights + from / words * attention_forward_f32_f32_16_causal_PANEL, attention_forward_f32_f32_16_causal_PANEL, (to - from) / words);
    for (int r = 0; r < attention_forward_f32_f32_16_causal_R; r++)
      for (int v = 0; v < attention_forward_f32_f32_16_causal_NV; v++) {
        float* at = out + (d + r) * attention_forward_f32_f32_16_causal_PANEL + 16 * v;
        store_f32(at, fma_f(load_f32(at), fade[v], sums[r][v]));
      }
  }
}
/* Divides by the totals, and writes rows of the output and their log-sum-exp. */
static void attention_forward_f32_f32_16_causal_finish(const attention_forward_f32_f32_16_causal_call* c, const attention_forward_f32_f32_16_causal_bounds* bounds, float* out, float* rows, const vf* most, const vf* total, int64_t batch, int64_t head, int lane) {
  const int count = (int)smaller(16, bounds->rows - lane), panel = lane / attention_forward_f32_f32_16_causal_PANEL, inner = lane % attention_forward_f32_f32_16_causal_PANEL;
  const vf zero = splat_f(0.0f);
  const vi none = *total == zero;
  const vf factor = select_f(none, zero, splat_f(1.0f) / *total);
  if (count <= 0) return;
  float* lse = c->lse + (batch * c->heads + head) * c->queries + bounds->start + lane;
  /* The maximum times ln 2, in two parts: the product is as exact as the sum. */
  const vf natural = fma_f(*most, splat_f(0.693145752f), fma_f(*most, splat_f(1.42860677e-6f), log_f(*total)));
  store_f32_n(lse, select_f(none, splat_f(-__builtin_inff()), natural), count);
  for (int d = 0; d < attention_forward_f32_f32_16_causal_DP; d += 16) {
    float* block = out + (panel * attention_forward_f32_f32_16_causal_DP + d) * attention_forward_f32_f32_16_causal_PANEL + inner;
    for (int i = 0; i < 16; i++) store_f32(block + i * attention_forward_f32_f32_16_causal_PANEL, load_f32(block + i * attention_forward_f32_f32_16_causal_PANEL) * factor);
    attention_forward_f32_f32_16_causal_transpose_16(block, attention_forward_f32_f32_16_causal_PANEL, rows, 16);
    for (int i = 0; i < count; i++) {
      const int64_t row = (batch * c->queries + bounds->start + lane + i) * c->heads + head;
      attention_forward_f32_f32_16_causal_store(c->out, row * attention_forward_f32_f32_16_causal_D + d, load_f32(rows + 16 * i), attention_forward_f32_f32_16_causal_D - d);
    }
  }
}

/* One head's block of queries under way. */
typedef struct {
  attention_forward_f32_f32_16_causal_bounds bounds;
  vf most[4], total[4];
  float *queries, *out;
  int64_t head, first, last;
} attention_forward_f32_f32_16_causal_slot;

static void attention_forward_f32_f32_16_causal_begin(const attention_forward_f32_f32_16_causal_call* c, attention_forward_f32_f32_16_causal_slot* slot, float* rows, int64_t batch, int64_t head, int64_t start) {
  attention_forward_f32_f32_16_causal_bounds* bounds = &slot->bounds;
  attention_forward_f32_f32_16_causal_bound(c, batch, start, bounds);
  slot->head = head;
  slot->first = attention_forward_f32_f32_16_causal_first(c, start + c->offset);
  slot->last = attention_forward_f32_f32_16_causal_last(c, start + bounds->rows - 1 + c->offset);
  attention_forward_f32_f32_16_causal_rows(rows, c->q, ((batch * c->queries + start) * c->heads + head) * attention_forward_f32_f32_16_causal_D, c->heads * attention_forward_f32_f32_16_causal_D, bounds->rows);
  attention_forward_f32_f32_16_causal_panels(slot->queries, rows);
  for (int v = 0; v < 4; v++) slot->most[v] = splat_f(-__builtin_inff()), slot->total[v] = splat_f(0.0f);
  for (int i = 0; i < attention_forward_f32_f32_16_causal_B * attention_forward_f32_f32_16_causal_DP; i += 16) store_f32(slot->out + i, splat_f(0.0f));
}

/* A block of queries against the loaded block of keys at "at". */
static void attention_forward_f32_f32_16_causal_meet(const attention_forward_f32_f32_16_causal_call* c, attention_forward_f32_f32_16_causal_slot* slot, const float* keys, const float* values, float* scores, int64_t at, int same, const int32_t* segments) {
  const attention_forward_f32_f32_16_causal_bounds* bounds = &slot->bounds;
  const int64_t start = bounds->start + c->offset;
  for (int panel = 0; panel < attention_forward_f32_f32_16_causal_PANELS; panel++) {
    const int lane = panel * attention_forward_f32_f32_16_causal_PANEL, end = lane + attention_forward_f32_f32_16_causal_PANEL - 1;
    const int64_t lead = start + smaller(lane, bounds->rows - 1), tail = start + smaller(end, bounds->rows - 1);
    const int from = (int)larger(0, attention_forward_f32_f32_16_causal_first(c, lead) - at) / attention_forward_f32_f32_16_causal_R * attention_forward_f32_f32_16_causal_R;
    const int to = (int)smaller(attention_forward_f32_f32_16_causal_TILES, (attention_forward_f32_f32_16_causal_last(c, tail) - at + attention_forward_f32_f32_16_causal_R) / attention_forward_f32_f32_16_causal_R) * attention_forward_f32_f32_16_causal_R;
    if (lane >= bounds->rows || to <= from) continue;
    const float* queries = slot->queries + panel * attention_forward_f32_f32_16_causal_WORDS * attention_forward_f32_f32_16_causal_PANEL;
    vf *best = slot->most + lane / 16, *sum = slot->total + lane / 16, before[attention_forward_f32_f32_16_causal_NV], base[attention_forward_f32_f32_16_causal_NV], fade[attention_forward_f32_f32_16_causal_NV];
    for (int v = 0; v < attention_forward_f32_f32_16_causal_NV; v++) before[v] = best[v];
    if (same == attention_forward_f32_f32_16_causal_ALL && attention_forward_f32_f32_16_causal_meets(c, bounds, lane, end, at + from, at + to - 1) == attention_forward_f32_f32_16_causal_ALL)
      attention_forward_f32_f32_16_causal_scores_all(keys, queries, scores, best, c->scale2, from, to);
    else
      attention_forward_f32_f32_16_causal_scores_part(keys, queries, scores, best, c->scale2, from, to, bounds, lane, (int32_t)at, segments);
    for (int v = 0; v < attention_forward_f32_f32_16_causal_NV; v++) {
      base[v] = select_f(best[v] == splat_f(-__builtin_inff()), splat_f(0.0f), best[v]);
      fade[v] = attention_forward_f32_f32_16_causal_exp2(before[v] - base[v]);
      sum[v] = sum[v] * fade[v];
    }
    attention_forward_f32_f32_16_causal_exponentials(scores, base, sum, from, to);
    attention_forward_f32_f32_16_causal_weigh(slot->out + panel * attention_forward_f32_f32_16_causal_DP * attention_forward_f32_f32_16_causal_PANEL, fade, values, scores, from, to);
  }
}

/* Blocks of queries from "start" of heads from "head", all with the same head of keys: a block of keys and values is loaded once for all. */
static void attention_forward_f32_f32_16_causal_blocks(const attention_forward_f32_f32_16_causal_call* c, float* scratch, int64_t batch, int64_t head, int64_t heads, int64_t start, int64_t blocks) {
  float *keys = scratch, *values = keys + attention_forward_f32_f32_16_causal_B * attention_forward_f32_f32_16_causal_DP, *scores = values + attention_forward_f32_f32_16_causal_B * attention_forward_f32_f32_16_causal_DP;
  attention_forward_f32_f32_16_causal_slot slots[4];
  int count = 0;
  int64_t first = INT64_MAX, last = -1;
  for (int64_t block = 0; block < blocks; block++)
    for (int64_t h = 0; h < heads; h++) {
      attention_forward_f32_f32_16_causal_slot* slot = &slots[count];
      slot->queries = scores + attention_forward_f32_f32_16_causal_B * 32 + 2 * count++ * attention_forward_f32_f32_16_causal_B * attention_forward_f32_f32_16_causal_DP;
      slot->out = slot->queries + attention_forward_f32_f32_16_causal_B * attention_forward_f32_f32_16_causal_DP;
      attention_forward_f32_f32_16_causal_begin(c, slot, keys, batch, head + h, start + block * attention_forward_f32_f32_16_causal_B);
      first = smaller(first, slot->first);
      last = larger(last, slot->last);
    }
  const int64_t key_head = head / c->group, stride = c->key_heads * attention_forward_f32_f32_16_causal_D;
  for (int64_t at = first / attention_forward_f32_f32_16_causal_B * attention_forward_f32_f32_16_causal_B; at <= last; at += attention_forward_f32_f32_16_causal_B) {
    const int rows = (int)smaller(attention_forward_f32_f32_16_causal_B, c->length - at);
    int32_t segments[attention_forward_f32_f32_16_causal_B];
    int loaded = 0;
    for (int i = 0; i < count; i++) {
      if (at + attention_forward_f32_f32_16_causal_B <= slots[i].first || at > slots[i].last) continue;
      const int same = attention_forward_f32_f32_16_causal_segments_meet(c, &slots[i].bounds, batch, at, rows);
      if (same == attention_forward_f32_f32_16_causal_NONE) continue;
      if (!loaded) {
        const int64_t source = ((batch * c->keys + at) * c->key_heads + key_head) * attention_forward_f32_f32_16_causal_D;
        attention_forward_f32_f32_16_causal_rows(keys, c->k, source, stride, rows);
        attention_forward_f32_f32_16_causal_summed_rows(values, c->v, source, stride, rows);
        for (int j = 0; j < attention_forward_f32_f32_16_causal_B; j++) segments[j] = 0;
        loaded = 1;
      }
      attention_forward_f32_f32_16_causal_meet(c, &slots[i], keys, values, scores, at, same, segments);
    }
  }
  for (int i = 0; i < count; i++)
    for (int lane = 0; lane < attention_forward_f32_f32_16_causal_B; lane += 16)
      attention_forward_f32_f32_16_causal_finish(c, &slots[i].bounds, slots[i].out, scores, slots[i].most + lane / 16, slots[i].total + lane / 16, batch, slots[i].head, lane);
}

enum { attention_forward_f32_f32_16_causal_SPLIT = 512, attention_forward_f32_f32_16_causal_RECORD = 32 };
typedef struct { float *queries, *out, *scores, *values; int64_t rows; } attention_forward_f32_f32_16_causal_few_scratch;

/* scores[row][key] for keys first..last of the split that starts at base; the rest stays -infinity. */
static void attention_forward_f32_f32_16_causal_few_scores(const attention_forward_f32_f32_16_causal_call* c, const attention_forward_f32_f32_16_causal_few_scratch* s, const attention_forward_f32_f32_16_causal_bounds* bounds, int64_t batch, int64_t key_head, int64_t base, int64_t first, int64_t last) {
  const int64_t rows = c->group * c->queries;
  for (int64_t i = 0; i < s->rows * attention_forward_f32_f32_16_causal_SPLIT; i += 16) store_f32(s->scores + i, splat_f(-__builtin_inff()));
  for (int64_t j = first; j <= last; j++) {
    const int64_t at = ((batch * c->keys + j) * c->key_heads + key_head) * attention_forward_f32_f32_16_causal_D;
    vf key[attention_forward_f32_f32_16_causal_DP / 16];
    for (int v = 0; v < attention_forward_f32_f32_16_causal_DP / 16; v++) key[v] = attention_forward_f32_f32_16_causal_operand(attention_forward_f32_f32_16_causal_load(c->k, at + 16 * v, attention_forward_f32_f32_16_causal_D - 16 * v));
    for (int64_t row = 0; row < rows; row++) {
      const int64_t query = row % c->queries;
      if ((uint32_t)((int32_t)j - bounds->lower[query]) > (uint32_t)bounds->span[query]) continue;

      vf sum = splat_f(0.0f);
      for (int v = 0; v < attention_forward_f32_f32_16_causal_DP / 16; v++) sum = fma_f(key[v], load_f32(s->queries + row * attention_forward_f32_f32_16_causal_DP + 16 * v), sum);
      s->scores[row * attention_forward_f32_f32_16_causal_SPLIT + j - base] = sum_lanes(sum) * c->scale;
    }
  }
}

/* Turns a row of scores into weights; gives the maximum and the sum of exponentials. */
static void attention_forward_f32_f32_16_causal_few_softmax(float* scores, float* record) {
  vf most = splat_f(-__builtin_inff()), total = splat_f(0.0f);
  for (int j = 0; j < attention_forward_f32_f32_16_causal_SPLIT; j += 16) most = max_f(load_f32(scores + j), most);
  const float top = max_lanes(most);
  const vf base = splat_f(top == -__builtin_inff() ? 0.0f : top);
  for (int j = 0; j < attention_forward_f32_f32_16_causal_SPLIT; j += 16) {
    const vf weight = attention_forward_f32_f32_16_causal_exp(load_f32(scores + j) - base);
    total = total + weight;
    store_f32(scores + j, attention_forward_f32_f32_16_causal_operand(weight));
  }
  record[0] = top;
  record[1] = sum_lanes(total);
}

INLINE void attention_forward_f32_f32_16_causal_few_tile(float* out, const float* weights, const float* values, int nv) {
  vf sums[attention_forward_f32_f32_16_causal_R][attention_forward_f32_f32_16_causal_NV];
  attention_forward_f32_f32_16_causal_core(sums, nv, 0, weights, attention_forward_f32_f32_16_causal_SPLIT, 1, values, attention_forward_f32_f32_16_causal_DP, attention_forward_f32_f32_16_causal_B);
  for (int r = 0; r < attention_forward_f32_f32_16_causal_R; r++)
    for (int v = 0; v < nv; v++) {
      float* at = out + r * attention_forward_f32_f32_16_causal_DP + 16 * v;
      store_f32(at, load_f32(at) + sums[r][v]);
    }
}

static void attention_forward_f32_f32_16_causal_few_task(const attention_forward_f32_f32_16_causal_call* c, const attention_forward_f32_f32_16_causal_few_scratch* s, float* records, int64_t batch, int64_t key_head, int64_t split, int64_t splits) {
  const int64_t rows = c->group * c->queries, base = split * attention_forward_f32_f32_16_causal_SPLIT;
  const int64_t first = larger(attention_forward_f32_f32_16_causal_first(c, c->offset), base);
  const int64_t last = smaller(attention_forward_f32_f32_16_causal_last(c, c->queries - 1 + c->offset), base + attention_forward_f32_f32_16_causal_SPLIT - 1);
  attention_forward_f32_f32_16_causal_bounds bounds;
  attention_forward_f32_f32_16_causal_bound(c, batch, 0, &bounds);
  for (int64_t row = 0; row < rows; row++) {
    const int64_t head = key_head * c->group + row / c->queries;
    const int64_t at = ((batch * c->queries + row % c->queries) * c->heads + head) * attention_forward_f32_f32_16_causal_D;
    for (int d = 0; d < attention_forward_f32_f32_16_causal_DP; d += 16) store_f32(s->queries + row * attention_forward_f32_f32_16_causal_DP + d, attention_forward_f32_f32_16_causal_operand(attention_forward_f32_f32_16_causal_load(c->q, at + d, attention_forward_f32_f32_16_causal_D - d)));
  }
  attention_forward_f32_f32_16_causal_few_scores(c, s, &bounds, batch, key_head, base, first, last);
  float* record = records + ((batch * c->heads + key_head * c->group) * c->queries * splits + split) * attention_forward_f32_f32_16_causal_RECORD;
  for (int64_t row = 0; row < s->rows; row++) {
    float unused[2];
    attention_forward_f32_f32_16_causal_few_softmax(s->scores + row * attention_forward_f32_f32_16_causal_SPLIT, row < rows ? record + row * splits * attention_forward_f32_f32_16_causal_RECORD : unused);
  }
  for (int64_t i = 0; i < s->rows * attention_forward_f32_f32_16_causal_DP; i += 16) store_f32(s->out + i, splat_f(0.0f));
  for (int64_t at = first / attention_forward_f32_f32_16_causal_B * attention_forward_f32_f32_16_causal_B; at <= last; at += attention_forward_f32_f32_16_causal_B) {
    const int64_t source = ((batch * c->keys + at) * c->key_heads + key_head) * attention_forward_f32_f32_16_causal_D;
    for (int j = 0; j < attention_forward_f32_f32_16_causal_B; j++)
      for (int d = 0; d < attention_forward_f32_f32_16_causal_DP; d += 16)
        store_f32(s->values + j * attention_forward_f32_f32_16_causal_DP + d, at + j < c->length ? attention_forward_f32_f32_16_causal_operand(attention_forward_f32_f32_16_causal_load(c->v, source + j * c->key_heads * attention_forward_f32_f32_16_causal_D + d, attention_forward_f32_f32_16_causal_D - d)) : splat_f(0.0f));
    for (int64_t row = 0; row < s->rows; row += attention_forward_f32_f32_16_causal_R) {
      const float* weights = s->scores + row * attention_forward_f32_f32_16_causal_SPLIT + at - base;
      float* out = s->out + row * attention_forward_f32_f32_16_causal_DP;
      int d = 0;
      for (; d + attention_forward_f32_f32_16_causal_PANEL <= attention_forward_f32_f32_16_causal_DP; d += attention_forward_f32_f32_16_causal_PANEL) attention_forward_f32_f32_16_causal_few_tile(out + d, weights, s->values + d, attention_forward_f32_f32_16_causal_NV);
      if (d < attention_forward_f32_f32_16_causal_DP) attention_forward_f32_f32_16_causal_few_tile(out + d, weights, s->values + d, 1);
    }
  }
  for (int64_t row = 0; row < rows; row++)
    for (int d = 0; d < attention_forward_f32_f32_16_causal_DP; d += 16) store_f32(record + row * splits * attention_forward_f32_f32_16_causal_RECORD + 16 + d, load_f32(s->out + row * attention_forward_f32_f32_16_causal_DP + d));
}

/* One row of the output from the records of its splits. */
static void attention_forward_f32_f32_16_causal_few_combine(const attention_forward_f32_f32_16_causal_call* c, const float* records, int64_t row, int64_t splits) {
  const float* record = records + row * splits * attention_forward_f32_f32_16_causal_RECORD;
  float top = -__builtin_inff();
  for (int64_t s = 0; s < splits; s++) top = record[s * attention_forward_f32_f32_16_causal_RECORD] > top ? record[s * attention_forward_f32_f32_16_causal_RECORD] : top;
  const vf base = splat_f(top == -__builtin_inff() ? 0.0f : top), zero = splat_f(0.0f);
  vf total = zero, sums[attention_forward_f32_f32_16_causal_DP / 16];
  for (int v = 0; v < attention_forward_f32_f32_16_causal_DP / 16; v++) sums[v] = zero;
  for (int64_t s = 0; s < splits; s++) {
    const vf factor = attention_forward_f32_f32_16_causal_exp(splat_f(record[s * attention_forward_f32_f32_16_causal_RECORD]) - base);
    total = fma_f(factor, splat_f(record[s * attention_forward_f32_f32_16_causal_RECORD + 1]), total);
    for (int v = 0; v < attention_forward_f32_f32_16_causal_DP / 16; v++) sums[v] = fma_f(factor, load_f32(record + s * attention_forward_f32_f32_16_causal_RECORD + 16 + 16 * v), sums[v]);
  }
  const vi none = total == zero;
  const vf share_of_total = select_f(none, zero, splat_f(1.0f) / total);
  store_f32_n(c->lse + row, select_f(none, splat_f(-__builtin_inff()), base + log_f(total)), 1);
  const int64_t query = row % c->queries, head = row / c->queries % c->heads, batch = row / c->queries / c->heads;
  const int64_t at = ((batch * c->queries + query) * c->heads + head) * attention_forward_f32_f32_16_causal_D;
  for (int v = 0; v < attention_forward_f32_f32_16_causal_DP / 16; v++) attention_forward_f32_f32_16_causal_store(c->out, at + 16 * v, sums[v] * share_of_total, attention_forward_f32_f32_16_causal_D - 16 * v);
}

static void attention_forward_f32_f32_16_causal_few(const attention_forward_f32_f32_16_causal_call* c, Context* context) {
  const int64_t rows = (c->group * smaller(c->queries, 4) + 7) / 8 * 8, splits = (c->keys + attention_forward_f32_f32_16_causal_SPLIT - 1) / attention_forward_f32_f32_16_causal_SPLIT;
  const int64_t own = rows * (2 * attention_forward_f32_f32_16_causal_DP + attention_forward_f32_f32_16_causal_SPLIT) + attention_forward_f32_f32_16_causal_B * attention_forward_f32_f32_16_causal_DP;
  float* scratch = (float*)(c->workspace + 64) + context->thread * own;
  float* records = (float*)(c->workspace + 64) + context->threads * own;
  const attention_forward_f32_f32_16_causal_few_scratch s = {scratch, scratch + rows * attention_forward_f32_f32_16_causal_DP, scratch + 2 * rows * attention_forward_f32_f32_16_causal_DP, scratch + rows * (2 * attention_forward_f32_f32_16_causal_DP + attention_forward_f32_f32_16_causal_SPLIT), rows};
  const int64_t tasks = c->batch * c->key_heads * splits;
  for (int64_t task = attention_forward_f32_f32_16_causal_next(c); task < tasks; task = attention_forward_f32_f32_16_causal_next(c))
    attention_forward_f32_f32_16_causal_few_task(c, &s, records, task / splits / c->key_heads, task / splits % c->key_heads, task % splits, splits);
  barrier(context);
  int64_t begin, end;
  share(c->batch * c->heads * c->queries, 1, context->thread, context->threads, &begin, &end);
  for (int64_t row = begin; row < end; row++) attention_forward_f32_f32_16_causal_few_combine(c, records, row, splits);
}

EXPORT void attention_forward_f32_f32_16_causal(const int64_t* words, Context* context) {
  const attention_forward_f32_f32_16_causal_call c = attention_forward_f32_f32_16_causal_arguments(words);
  attention_forward_f32_f32_16_causal_open(&c, context);
  if (c.queries <= 4) {
    attention_forward_f32_f32_16_causal_few(&c, context);
    return;
  }
  float* scratch = (float*)(c.workspace + 64) + (int64_t)context->thread * 12288;
  /* Heads that share keys go together, and blocks of queries where such heads are few, as long as there is work for all threads. */
  const int64_t blocks = (c.queries + attention_forward_f32_f32_16_causal_B - 1) / attention_forward_f32_f32_16_causal_B, many = c.batch * c.key_heads * blocks >= 8 * context->threads;
  const int64_t heads = many ? smaller(c.group, 4) : 1, together = many && heads <= 2 ? 2 : 1;
  const int64_t parts = (c.group + heads - 1) / heads, rows = c.batch * c.key_heads * parts, steps = (blocks + together - 1) / together;
  /* The last blocks of queries see most keys: they come first, so that only short tasks are left at the end. */
  for (int64_t task = attention_forward_f32_f32_16_causal_next(&c); task < rows * steps; task = attention_forward_f32_f32_16_causal_next(&c)) {
    const int64_t row = task % rows, part = row % parts * heads, block = (steps - 1 - task / rows) * together;
    const int64_t head = row / parts % c.key_heads * c.group + part;
    attention_forward_f32_f32_16_causal_blocks(&c, scratch, row / parts / c.key_heads, head, smaller(heads, c.group - part), block * attention_forward_f32_f32_16_causal_B, smaller(together, blocks - block));
  }
}

// attention_forward_f32_f32_16_causal(@0, @12288, @18432, @122944, @135232, 0, 0, @24576, 2, 24, 24, 4, 2, 0, 1048576000)
