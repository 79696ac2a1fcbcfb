#ifndef THIMBLE_PRELUDE
#define THIMBLE_PRELUDE

#include <stdint.h>
#include <stddef.h>
#pragma GCC diagnostic ignored "-Wpsabi"
#ifndef THIMBLE_GENERIC
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && defined(__FMA__)
#define HAS_AVX512 1
#ifndef THIMBLE_BF16_DOT
#if defined(__cooperlake__) || defined(__sapphirerapids__) || defined(__emeraldrapids__) || defined(__graniterapids__)
#define THIMBLE_BF16_DOT 0
#else
#define THIMBLE_BF16_DOT 1
#endif
#endif
#if defined(__AVX512BF16__) && THIMBLE_BF16_DOT
#define HAS_BF16_DOT 1
#endif
#endif
#if defined(__AVX2__) && defined(__FMA__)
#define HAS_AVX2 1
#endif
#ifdef __F16C__
#define HAS_F16C 1
#endif
#if defined(__aarch64__) && defined(__ARM_NEON)
#define HAS_NEON 1
#include <arm_neon.h>
#endif
#ifdef __SSE2__
#define HAS_SSE2 1
#endif
#if defined(HAS_AVX512) || defined(HAS_AVX2) || defined(HAS_F16C)
#include <immintrin.h>
#elif defined(HAS_SSE2)
#include <emmintrin.h>
#endif
#endif

#define VL 16
#define INLINE static inline __attribute__((always_inline, unused))
#define EXPORT __attribute__((visibility("default"), used))

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint64_t thimble_wide __attribute__((vector_size(64)));
typedef double thimble_doubles __attribute__((vector_size(64)));
typedef uint16_t thimble_halves __attribute__((vector_size(32)));
typedef uint8_t thimble_bytes __attribute__((vector_size(16)));
typedef float thimble_loose_f __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t thimble_loose_i __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t thimble_loose_u __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t thimble_loose_h __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint8_t thimble_loose_b __attribute__((vector_size(16), aligned(1), may_alias));
typedef float thimble_float_alias __attribute__((may_alias));
typedef uint32_t thimble_word_alias __attribute__((may_alias));
typedef uint16_t thimble_half_alias __attribute__((may_alias));

typedef union {
  vf f;
  vi i;
  vu u;
  float lane_f[16];
  int32_t lane_i[16];
  uint32_t lane_u[16];
#if defined(HAS_AVX2)
  __m256 half_f[2];
  __m256i half_i[2];
#endif
#if defined(HAS_SSE2)
  __m128 quarter_f[4];
  __m128i quarter_i[4];
#elif defined(HAS_NEON)
  float32x4_t quarter_f[4];
  uint32x4_t quarter_i[4];
#endif
} thimble_lanes;

/* Every kernel is called by all threads at once; "threads" of them, this one being number "thread". */
typedef struct {
  int32_t thread, threads;
  void* pool;
} Context;
typedef void (*Kernel)(const int64_t* arguments, Context* context);

/* Waits for all threads. The runner's pool starts with a pointer to the function that does it. */
INLINE void barrier(Context* context) {
  if (context->threads > 1) (*(void (**)(Context*))context->pool)(context);
}

/* Part number "part" of "parts" nearly equal parts of 0..count, cut at multiples of "granule". */
INLINE void share(int64_t count, int64_t granule, int64_t part, int64_t parts, int64_t* begin, int64_t* end) {
  int64_t units = (count + granule - 1) / granule;
  int64_t first = units * part / parts * granule, last = units * (part + 1) / parts * granule;
  *begin = first < count ? first : count;
  *end = last < count ? last : count;
}
INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }


#define THIMBLE_SPLAT(x) {x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}
INLINE vf splat_f(float x) { return (vf)THIMBLE_SPLAT(x); }
INLINE vi splat_i(int32_t x) { return (vi)THIMBLE_SPLAT(x); }
INLINE vu splat_u(uint32_t x) { return (vu)THIMBLE_SPLAT(x); }
INLINE vi lanes_iota(void) { return (vi){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}; }
/* Mask of the first n lanes. */
INLINE vi first_lanes(int n) { return lanes_iota() < splat_i(n); }

INLINE vf bitcast_u_to_f(vu v) { return (vf)v; }
INLINE vf bitcast_i_to_f(vi v) { return (vf)v; }
INLINE vi bitcast_f_to_i(vf v) { return (vi)v; }
INLINE vi bitcast_u_to_i(vu v) { return (vi)v; }
INLINE vu bitcast_f_to_u(vf v) { return (vu)v; }
INLINE vu bitcast_i_to_u(vi v) { return (vu)v; }

/* Lane by lane mask ? a : b. */
INLINE vi select_i(vi mask, vi a, vi b) {
#ifdef HAS_AVX512
  return (vi)_mm512_ternarylogic_epi32((__m512i)mask, (__m512i)a, (__m512i)b, 0xca);
#else
  return (mask & a) | (~mask & b);
#endif
}
INLINE vf select_f(vi mask, vf a, vf b) { return (vf)select_i(mask, (vi)a, (vi)b); }
INLINE vu select_u(vi mask, vu a, vu b) { return (vu)select_i(mask, (vi)a, (vi)b); }

/* a < b ? a : b and a > b ? a : b as in SSE: where either is NaN, and where both are zeros, the second operand. */
INLINE vf min_f(vf a, vf b) {
#ifdef HAS_AVX512
  return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#else
  return select_f(a < b, a, b);
#endif
}
INLINE vf max_f(vf a, vf b) {
#ifdef HAS_AVX512
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#else
  return select_f(a > b, a, b);
#endif
}
INLINE vf abs_f(vf v) { return (vf)((vu)v & 0x7fffffffu); }

/* a * b + c rounded once, without hardware for it: the sum in double is rounded to odd, which makes the second
   rounding harmless (Boldo and Melquiond, Emulation of FMA and correctly rounded sums, 2008). */
INLINE float thimble_fma_exact(float a, float b, float c) {
  double product = (double)a * (double)b, sum = product + (double)c;
  double part = sum - product, error = (product - (sum - part)) + ((double)c - part);
  if (error > 0 || error < 0) {
    int64_t bits;
    __builtin_memcpy(&bits, &sum, 8);
    if (!(bits & 1)) bits += (error > 0) == (sum > 0) ? 1 : -1;
    __builtin_memcpy(&sum, &bits, 8);
  }
  return (float)sum;
}
INLINE vf fma_f(vf a, vf b, vf c) {
#if defined(HAS_AVX512)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
  thimble_lanes x = {.f = a}, y = {.f = b}, z = {.f = c};
#if defined(HAS_AVX2)
  for (int i = 0; i < 2; i++) z.half_f[i] = _mm256_fmadd_ps(x.half_f[i], y.half_f[i], z.half_f[i]);
#elif defined(HAS_NEON)
  for (int i = 0; i < 4; i++) z.quarter_f[i] = vfmaq_f32(z.quarter_f[i], x.quarter_f[i], y.quarter_f[i]);
#else
  for (int i = 0; i < 16; i++) z.lane_f[i] = thimble_fma_exact(x.lane_f[i], y.lane_f[i], z.lane_f[i]);
#endif
  return z.f;
#endif
}
INLINE vf sqrt_f(vf v) {
#if defined(HAS_AVX512)
  return (vf)_mm512_sqrt_ps((__m512)v);
#else
  thimble_lanes x = {.f = v};
#if defined(HAS_AVX2)
  for (int i = 0; i < 2; i++) x.half_f[i] = _mm256_sqrt_ps(x.half_f[i]);
#elif defined(HAS_SSE2)
  for (int i = 0; i < 4; i++) x.quarter_f[i] = _mm_sqrt_ps(x.quarter_f[i]);
#elif defined(HAS_NEON)
  for (int i = 0; i < 4; i++) x.quarter_f[i] = vsqrtq_f32(x.quarter_f[i]);
#else
  for (int i = 0; i < 16; i++) x.lane_f[i] = __builtin_sqrtf(x.lane_f[i]);
#endif
  return x.f;
#endif
}
INLINE vf thimble_keep_sign(vf magnitude, vf sign) { return (vf)((vu)magnitude | ((vu)sign & 0x80000000u)); }
/* Nearest integer, ties to even. */
INLINE vf round_even_f(vf v) {
#ifdef HAS_AVX512
  return (vf)_mm512_roundscale_ps((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  vf large = splat_f(8388608.0f), magnitude = abs_f(v);
  return select_f(magnitude < large, thimble_keep_sign((magnitude + large) - large, v), v);
#endif
}
INLINE vf floor_f(vf v) {
#ifdef HAS_AVX512
  return (vf)_mm512_roundscale_ps((__m512)v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#else
  vf near = round_even_f(v);
  return select_f(near > v, near - splat_f(1.0f), near);
#endif
}

/* Truncation. What lies outside the range of the result is unspecified. */
INLINE vi convert_f_to_i(vf v) {
#ifdef HAS_AVX512
  return (vi)_mm512_cvttps_epi32((__m512)v);
#else
  return __builtin_convertvector(v, vi);
#endif
}
INLINE vu convert_f_to_u(vf v) {
#ifdef HAS_AVX512
  return (vu)_mm512_cvttps_epu32((__m512)v);
#else
  vf half = splat_f(2147483648.0f);
  vi big = v >= half;
  return (vu)convert_f_to_i(select_f(big, v - half, v)) ^ ((vu)big & 0x80000000u);
#endif
}
/* Nearest, ties to even. */
INLINE vf convert_i_to_f(vi v) {
#ifdef HAS_AVX512
  return (vf)_mm512_cvtepi32_ps((__m512i)v);
#else
  return __builtin_convertvector(v, vf);
#endif
}
INLINE vf convert_u_to_f(vu v) {
#ifdef HAS_AVX512
  return (vf)_mm512_cvtepu32_ps((__m512i)v);
#else
  /* Both halves and the product are exact, so the one addition rounds correctly. */
  return convert_i_to_f((vi)(v >> 16)) * splat_f(65536.0f) + convert_i_to_f((vi)(v & 0xffffu));
#endif
}
/* High 32 bits of the product. */
INLINE vu mulhi_u(vu a, vu b) {
#if defined(HAS_AVX512)
  __m512i even = _mm512_mul_epu32((__m512i)a, (__m512i)b);
  __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), _mm512_srli_epi64((__m512i)b, 32));
  return (vu)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
#else
  thimble_lanes x = {.u = a}, y = {.u = b};
#if defined(HAS_AVX2)
  for (int i = 0; i < 2; i++) {
    __m256i even = _mm256_mul_epu32(x.half_i[i], y.half_i[i]);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x.half_i[i], 32), _mm256_srli_epi64(y.half_i[i], 32));
    x.half_i[i] = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
  }
#else
  for (int i = 0; i < 16; i++) x.lane_u[i] = (uint32_t)(((uint64_t)x.lane_u[i] * y.lane_u[i]) >> 32);
#endif
  return x.u;
#endif
}

/* Lanes combined as a tree: 0 with 8, 1 with 9, ..., then 0 with 4, ..., 0 with 2, and 0 with 1. */
INLINE float sum_lanes(vf v) {
#if defined(HAS_AVX512)
  __m512 x = (__m512)v;
  __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
#else
  thimble_lanes x = {.f = v};
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; i++) x.lane_f[i] = x.lane_f[i] + x.lane_f[i + width];
  return x.lane_f[0];
#endif
}
INLINE float max_lanes(vf v) {
#if defined(HAS_AVX512)
  __m512 x = (__m512)v;
  __m256 a = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
#else
  thimble_lanes x = {.f = v};
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; i++)
      x.lane_f[i] = x.lane_f[i] > x.lane_f[i + width] ? x.lane_f[i] : x.lane_f[i + width];
  return x.lane_f[0];
#endif
}
/* table[index], lane by lane; every index must be within the table. */
INLINE vf gather_f(const float* table, vi index) {
#if defined(HAS_AVX512)
  return (vf)_mm512_i32gather_ps((__m512i)index, table, 4);
#else
  thimble_lanes x = {.i = index}, y;
  for (int l = 0; l < 16; l++) y.lane_f[l] = table[x.lane_i[l]];
  return y.f;
#endif
}


#ifdef HAS_AVX512
INLINE __mmask16 thimble_mask(int n) { return (__mmask16)((1u << n) - 1u); }
#endif


INLINE vf load_f32(const void* p) { return *(const thimble_loose_f*)p; }
INLINE void store_f32(void* p, vf v) { *(thimble_loose_f*)p = v; }
#ifdef HAS_AVX512
INLINE vf load_f32_n(const void* p, int n) { return (vf)_mm512_maskz_loadu_ps(thimble_mask(n), p); }
INLINE void store_f32_n(void* p, vf v, int n) { _mm512_mask_storeu_ps(p, thimble_mask(n), v); }
#else
INLINE vf load_f32_n(const void* p, int n) {
  if (n >= 16) return load_f32(p);
  thimble_lanes v = {{0}};
  for (int i = 0; i < n; i++) __builtin_memcpy(&v.lane_f[i], (const float*)p + i, 4);
  return v.f;
}
INLINE void store_f32_n(void* p, vf v, int n) {
  if (n >= 16) { store_f32(p, v); return; }
  thimble_lanes lanes = {.f = v};
  for (int i = 0; i < n; i++) __builtin_memcpy((float*)p + i, &lanes.lane_f[i], 4);
}
#endif

INLINE vi load_i32(const void* p) { return *(const thimble_loose_i*)p; }
INLINE void store_i32(void* p, vi v) { *(thimble_loose_i*)p = v; }
#ifdef HAS_AVX512
INLINE vi load_i32_n(const void* p, int n) { return (vi)_mm512_maskz_loadu_epi32(thimble_mask(n), p); }
INLINE void store_i32_n(void* p, vi v, int n) { _mm512_mask_storeu_epi32(p, thimble_mask(n), (__m512i)v); }
#else
INLINE vi load_i32_n(const void* p, int n) {
  if (n >= 16) return load_i32(p);
  thimble_lanes v = {{0}};
  for (int i = 0; i < n; i++) __builtin_memcpy(&v.lane_i[i], (const int32_t*)p + i, 4);
  return v.i;
}
INLINE void store_i32_n(void* p, vi v, int n) {
  if (n >= 16) { store_i32(p, v); return; }
  thimble_lanes lanes = {.i = v};
  for (int i = 0; i < n; i++) __builtin_memcpy((int32_t*)p + i, &lanes.lane_i[i], 4);
}
#endif

INLINE vu load_u32(const void* p) { return *(const thimble_loose_u*)p; }
INLINE void store_u32(void* p, vu v) { *(thimble_loose_u*)p = v; }
#ifdef HAS_AVX512
INLINE vu load_u32_n(const void* p, int n) { return (vu)_mm512_maskz_loadu_epi32(thimble_mask(n), p); }
INLINE void store_u32_n(void* p, vu v, int n) { _mm512_mask_storeu_epi32(p, thimble_mask(n), (__m512i)v); }
#else
INLINE vu load_u32_n(const void* p, int n) {
  if (n >= 16) return load_u32(p);
  thimble_lanes v = {{0}};
  for (int i = 0; i < n; i++) __builtin_memcpy(&v.lane_u[i], (const uint32_t*)p + i, 4);
  return v.u;
}
INLINE void store_u32_n(void* p, vu v, int n) {
  if (n >= 16) { store_u32(p, v); return; }
  thimble_lanes lanes = {.u = v};
  for (int i = 0; i < n; i++) __builtin_memcpy((uint32_t*)p + i, &lanes.lane_u[i], 4);
}
#endif

INLINE thimble_halves thimble_low_halves(vu v) {
#ifdef HAS_AVX512
  return (thimble_halves)_mm512_cvtepi32_epi16((__m512i)v);
#else
  return __builtin_convertvector(v, thimble_halves);
#endif
}
INLINE vu thimble_widen_halves(thimble_halves v) {
#ifdef HAS_AVX512
  return (vu)_mm512_cvtepu16_epi32((__m256i)v);
#else
  return __builtin_convertvector(v, vu);
#endif
}
/* The bits of bf16 in the high half of each word: nearest, ties to even, NaN kept quiet. */
INLINE vu thimble_round_bf16(vf v) {
  vu bits = (vu)v;
  vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
#ifdef HAS_AVX512
  __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
  return (vu)_mm512_mask_and_epi32((__m512i)rounded, nan, (__m512i)(bits | 0x400000u), (__m512i)splat_u(0xffff0000u));
#else
  vu quiet = (bits | 0x400000u) & 0xffff0000u;
  return (vu)select_i((vi)((bits & 0x7fffffffu) > 0x7f800000u), (vi)quiet, (vi)rounded);
#endif
}
INLINE vf thimble_expand_bf16(thimble_halves v) { return (vf)(thimble_widen_halves(v) << 16); }
INLINE thimble_halves thimble_shrink_bf16(vf v) {
#if defined(HAS_AVX512) && defined(__AVX512BF16__)
  /* The instruction rounds as the code above does, but takes denormal numbers for zeros: they are rare. */
  if (__builtin_expect(!_mm512_fpclass_ps_mask((__m512)v, 0x20), 1)) return (thimble_halves)_mm512_cvtneps_pbh((__m512)v);
#endif
  return thimble_low_halves(thimble_round_bf16(v) >> 16);
}
/* v rounded to the nearest bf16, still in f32. */
INLINE vf round_bf16(vf v) { return (vf)thimble_round_bf16(v); }

INLINE float bf16_to_f32(uint16_t bits) {
  uint32_t word = (uint32_t)bits << 16;
  float value;
  __builtin_memcpy(&value, &word, 4);
  return value;
}
INLINE uint16_t f32_to_bf16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
INLINE float f16_to_f32(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 31u, mantissa = half & 0x3ffu, bits;
  if (exponent == 0) {
    float value = (float)mantissa * 0x1p-24f;
    return sign ? -value : value;
  }
  bits = exponent == 31 ? sign | 0x7f800000u | (mantissa ? mantissa << 13 | 0x400000u : 0u)
                        : sign | (exponent + 112) << 23 | mantissa << 13;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}
INLINE uint16_t f32_to_f16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
  if (magnitude < 0x33000001u) return (uint16_t)sign;
  uint32_t exponent = magnitude >> 23;
  if (exponent >= 113) return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13));
  uint32_t shift = 126 - exponent, mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  return (uint16_t)(sign | ((mantissa + (1u << (shift - 1)) - 1u + ((mantissa >> shift) & 1u)) >> shift));
}
INLINE vf thimble_expand_f16(thimble_halves v) {
#if defined(HAS_AVX512)
  return (vf)_mm512_cvtph_ps((__m256i)v);
#else
  thimble_lanes out;
  for (int i = 0; i < 16; i++) out.lane_f[i] = f16_to_f32(v[i]);
  return out.f;
#endif
}
INLINE thimble_halves thimble_shrink_f16(vf v) {
#if defined(HAS_AVX512)
  return (thimble_halves)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  thimble_lanes in = {.f = v};
  thimble_halves out;
  for (int i = 0; i < 16; i++) out[i] = f32_to_f16(in.lane_f[i]);
  return out;
#endif
}
INLINE vu thimble_expand_u8(thimble_bytes v) {
#ifdef HAS_AVX512
  return (vu)_mm512_cvtepu8_epi32((__m128i)v);
#else
  return __builtin_convertvector(v, vu);
#endif
}
INLINE thimble_bytes thimble_shrink_u8(vu v) {
#ifdef HAS_AVX512
  return (thimble_bytes)_mm512_cvtepi32_epi8((__m512i)v);
#else
  return __builtin_convertvector(v, thimble_bytes);
#endif
}
INLINE vi thimble_expand_bool(thimble_bytes v) { return (vi)(thimble_expand_u8(v) != 0u); }
INLINE thimble_bytes thimble_shrink_bool(vi v) { return thimble_shrink_u8((vu)v & 1u); }


INLINE thimble_halves thimble_load_bf16_n(const void* p, int n) {
#ifdef HAS_AVX512
  return (thimble_halves)_mm256_maskz_loadu_epi16(thimble_mask(n), p);
#else
  thimble_halves v = {0};
  for (int i = 0; i < n; i++) v[i] = ((const thimble_half_alias*)p)[i];
  return v;
#endif
}
INLINE vf load_bf16(const void* p) { return thimble_expand_bf16(*(const thimble_loose_h*)p); }
INLINE vf load_bf16_n(const void* p, int n) { return thimble_expand_bf16(thimble_load_bf16_n(p, n)); }
INLINE void store_bf16(void* p, vf v) { *(thimble_loose_h*)p = thimble_shrink_bf16(v); }
INLINE void store_bf16_n(void* p, vf v, int n) {
  if (n >= 16) { store_bf16(p, v); return; }
  thimble_halves values = thimble_shrink_bf16(v);
  for (int i = 0; i < n; i++) ((thimble_half_alias*)p)[i] = values[i];
}

INLINE thimble_halves thimble_load_f16_n(const void* p, int n) {
#ifdef HAS_AVX512
  return (thimble_halves)_mm256_maskz_loadu_epi16(thimble_mask(n), p);
#else
  thimble_halves v = {0};
  for (int i = 0; i < n; i++) v[i] = ((const thimble_half_alias*)p)[i];
  return v;
#endif
}
INLINE vf load_f16(const void* p) { return thimble_expand_f16(*(const thimble_loose_h*)p); }
INLINE vf load_f16_n(const void* p, int n) { return thimble_expand_f16(thimble_load_f16_n(p, n)); }
INLINE void store_f16(void* p, vf v) { *(thimble_loose_h*)p = thimble_shrink_f16(v); }
INLINE void store_f16_n(void* p, vf v, int n) {
  if (n >= 16) { store_f16(p, v); return; }
  thimble_halves values = thimble_shrink_f16(v);
  for (int i = 0; i < n; i++) ((thimble_half_alias*)p)[i] = values[i];
}

INLINE thimble_bytes thimble_load_u8_n(const void* p, int n) {
#ifdef HAS_AVX512
  return (thimble_bytes)_mm_maskz_loadu_epi8(thimble_mask(n), p);
#else
  thimble_bytes v = {0};
  for (int i = 0; i < n; i++) v[i] = ((const uint8_t*)p)[i];
  return v;
#endif
}
INLINE vu load_u8(const void* p) { return thimble_expand_u8(*(const thimble_loose_b*)p); }
INLINE vu load_u8_n(const void* p, int n) { return thimble_expand_u8(thimble_load_u8_n(p, n)); }
INLINE void store_u8(void* p, vu v) { *(thimble_loose_b*)p = thimble_shrink_u8(v); }
INLINE void store_u8_n(void* p, vu v, int n) {
  if (n >= 16) { store_u8(p, v); return; }
  thimble_bytes values = thimble_shrink_u8(v);
  for (int i = 0; i < n; i++) ((uint8_t*)p)[i] = values[i];
}

INLINE thimble_bytes thimble_load_bool_n(const void* p, int n) {
#ifdef HAS_AVX512
  return (thimble_bytes)_mm_maskz_loadu_epi8(thimble_mask(n), p);
#else
  thimble_bytes v = {0};
  for (int i = 0; i < n; i++) v[i] = ((const uint8_t*)p)[i];
  return v;
#endif
}
INLINE vi load_bool(const void* p) { return thimble_expand_bool(*(const thimble_loose_b*)p); }
INLINE vi load_bool_n(const void* p, int n) { return thimble_expand_bool(thimble_load_bool_n(p, n)); }
INLINE void store_bool(void* p, vi v) { *(thimble_loose_b*)p = thimble_shrink_bool(v); }
INLINE void store_bool_n(void* p, vi v, int n) {
  if (n >= 16) { store_bool(p, v); return; }
  thimble_bytes values = thimble_shrink_bool(v);
  for (int i = 0; i < n; i++) ((uint8_t*)p)[i] = values[i];
}

INLINE vf exp_f(vf x) {
  /* The bounds lie where the result is 0 or infinity for certain; NaN comes through as the second operand. */
  x = min_f(splat_f(89.0f), max_f(splat_f(-104.5f), x));
  vf n = round_even_f(x * splat_f(1.44269504f));
  vf r = fma_f(n, splat_f(-0.693359375f), x);
  r = fma_f(n, splat_f(2.12194440e-4f), r);
  vf p = splat_f(1.9875691500e-4f);
  p = fma_f(p, r, splat_f(1.3981999507e-3f));
  p = fma_f(p, r, splat_f(8.3334519073e-3f));
  p = fma_f(p, r, splat_f(4.1665795894e-2f));
  p = fma_f(p, r, splat_f(1.6666665459e-1f));
  p = fma_f(p, r, splat_f(5.0000001201e-1f));
  p = fma_f(p, r * r, r) + splat_f(1.0f);
#ifdef HAS_AVX512
  return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  /* Two factors, because 2^n alone can leave the range of f32 where the result does not. */
  vi power = convert_f_to_i(select_f(n == n, n, splat_f(0.0f))), half = power >> 1;
  return p * (vf)((half + 127) << 23) * (vf)((power - half + 127) << 23);
#endif
}

INLINE vf log_f(vf x) {
  vi tiny = x < splat_f(0x1p-126f);
  vf scaled = select_f(tiny, x * splat_f(0x1p23f), x);
  /* x = m * 2^e with m in [sqrt(1/2), sqrt(2)). */
  vi bits = (vi)scaled - 0x3f3504f3;
  vf e = convert_i_to_f((bits >> 23) - (tiny & 23));
  vf m = (vf)((bits & 0x7fffff) + 0x3f3504f3) - splat_f(1.0f);
  vf z = m * m;
  vf p = splat_f(7.0376836292e-2f);
  p = fma_f(p, m, splat_f(-1.1514610310e-1f));
  p = fma_f(p, m, splat_f(1.1676998740e-1f));
  p = fma_f(p, m, splat_f(-1.2420140846e-1f));
  p = fma_f(p, m, splat_f(1.4249322787e-1f));
  p = fma_f(p, m, splat_f(-1.6668057665e-1f));
  p = fma_f(p, m, splat_f(2.0000714765e-1f));
  p = fma_f(p, m, splat_f(-2.4999993993e-1f));
  p = fma_f(p, m, splat_f(3.3333331174e-1f));
  vf y = p * m * z;
  y = fma_f(e, splat_f(-2.12194440e-4f), y);
  y = fma_f(z, splat_f(-0.5f), y);
  y = fma_f(e, splat_f(0.693359375f), m + y);
  vf infinity = splat_f(__builtin_inff());
  y = select_f(x == infinity, infinity, y);
  y = select_f(x == splat_f(0.0f), -infinity, y);
  return select_f((x < splat_f(0.0f)) | (x != x), splat_f(__builtin_nanf("")), y);
}

#endif

#ifndef THIMBLE_LOOPS
#define THIMBLE_LOOPS
INLINE float get_f32(const char* p) { return *(const thimble_float_alias*)p; }
INLINE vf strided_f32(const char* p, int64_t bytes, int n) {
  thimble_lanes lanes = {.u = splat_u(0u)};
  for (int l = 0; l < n; l++) lanes.lane_f[l] = get_f32(p + l * bytes);
  return lanes.f;
}
INLINE float get_bf16(const char* p) { return bf16_to_f32(*(const thimble_half_alias*)p); }
INLINE vf strided_bf16(const char* p, int64_t bytes, int n) {
  thimble_lanes lanes = {.u = splat_u(0u)};
  for (int l = 0; l < n; l++) lanes.lane_f[l] = get_bf16(p + l * bytes);
  return lanes.f;
}
INLINE float get_f16(const char* p) { return f16_to_f32(*(const thimble_half_alias*)p); }
INLINE vf strided_f16(const char* p, int64_t bytes, int n) {
  thimble_lanes lanes = {.u = splat_u(0u)};
  for (int l = 0; l < n; l++) lanes.lane_f[l] = get_f16(p + l * bytes);
  return lanes.f;
}
INLINE int32_t get_i32(const char* p) { return (int32_t)*(const thimble_word_alias*)p; }
INLINE vi strided_i32(const char* p, int64_t bytes, int n) {
  thimble_lanes lanes = {.u = splat_u(0u)};
  for (int l = 0; l < n; l++) lanes.lane_i[l] = get_i32(p + l * bytes);
  return lanes.i;
}
INLINE uint32_t get_u32(const char* p) { return *(const thimble_word_alias*)p; }
INLINE vu strided_u32(const char* p, int64_t bytes, int n) {
  thimble_lanes lanes = {.u = splat_u(0u)};
  for (int l = 0; l < n; l++) lanes.lane_u[l] = get_u32(p + l * bytes);
  return lanes.u;
}
INLINE uint32_t get_u8(const char* p) { return *(const uint8_t*)p; }
INLINE vu strided_u8(const char* p, int64_t bytes, int n) {
  thimble_lanes lanes = {.u = splat_u(0u)};
  for (int l = 0; l < n; l++) lanes.lane_u[l] = get_u8(p + l * bytes);
  return lanes.u;
}
INLINE int32_t get_bool(const char* p) { return *(const uint8_t*)p ? -1 : 0; }
INLINE vi strided_bool(const char* p, int64_t bytes, int n) {
  thimble_lanes lanes = {.u = splat_u(0u)};
  for (int l = 0; l < n; l++) lanes.lane_i[l] = get_bool(p + l * bytes);
  return lanes.i;
}
/* A row number from a tensor; one outside the table stands for row 0. */
INLINE int64_t row_of(int32_t id, int64_t rows) { return id >= 0 && id < rows ? id : 0; }
/* first, first + step, first + 2 step, ... */
INLINE vi counting(int64_t first, int64_t step) {
  return (vi)(splat_u((uint32_t)first) + (vu)lanes_iota() * splat_u((uint32_t)step));
}
INLINE uint32_t sum_lanes_u(vu v) {
  thimble_lanes lanes = {.u = v};
  uint32_t sum = 0;
  for (int l = 0; l < 16; l++) sum += lanes.lane_u[l];
  return sum;
}
INLINE int32_t sum_lanes_i(vi v) { return (int32_t)sum_lanes_u((vu)v); }
INLINE int32_t max_lanes_i(vi v) {
  int32_t most = v[0];
  for (int l = 1; l < 16; l++) most = v[l] > most ? v[l] : most;
  return most;
}
INLINE uint32_t max_lanes_u(vu v) {
  uint32_t most = v[0];
  for (int l = 1; l < 16; l++) most = v[l] > most ? v[l] : most;
  return most;
}
#endif

#ifndef THIMBLE_MICRO
#define THIMBLE_MICRO

#if defined(HAS_AVX512)
typedef float vn __attribute__((vector_size(64)));
typedef float thimble_loose_n __attribute__((vector_size(64), aligned(4), may_alias));
#define NATIVE 16
#define PANEL 64
INLINE vn thimble_splat_n(float x) { return (vn)_mm512_set1_ps(x); }
INLINE vn thimble_fma_n(vn a, vn b, vn c) { return (vn)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
#elif defined(HAS_AVX2)
typedef float vn __attribute__((vector_size(32)));
typedef float thimble_loose_n __attribute__((vector_size(32), aligned(4), may_alias));
#define NATIVE 8
#define PANEL 16
INLINE vn thimble_splat_n(float x) { return (vn)_mm256_set1_ps(x); }
INLINE vn thimble_fma_n(vn a, vn b, vn c) { return (vn)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
#else
typedef float vn __attribute__((vector_size(16)));
typedef float thimble_loose_n __attribute__((vector_size(16), aligned(4), may_alias));
#define NATIVE 4
#define PANEL 16
INLINE vn thimble_splat_n(float x) { return (vn){x, x, x, x}; }
#ifdef HAS_NEON
INLINE vn thimble_fma_n(vn a, vn b, vn c) { return (vn)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
/* Without hardware for it, one rounding would cost fifty times as much: this is the one place that rounds twice. */
INLINE vn thimble_fma_n(vn a, vn b, vn c) { return a * b + c; }
#endif
#endif
#ifdef HAS_BF16_DOT
INLINE vn thimble_splat_pair(uint32_t x) { return (vn)_mm512_set1_epi32((int)x); }
INLINE vn thimble_dot_n(vn a, vn b, vn c) { return (vn)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b); }
#endif
INLINE vn thimble_load_n(const void* p) { return *(const thimble_loose_n*)p; }
INLINE void thimble_store_n(void* p, vn v) { *(thimble_loose_n*)p = v; }


/*
 * One product: value (row, k) of A is at left + row * apart + k * step, B's row k at panel + k * pitch, in units. With
 * each k the lines at first and second are fetched ahead of their use, and both move on by "ahead" bytes.
 */
typedef struct {
  const void *left, *panel;
  const char *first, *second;
  int64_t units, apart, step, pitch, ahead;
} thimble_part;
typedef void (*thimble_micro)(int, int, int, const thimble_part*, float*, int64_t, int);


#define UNIT_f32 1
#ifdef HAS_BF16_DOT
#define UNIT_bf16 2
#define thimble_micro_bf16 thimble_micro_dot
#define thimble_micro_bf16_row thimble_micro_dot_row
#define thimble_micro_bf16_strip thimble_micro_dot_strip
#else
#define UNIT_bf16 1
#define thimble_micro_bf16 thimble_micro_f32
#define thimble_micro_bf16_row thimble_micro_f32_row
#define thimble_micro_bf16_strip thimble_micro_f32_strip
#endif
/* Rows that a kernel takes at once where at most 16 columns are wanted. */
#if NATIVE == 16
#define TALL 12
#else
#define TALL 6
#endif

#if NATIVE == 16
static __attribute__((noinline, unused)) void thimble_micro_f32_6x1(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c1_0, c2_0, c3_0, c4_0, c5_0;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE);
  } else {
    c0_0 = (vn){0};
    c1_0 = (vn){0};
    c2_0 = (vn){0};
    c3_0 = (vn){0};
    c4_0 = (vn){0};
    c5_0 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_float_alias* a0 = (const thimble_float_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_float_alias* a1 = (const thimble_float_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_float_alias* a2 = (const thimble_float_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_float_alias* a3 = (const thimble_float_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_float_alias* a4 = (const thimble_float_alias*)part->left + (valid > 4 ? 4 : valid - 1) * part->apart;
    const thimble_float_alias* a5 = (const thimble_float_alias*)part->left + (valid > 5 ? 5 : valid - 1) * part->apart;
    const thimble_float_alias* q = (const thimble_float_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_n(a0[i]); c0_0 = thimble_fma_n(x, b0, c0_0);
      x = thimble_splat_n(a1[i]); c1_0 = thimble_fma_n(x, b0, c1_0);
      x = thimble_splat_n(a2[i]); c2_0 = thimble_fma_n(x, b0, c2_0);
      x = thimble_splat_n(a3[i]); c3_0 = thimble_fma_n(x, b0, c3_0);
      x = thimble_splat_n(a4[i]); c4_0 = thimble_fma_n(x, b0, c4_0);
      x = thimble_splat_n(a5[i]); c5_0 = thimble_fma_n(x, b0, c5_0);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0);
}
static __attribute__((noinline, unused)) void thimble_micro_f32_6x2(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c0_1, c1_0, c1_1, c2_0, c2_1, c3_0, c3_1, c4_0, c4_1, c5_0, c5_1;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE); c0_1 = thimble_load_n(c + 0 * cs + 1 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE); c1_1 = thimble_load_n(c + 1 * cs + 1 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE); c2_1 = thimble_load_n(c + 2 * cs + 1 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE); c3_1 = thimble_load_n(c + 3 * cs + 1 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE); c4_1 = thimble_load_n(c + 4 * cs + 1 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE); c5_1 = thimble_load_n(c + 5 * cs + 1 * NATIVE);
  } else {
    c0_0 = (vn){0}; c0_1 = (vn){0};
    c1_0 = (vn){0}; c1_1 = (vn){0};
    c2_0 = (vn){0}; c2_1 = (vn){0};
    c3_0 = (vn){0}; c3_1 = (vn){0};
    c4_0 = (vn){0}; c4_1 = (vn){0};
    c5_0 = (vn){0}; c5_1 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_float_alias* a0 = (const thimble_float_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_float_alias* a1 = (const thimble_float_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_float_alias* a2 = (const thimble_float_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_float_alias* a3 = (const thimble_float_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_float_alias* a4 = (const thimble_float_alias*)part->left + (valid > 4 ? 4 : valid - 1) * part->apart;
    const thimble_float_alias* a5 = (const thimble_float_alias*)part->left + (valid > 5 ? 5 : valid - 1) * part->apart;
    const thimble_float_alias* q = (const thimble_float_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE), b1 = thimble_load_n(q + 1 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_n(a0[i]); c0_0 = thimble_fma_n(x, b0, c0_0); c0_1 = thimble_fma_n(x, b1, c0_1);
      x = thimble_splat_n(a1[i]); c1_0 = thimble_fma_n(x, b0, c1_0); c1_1 = thimble_fma_n(x, b1, c1_1);
      x = thimble_splat_n(a2[i]); c2_0 = thimble_fma_n(x, b0, c2_0); c2_1 = thimble_fma_n(x, b1, c2_1);
      x = thimble_splat_n(a3[i]); c3_0 = thimble_fma_n(x, b0, c3_0); c3_1 = thimble_fma_n(x, b1, c3_1);
      x = thimble_splat_n(a4[i]); c4_0 = thimble_fma_n(x, b0, c4_0); c4_1 = thimble_fma_n(x, b1, c4_1);
      x = thimble_splat_n(a5[i]); c5_0 = thimble_fma_n(x, b0, c5_0); c5_1 = thimble_fma_n(x, b1, c5_1);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0); thimble_store_n(c + 0 * cs + 1 * NATIVE, c0_1);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0); thimble_store_n(c + 1 * cs + 1 * NATIVE, c1_1);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0); thimble_store_n(c + 2 * cs + 1 * NATIVE, c2_1);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0); thimble_store_n(c + 3 * cs + 1 * NATIVE, c3_1);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0); thimble_store_n(c + 4 * cs + 1 * NATIVE, c4_1);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0); thimble_store_n(c + 5 * cs + 1 * NATIVE, c5_1);
}
static __attribute__((noinline, unused)) void thimble_micro_f32_6x3(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c0_1, c0_2, c1_0, c1_1, c1_2, c2_0, c2_1, c2_2, c3_0, c3_1, c3_2, c4_0, c4_1, c4_2, c5_0, c5_1, c5_2;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE); c0_1 = thimble_load_n(c + 0 * cs + 1 * NATIVE); c0_2 = thimble_load_n(c + 0 * cs + 2 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE); c1_1 = thimble_load_n(c + 1 * cs + 1 * NATIVE); c1_2 = thimble_load_n(c + 1 * cs + 2 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE); c2_1 = thimble_load_n(c + 2 * cs + 1 * NATIVE); c2_2 = thimble_load_n(c + 2 * cs + 2 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE); c3_1 = thimble_load_n(c + 3 * cs + 1 * NATIVE); c3_2 = thimble_load_n(c + 3 * cs + 2 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE); c4_1 = thimble_load_n(c + 4 * cs + 1 * NATIVE); c4_2 = thimble_load_n(c + 4 * cs + 2 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE); c5_1 = thimble_load_n(c + 5 * cs + 1 * NATIVE); c5_2 = thimble_load_n(c + 5 * cs + 2 * NATIVE);
  } else {
    c0_0 = (vn){0}; c0_1 = (vn){0}; c0_2 = (vn){0};
    c1_0 = (vn){0}; c1_1 = (vn){0}; c1_2 = (vn){0};
    c2_0 = (vn){0}; c2_1 = (vn){0}; c2_2 = (vn){0};
    c3_0 = (vn){0}; c3_1 = (vn){0}; c3_2 = (vn){0};
    c4_0 = (vn){0}; c4_1 = (vn){0}; c4_2 = (vn){0};
    c5_0 = (vn){0}; c5_1 = (vn){0}; c5_2 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_float_alias* a0 = (const thimble_float_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_float_alias* a1 = (const thimble_float_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_float_alias* a2 = (const thimble_float_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_float_alias* a3 = (const thimble_float_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_float_alias* a4 = (const thimble_float_alias*)part->left + (valid > 4 ? 4 : valid - 1) * part->apart;
    const thimble_float_alias* a5 = (const thimble_float_alias*)part->left + (valid > 5 ? 5 : valid - 1) * part->apart;
    const thimble_float_alias* q = (const thimble_float_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE), b1 = thimble_load_n(q + 1 * NATIVE), b2 = thimble_load_n(q + 2 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_n(a0[i]); c0_0 = thimble_fma_n(x, b0, c0_0); c0_1 = thimble_fma_n(x, b1, c0_1); c0_2 = thimble_fma_n(x, b2, c0_2);
      x = thimble_splat_n(a1[i]); c1_0 = thimble_fma_n(x, b0, c1_0); c1_1 = thimble_fma_n(x, b1, c1_1); c1_2 = thimble_fma_n(x, b2, c1_2);
      x = thimble_splat_n(a2[i]); c2_0 = thimble_fma_n(x, b0, c2_0); c2_1 = thimble_fma_n(x, b1, c2_1); c2_2 = thimble_fma_n(x, b2, c2_2);
      x = thimble_splat_n(a3[i]); c3_0 = thimble_fma_n(x, b0, c3_0); c3_1 = thimble_fma_n(x, b1, c3_1); c3_2 = thimble_fma_n(x, b2, c3_2);
      x = thimble_splat_n(a4[i]); c4_0 = thimble_fma_n(x, b0, c4_0); c4_1 = thimble_fma_n(x, b1, c4_1); c4_2 = thimble_fma_n(x, b2, c4_2);
      x = thimble_splat_n(a5[i]); c5_0 = thimble_fma_n(x, b0, c5_0); c5_1 = thimble_fma_n(x, b1, c5_1); c5_2 = thimble_fma_n(x, b2, c5_2);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0); thimble_store_n(c + 0 * cs + 1 * NATIVE, c0_1); thimble_store_n(c + 0 * cs + 2 * NATIVE, c0_2);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0); thimble_store_n(c + 1 * cs + 1 * NATIVE, c1_1); thimble_store_n(c + 1 * cs + 2 * NATIVE, c1_2);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0); thimble_store_n(c + 2 * cs + 1 * NATIVE, c2_1); thimble_store_n(c + 2 * cs + 2 * NATIVE, c2_2);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0); thimble_store_n(c + 3 * cs + 1 * NATIVE, c3_1); thimble_store_n(c + 3 * cs + 2 * NATIVE, c3_2);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0); thimble_store_n(c + 4 * cs + 1 * NATIVE, c4_1); thimble_store_n(c + 4 * cs + 2 * NATIVE, c4_2);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0); thimble_store_n(c + 5 * cs + 1 * NATIVE, c5_1); thimble_store_n(c + 5 * cs + 2 * NATIVE, c5_2);
}
static __attribute__((noinline, unused)) void thimble_micro_f32_6x4(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c0_1, c0_2, c0_3, c1_0, c1_1, c1_2, c1_3, c2_0, c2_1, c2_2, c2_3, c3_0, c3_1, c3_2, c3_3, c4_0, c4_1, c4_2, c4_3, c5_0, c5_1, c5_2, c5_3;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE); c0_1 = thimble_load_n(c + 0 * cs + 1 * NATIVE); c0_2 = thimble_load_n(c + 0 * cs + 2 * NATIVE); c0_3 = thimble_load_n(c + 0 * cs + 3 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE); c1_1 = thimble_load_n(c + 1 * cs + 1 * NATIVE); c1_2 = thimble_load_n(c + 1 * cs + 2 * NATIVE); c1_3 = thimble_load_n(c + 1 * cs + 3 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE); c2_1 = thimble_load_n(c + 2 * cs + 1 * NATIVE); c2_2 = thimble_load_n(c + 2 * cs + 2 * NATIVE); c2_3 = thimble_load_n(c + 2 * cs + 3 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE); c3_1 = thimble_load_n(c + 3 * cs + 1 * NATIVE); c3_2 = thimble_load_n(c + 3 * cs + 2 * NATIVE); c3_3 = thimble_load_n(c + 3 * cs + 3 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE); c4_1 = thimble_load_n(c + 4 * cs + 1 * NATIVE); c4_2 = thimble_load_n(c + 4 * cs + 2 * NATIVE); c4_3 = thimble_load_n(c + 4 * cs + 3 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE); c5_1 = thimble_load_n(c + 5 * cs + 1 * NATIVE); c5_2 = thimble_load_n(c + 5 * cs + 2 * NATIVE); c5_3 = thimble_load_n(c + 5 * cs + 3 * NATIVE);
  } else {
    c0_0 = (vn){0}; c0_1 = (vn){0}; c0_2 = (vn){0}; c0_3 = (vn){0};
    c1_0 = (vn){0}; c1_1 = (vn){0}; c1_2 = (vn){0}; c1_3 = (vn){0};
    c2_0 = (vn){0}; c2_1 = (vn){0}; c2_2 = (vn){0}; c2_3 = (vn){0};
    c3_0 = (vn){0}; c3_1 = (vn){0}; c3_2 = (vn){0}; c3_3 = (vn){0};
    c4_0 = (vn){0}; c4_1 = (vn){0}; c4_2 = (vn){0}; c4_3 = (vn){0};
    c5_0 = (vn){0}; c5_1 = (vn){0}; c5_2 = (vn){0}; c5_3 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_float_alias* a0 = (const thimble_float_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_float_alias* a1 = (const thimble_float_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_float_alias* a2 = (const thimble_float_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_float_alias* a3 = (const thimble_float_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_float_alias* a4 = (const thimble_float_alias*)part->left + (valid > 4 ? 4 : valid - 1) * part->apart;
    const thimble_float_alias* a5 = (const thimble_float_alias*)part->left + (valid > 5 ? 5 : valid - 1) * part->apart;
    const thimble_float_alias* q = (const thimble_float_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE), b1 = thimble_load_n(q + 1 * NATIVE), b2 = thimble_load_n(q + 2 * NATIVE), b3 = thimble_load_n(q + 3 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_n(a0[i]); c0_0 = thimble_fma_n(x, b0, c0_0); c0_1 = thimble_fma_n(x, b1, c0_1); c0_2 = thimble_fma_n(x, b2, c0_2); c0_3 = thimble_fma_n(x, b3, c0_3);
      x = thimble_splat_n(a1[i]); c1_0 = thimble_fma_n(x, b0, c1_0); c1_1 = thimble_fma_n(x, b1, c1_1); c1_2 = thimble_fma_n(x, b2, c1_2); c1_3 = thimble_fma_n(x, b3, c1_3);
      x = thimble_splat_n(a2[i]); c2_0 = thimble_fma_n(x, b0, c2_0); c2_1 = thimble_fma_n(x, b1, c2_1); c2_2 = thimble_fma_n(x, b2, c2_2); c2_3 = thimble_fma_n(x, b3, c2_3);
      x = thimble_splat_n(a3[i]); c3_0 = thimble_fma_n(x, b0, c3_0); c3_1 = thimble_fma_n(x, b1, c3_1); c3_2 = thimble_fma_n(x, b2, c3_2); c3_3 = thimble_fma_n(x, b3, c3_3);
      x = thimble_splat_n(a4[i]); c4_0 = thimble_fma_n(x, b0, c4_0); c4_1 = thimble_fma_n(x, b1, c4_1); c4_2 = thimble_fma_n(x, b2, c4_2); c4_3 = thimble_fma_n(x, b3, c4_3);
      x = thimble_splat_n(a5[i]); c5_0 = thimble_fma_n(x, b0, c5_0); c5_1 = thimble_fma_n(x, b1, c5_1); c5_2 = thimble_fma_n(x, b2, c5_2); c5_3 = thimble_fma_n(x, b3, c5_3);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0); thimble_store_n(c + 0 * cs + 1 * NATIVE, c0_1); thimble_store_n(c + 0 * cs + 2 * NATIVE, c0_2); thimble_store_n(c + 0 * cs + 3 * NATIVE, c0_3);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0); thimble_store_n(c + 1 * cs + 1 * NATIVE, c1_1); thimble_store_n(c + 1 * cs + 2 * NATIVE, c1_2); thimble_store_n(c + 1 * cs + 3 * NATIVE, c1_3);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0); thimble_store_n(c + 2 * cs + 1 * NATIVE, c2_1); thimble_store_n(c + 2 * cs + 2 * NATIVE, c2_2); thimble_store_n(c + 2 * cs + 3 * NATIVE, c2_3);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0); thimble_store_n(c + 3 * cs + 1 * NATIVE, c3_1); thimble_store_n(c + 3 * cs + 2 * NATIVE, c3_2); thimble_store_n(c + 3 * cs + 3 * NATIVE, c3_3);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0); thimble_store_n(c + 4 * cs + 1 * NATIVE, c4_1); thimble_store_n(c + 4 * cs + 2 * NATIVE, c4_2); thimble_store_n(c + 4 * cs + 3 * NATIVE, c4_3);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0); thimble_store_n(c + 5 * cs + 1 * NATIVE, c5_1); thimble_store_n(c + 5 * cs + 2 * NATIVE, c5_2); thimble_store_n(c + 5 * cs + 3 * NATIVE, c5_3);
}
static __attribute__((noinline, unused)) void thimble_micro_f32_4x4(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c0_1, c0_2, c0_3, c1_0, c1_1, c1_2, c1_3, c2_0, c2_1, c2_2, c2_3, c3_0, c3_1, c3_2, c3_3;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE); c0_1 = thimble_load_n(c + 0 * cs + 1 * NATIVE); c0_2 = thimble_load_n(c + 0 * cs + 2 * NATIVE); c0_3 = thimble_load_n(c + 0 * cs + 3 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE); c1_1 = thimble_load_n(c + 1 * cs + 1 * NATIVE); c1_2 = thimble_load_n(c + 1 * cs + 2 * NATIVE); c1_3 = thimble_load_n(c + 1 * cs + 3 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE); c2_1 = thimble_load_n(c + 2 * cs + 1 * NATIVE); c2_2 = thimble_load_n(c + 2 * cs + 2 * NATIVE); c2_3 = thimble_load_n(c + 2 * cs + 3 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE); c3_1 = thimble_load_n(c + 3 * cs + 1 * NATIVE); c3_2 = thimble_load_n(c + 3 * cs + 2 * NATIVE); c3_3 = thimble_load_n(c + 3 * cs + 3 * NATIVE);
  } else {
    c0_0 = (vn){0}; c0_1 = (vn){0}; c0_2 = (vn){0}; c0_3 = (vn){0};
    c1_0 = (vn){0}; c1_1 = (vn){0}; c1_2 = (vn){0}; c1_3 = (vn){0};
    c2_0 = (vn){0}; c2_1 = (vn){0}; c2_2 = (vn){0}; c2_3 = (vn){0};
    c3_0 = (vn){0}; c3_1 = (vn){0}; c3_2 = (vn){0}; c3_3 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_float_alias* a0 = (const thimble_float_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_float_alias* a1 = (const thimble_float_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_float_alias* a2 = (const thimble_float_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_float_alias* a3 = (const thimble_float_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_float_alias* q = (const thimble_float_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE), b1 = thimble_load_n(q + 1 * NATIVE), b2 = thimble_load_n(q + 2 * NATIVE), b3 = thimble_load_n(q + 3 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_n(a0[i]); c0_0 = thimble_fma_n(x, b0, c0_0); c0_1 = thimble_fma_n(x, b1, c0_1); c0_2 = thimble_fma_n(x, b2, c0_2); c0_3 = thimble_fma_n(x, b3, c0_3);
      x = thimble_splat_n(a1[i]); c1_0 = thimble_fma_n(x, b0, c1_0); c1_1 = thimble_fma_n(x, b1, c1_1); c1_2 = thimble_fma_n(x, b2, c1_2); c1_3 = thimble_fma_n(x, b3, c1_3);
      x = thimble_splat_n(a2[i]); c2_0 = thimble_fma_n(x, b0, c2_0); c2_1 = thimble_fma_n(x, b1, c2_1); c2_2 = thimble_fma_n(x, b2, c2_2); c2_3 = thimble_fma_n(x, b3, c2_3);
      x = thimble_splat_n(a3[i]); c3_0 = thimble_fma_n(x, b0, c3_0); c3_1 = thimble_fma_n(x, b1, c3_1); c3_2 = thimble_fma_n(x, b2, c3_2); c3_3 = thimble_fma_n(x, b3, c3_3);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0); thimble_store_n(c + 0 * cs + 1 * NATIVE, c0_1); thimble_store_n(c + 0 * cs + 2 * NATIVE, c0_2); thimble_store_n(c + 0 * cs + 3 * NATIVE, c0_3);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0); thimble_store_n(c + 1 * cs + 1 * NATIVE, c1_1); thimble_store_n(c + 1 * cs + 2 * NATIVE, c1_2); thimble_store_n(c + 1 * cs + 3 * NATIVE, c1_3);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0); thimble_store_n(c + 2 * cs + 1 * NATIVE, c2_1); thimble_store_n(c + 2 * cs + 2 * NATIVE, c2_2); thimble_store_n(c + 2 * cs + 3 * NATIVE, c2_3);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0); thimble_store_n(c + 3 * cs + 1 * NATIVE, c3_1); thimble_store_n(c + 3 * cs + 2 * NATIVE, c3_2); thimble_store_n(c + 3 * cs + 3 * NATIVE, c3_3);
}
static __attribute__((noinline, unused)) void thimble_micro_f32_12x1(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c1_0, c2_0, c3_0, c4_0, c5_0, c6_0, c7_0, c8_0, c9_0, c10_0, c11_0;
  (void)valid;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE);
    c6_0 = thimble_load_n(c + 6 * cs + 0 * NATIVE);
    c7_0 = thimble_load_n(c + 7 * cs + 0 * NATIVE);
    c8_0 = thimble_load_n(c + 8 * cs + 0 * NATIVE);
    c9_0 = thimble_load_n(c + 9 * cs + 0 * NATIVE);
    c10_0 = thimble_load_n(c + 10 * cs + 0 * NATIVE);
    c11_0 = thimble_load_n(c + 11 * cs + 0 * NATIVE);
  } else {
    c0_0 = (vn){0};
    c1_0 = (vn){0};
    c2_0 = (vn){0};
    c3_0 = (vn){0};
    c4_0 = (vn){0};
    c5_0 = (vn){0};
    c6_0 = (vn){0};
    c7_0 = (vn){0};
    c8_0 = (vn){0};
    c9_0 = (vn){0};
    c10_0 = (vn){0};
    c11_0 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_float_alias* a0 = (const thimble_float_alias*)part->left + 0 * part->apart;
    const thimble_float_alias* a3 = (const thimble_float_alias*)part->left + 3 * part->apart;
    const thimble_float_alias* a6 = (const thimble_float_alias*)part->left + 6 * part->apart;
    const thimble_float_alias* a9 = (const thimble_float_alias*)part->left + 9 * part->apart;
    const thimble_float_alias* q = (const thimble_float_alias*)part->panel;
    const char *first = part->first;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    int64_t i0 = 0, i1 = part->apart, i2 = 2 * part->apart;
    for (; i0 < end; i0 += step, i1 += step, i2 += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      x = thimble_splat_n(a0[i0]); c0_0 = thimble_fma_n(x, b0, c0_0);
      x = thimble_splat_n(a0[i1]); c1_0 = thimble_fma_n(x, b0, c1_0);
      x = thimble_splat_n(a0[i2]); c2_0 = thimble_fma_n(x, b0, c2_0);
      x = thimble_splat_n(a3[i0]); c3_0 = thimble_fma_n(x, b0, c3_0);
      x = thimble_splat_n(a3[i1]); c4_0 = thimble_fma_n(x, b0, c4_0);
      x = thimble_splat_n(a3[i2]); c5_0 = thimble_fma_n(x, b0, c5_0);
      x = thimble_splat_n(a6[i0]); c6_0 = thimble_fma_n(x, b0, c6_0);
      x = thimble_splat_n(a6[i1]); c7_0 = thimble_fma_n(x, b0, c7_0);
      x = thimble_splat_n(a6[i2]); c8_0 = thimble_fma_n(x, b0, c8_0);
      x = thimble_splat_n(a9[i0]); c9_0 = thimble_fma_n(x, b0, c9_0);
      x = thimble_splat_n(a9[i1]); c10_0 = thimble_fma_n(x, b0, c10_0);
      x = thimble_splat_n(a9[i2]); c11_0 = thimble_fma_n(x, b0, c11_0);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0);
    thimble_store_n(c + 6 * cs + 0 * NATIVE, c6_0);
    thimble_store_n(c + 7 * cs + 0 * NATIVE, c7_0);
    thimble_store_n(c + 8 * cs + 0 * NATIVE, c8_0);
    thimble_store_n(c + 9 * cs + 0 * NATIVE, c9_0);
    thimble_store_n(c + 10 * cs + 0 * NATIVE, c10_0);
    thimble_store_n(c + 11 * cs + 0 * NATIVE, c11_0);
}
#elif NATIVE == 8
static __attribute__((noinline, unused)) void thimble_micro_f32_6x2(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c0_1, c1_0, c1_1, c2_0, c2_1, c3_0, c3_1, c4_0, c4_1, c5_0, c5_1;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE); c0_1 = thimble_load_n(c + 0 * cs + 1 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE); c1_1 = thimble_load_n(c + 1 * cs + 1 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE); c2_1 = thimble_load_n(c + 2 * cs + 1 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE); c3_1 = thimble_load_n(c + 3 * cs + 1 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE); c4_1 = thimble_load_n(c + 4 * cs + 1 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE); c5_1 = thimble_load_n(c + 5 * cs + 1 * NATIVE);
  } else {
    c0_0 = (vn){0}; c0_1 = (vn){0};
    c1_0 = (vn){0}; c1_1 = (vn){0};
    c2_0 = (vn){0}; c2_1 = (vn){0};
    c3_0 = (vn){0}; c3_1 = (vn){0};
    c4_0 = (vn){0}; c4_1 = (vn){0};
    c5_0 = (vn){0}; c5_1 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_float_alias* a0 = (const thimble_float_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_float_alias* a1 = (const thimble_float_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_float_alias* a2 = (const thimble_float_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_float_alias* a3 = (const thimble_float_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_float_alias* a4 = (const thimble_float_alias*)part->left + (valid > 4 ? 4 : valid - 1) * part->apart;
    const thimble_float_alias* a5 = (const thimble_float_alias*)part->left + (valid > 5 ? 5 : valid - 1) * part->apart;
    const thimble_float_alias* q = (const thimble_float_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE), b1 = thimble_load_n(q + 1 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_n(a0[i]); c0_0 = thimble_fma_n(x, b0, c0_0); c0_1 = thimble_fma_n(x, b1, c0_1);
      x = thimble_splat_n(a1[i]); c1_0 = thimble_fma_n(x, b0, c1_0); c1_1 = thimble_fma_n(x, b1, c1_1);
      x = thimble_splat_n(a2[i]); c2_0 = thimble_fma_n(x, b0, c2_0); c2_1 = thimble_fma_n(x, b1, c2_1);
      x = thimble_splat_n(a3[i]); c3_0 = thimble_fma_n(x, b0, c3_0); c3_1 = thimble_fma_n(x, b1, c3_1);
      x = thimble_splat_n(a4[i]); c4_0 = thimble_fma_n(x, b0, c4_0); c4_1 = thimble_fma_n(x, b1, c4_1);
      x = thimble_splat_n(a5[i]); c5_0 = thimble_fma_n(x, b0, c5_0); c5_1 = thimble_fma_n(x, b1, c5_1);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0); thimble_store_n(c + 0 * cs + 1 * NATIVE, c0_1);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0); thimble_store_n(c + 1 * cs + 1 * NATIVE, c1_1);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0); thimble_store_n(c + 2 * cs + 1 * NATIVE, c2_1);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0); thimble_store_n(c + 3 * cs + 1 * NATIVE, c3_1);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0); thimble_store_n(c + 4 * cs + 1 * NATIVE, c4_1);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0); thimble_store_n(c + 5 * cs + 1 * NATIVE, c5_1);
}
#else
static __attribute__((noinline, unused)) void thimble_micro_f32_6x4(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c0_1, c0_2, c0_3, c1_0, c1_1, c1_2, c1_3, c2_0, c2_1, c2_2, c2_3, c3_0, c3_1, c3_2, c3_3, c4_0, c4_1, c4_2, c4_3, c5_0, c5_1, c5_2, c5_3;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE); c0_1 = thimble_load_n(c + 0 * cs + 1 * NATIVE); c0_2 = thimble_load_n(c + 0 * cs + 2 * NATIVE); c0_3 = thimble_load_n(c + 0 * cs + 3 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE); c1_1 = thimble_load_n(c + 1 * cs + 1 * NATIVE); c1_2 = thimble_load_n(c + 1 * cs + 2 * NATIVE); c1_3 = thimble_load_n(c + 1 * cs + 3 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE); c2_1 = thimble_load_n(c + 2 * cs + 1 * NATIVE); c2_2 = thimble_load_n(c + 2 * cs + 2 * NATIVE); c2_3 = thimble_load_n(c + 2 * cs + 3 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE); c3_1 = thimble_load_n(c + 3 * cs + 1 * NATIVE); c3_2 = thimble_load_n(c + 3 * cs + 2 * NATIVE); c3_3 = thimble_load_n(c + 3 * cs + 3 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE); c4_1 = thimble_load_n(c + 4 * cs + 1 * NATIVE); c4_2 = thimble_load_n(c + 4 * cs + 2 * NATIVE); c4_3 = thimble_load_n(c + 4 * cs + 3 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE); c5_1 = thimble_load_n(c + 5 * cs + 1 * NATIVE); c5_2 = thimble_load_n(c + 5 * cs + 2 * NATIVE); c5_3 = thimble_load_n(c + 5 * cs + 3 * NATIVE);
  } else {
    c0_0 = (vn){0}; c0_1 = (vn){0}; c0_2 = (vn){0}; c0_3 = (vn){0};
    c1_0 = (vn){0}; c1_1 = (vn){0}; c1_2 = (vn){0}; c1_3 = (vn){0};
    c2_0 = (vn){0}; c2_1 = (vn){0}; c2_2 = (vn){0}; c2_3 = (vn){0};
    c3_0 = (vn){0}; c3_1 = (vn){0}; c3_2 = (vn){0}; c3_3 = (vn){0};
    c4_0 = (vn){0}; c4_1 = (vn){0}; c4_2 = (vn){0}; c4_3 = (vn){0};
    c5_0 = (vn){0}; c5_1 = (vn){0}; c5_2 = (vn){0}; c5_3 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_float_alias* a0 = (const thimble_float_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_float_alias* a1 = (const thimble_float_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_float_alias* a2 = (const thimble_float_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_float_alias* a3 = (const thimble_float_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_float_alias* a4 = (const thimble_float_alias*)part->left + (valid > 4 ? 4 : valid - 1) * part->apart;
    const thimble_float_alias* a5 = (const thimble_float_alias*)part->left + (valid > 5 ? 5 : valid - 1) * part->apart;
    const thimble_float_alias* q = (const thimble_float_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE), b1 = thimble_load_n(q + 1 * NATIVE), b2 = thimble_load_n(q + 2 * NATIVE), b3 = thimble_load_n(q + 3 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_n(a0[i]); c0_0 = thimble_fma_n(x, b0, c0_0); c0_1 = thimble_fma_n(x, b1, c0_1); c0_2 = thimble_fma_n(x, b2, c0_2); c0_3 = thimble_fma_n(x, b3, c0_3);
      x = thimble_splat_n(a1[i]); c1_0 = thimble_fma_n(x, b0, c1_0); c1_1 = thimble_fma_n(x, b1, c1_1); c1_2 = thimble_fma_n(x, b2, c1_2); c1_3 = thimble_fma_n(x, b3, c1_3);
      x = thimble_splat_n(a2[i]); c2_0 = thimble_fma_n(x, b0, c2_0); c2_1 = thimble_fma_n(x, b1, c2_1); c2_2 = thimble_fma_n(x, b2, c2_2); c2_3 = thimble_fma_n(x, b3, c2_3);
      x = thimble_splat_n(a3[i]); c3_0 = thimble_fma_n(x, b0, c3_0); c3_1 = thimble_fma_n(x, b1, c3_1); c3_2 = thimble_fma_n(x, b2, c3_2); c3_3 = thimble_fma_n(x, b3, c3_3);
      x = thimble_splat_n(a4[i]); c4_0 = thimble_fma_n(x, b0, c4_0); c4_1 = thimble_fma_n(x, b1, c4_1); c4_2 = thimble_fma_n(x, b2, c4_2); c4_3 = thimble_fma_n(x, b3, c4_3);
      x = thimble_splat_n(a5[i]); c5_0 = thimble_fma_n(x, b0, c5_0); c5_1 = thimble_fma_n(x, b1, c5_1); c5_2 = thimble_fma_n(x, b2, c5_2); c5_3 = thimble_fma_n(x, b3, c5_3);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0); thimble_store_n(c + 0 * cs + 1 * NATIVE, c0_1); thimble_store_n(c + 0 * cs + 2 * NATIVE, c0_2); thimble_store_n(c + 0 * cs + 3 * NATIVE, c0_3);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0); thimble_store_n(c + 1 * cs + 1 * NATIVE, c1_1); thimble_store_n(c + 1 * cs + 2 * NATIVE, c1_2); thimble_store_n(c + 1 * cs + 3 * NATIVE, c1_3);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0); thimble_store_n(c + 2 * cs + 1 * NATIVE, c2_1); thimble_store_n(c + 2 * cs + 2 * NATIVE, c2_2); thimble_store_n(c + 2 * cs + 3 * NATIVE, c2_3);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0); thimble_store_n(c + 3 * cs + 1 * NATIVE, c3_1); thimble_store_n(c + 3 * cs + 2 * NATIVE, c3_2); thimble_store_n(c + 3 * cs + 3 * NATIVE, c3_3);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0); thimble_store_n(c + 4 * cs + 1 * NATIVE, c4_1); thimble_store_n(c + 4 * cs + 2 * NATIVE, c4_2); thimble_store_n(c + 4 * cs + 3 * NATIVE, c4_3);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0); thimble_store_n(c + 5 * cs + 1 * NATIVE, c5_1); thimble_store_n(c + 5 * cs + 2 * NATIVE, c5_2); thimble_store_n(c + 5 * cs + 3 * NATIVE, c5_3);
}
#endif
static __attribute__((noinline, unused)) void thimble_micro_f32(
    int width, int rows, int count, const thimble_part* parts, float* c, int64_t cs, int accumulate) {
#if NATIVE == 16
  if (width > 48) {
    if (rows > 4) thimble_micro_f32_6x4(rows, count, parts, c, cs, accumulate);
    else thimble_micro_f32_4x4(rows, count, parts, c, cs, accumulate);
  } else if (width > 32) thimble_micro_f32_6x3(rows, count, parts, c, cs, accumulate);
  else if (width > 16) thimble_micro_f32_6x2(rows, count, parts, c, cs, accumulate);
  else if (rows > 6) thimble_micro_f32_12x1(rows, count, parts, c, cs, accumulate);
  else thimble_micro_f32_6x1(rows, count, parts, c, cs, accumulate);
#elif NATIVE == 8
  (void)width;
  thimble_micro_f32_6x2(rows, count, parts, c, cs, accumulate);
#else
  (void)width;
  thimble_micro_f32_6x4(rows, count, parts, c, cs, accumulate);
#endif
}
static __attribute__((noinline, unused)) void thimble_micro_f32_row(
    int width, int64_t k, const void* a, int64_t as, int rows, const void* b, int64_t bs, float* c, int64_t cs, int accumulate) {
  const thimble_part part = {.left = a, .panel = b, .first = (const char*)b, .second = (const char*)b, .units = k, .apart = as, .step = 1, .pitch = bs};
  thimble_micro_f32(width, rows, 1, &part, c, cs, accumulate);
}
static __attribute__((noinline, unused)) void thimble_micro_f32_strip(
    int width, int64_t k, const void* a, int64_t as, int rows, const void* b, int64_t bs, float* c, int64_t cs, int accumulate) {
  const thimble_part part = {.left = a, .panel = b, .first = (const char*)b, .second = (const char*)b, .units = k, .apart = 1, .step = as, .pitch = bs};
  thimble_micro_f32(width, rows, 1, &part, c, cs, accumulate);
}
#ifdef HAS_BF16_DOT
#if NATIVE == 16
static __attribute__((noinline, unused)) void thimble_micro_dot_6x1(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c1_0, c2_0, c3_0, c4_0, c5_0;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE);
  } else {
    c0_0 = (vn){0};
    c1_0 = (vn){0};
    c2_0 = (vn){0};
    c3_0 = (vn){0};
    c4_0 = (vn){0};
    c5_0 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_word_alias* a0 = (const thimble_word_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_word_alias* a1 = (const thimble_word_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_word_alias* a2 = (const thimble_word_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_word_alias* a3 = (const thimble_word_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_word_alias* a4 = (const thimble_word_alias*)part->left + (valid > 4 ? 4 : valid - 1) * part->apart;
    const thimble_word_alias* a5 = (const thimble_word_alias*)part->left + (valid > 5 ? 5 : valid - 1) * part->apart;
    const thimble_word_alias* q = (const thimble_word_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_pair(a0[i]); c0_0 = thimble_dot_n(x, b0, c0_0);
      x = thimble_splat_pair(a1[i]); c1_0 = thimble_dot_n(x, b0, c1_0);
      x = thimble_splat_pair(a2[i]); c2_0 = thimble_dot_n(x, b0, c2_0);
      x = thimble_splat_pair(a3[i]); c3_0 = thimble_dot_n(x, b0, c3_0);
      x = thimble_splat_pair(a4[i]); c4_0 = thimble_dot_n(x, b0, c4_0);
      x = thimble_splat_pair(a5[i]); c5_0 = thimble_dot_n(x, b0, c5_0);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0);
}
static __attribute__((noinline, unused)) void thimble_micro_dot_6x2(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c0_1, c1_0, c1_1, c2_0, c2_1, c3_0, c3_1, c4_0, c4_1, c5_0, c5_1;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE); c0_1 = thimble_load_n(c + 0 * cs + 1 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE); c1_1 = thimble_load_n(c + 1 * cs + 1 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE); c2_1 = thimble_load_n(c + 2 * cs + 1 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE); c3_1 = thimble_load_n(c + 3 * cs + 1 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE); c4_1 = thimble_load_n(c + 4 * cs + 1 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE); c5_1 = thimble_load_n(c + 5 * cs + 1 * NATIVE);
  } else {
    c0_0 = (vn){0}; c0_1 = (vn){0};
    c1_0 = (vn){0}; c1_1 = (vn){0};
    c2_0 = (vn){0}; c2_1 = (vn){0};
    c3_0 = (vn){0}; c3_1 = (vn){0};
    c4_0 = (vn){0}; c4_1 = (vn){0};
    c5_0 = (vn){0}; c5_1 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_word_alias* a0 = (const thimble_word_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_word_alias* a1 = (const thimble_word_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_word_alias* a2 = (const thimble_word_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_word_alias* a3 = (const thimble_word_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_word_alias* a4 = (const thimble_word_alias*)part->left + (valid > 4 ? 4 : valid - 1) * part->apart;
    const thimble_word_alias* a5 = (const thimble_word_alias*)part->left + (valid > 5 ? 5 : valid - 1) * part->apart;
    const thimble_word_alias* q = (const thimble_word_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE), b1 = thimble_load_n(q + 1 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_pair(a0[i]); c0_0 = thimble_dot_n(x, b0, c0_0); c0_1 = thimble_dot_n(x, b1, c0_1);
      x = thimble_splat_pair(a1[i]); c1_0 = thimble_dot_n(x, b0, c1_0); c1_1 = thimble_dot_n(x, b1, c1_1);
      x = thimble_splat_pair(a2[i]); c2_0 = thimble_dot_n(x, b0, c2_0); c2_1 = thimble_dot_n(x, b1, c2_1);
      x = thimble_splat_pair(a3[i]); c3_0 = thimble_dot_n(x, b0, c3_0); c3_1 = thimble_dot_n(x, b1, c3_1);
      x = thimble_splat_pair(a4[i]); c4_0 = thimble_dot_n(x, b0, c4_0); c4_1 = thimble_dot_n(x, b1, c4_1);
      x = thimble_splat_pair(a5[i]); c5_0 = thimble_dot_n(x, b0, c5_0); c5_1 = thimble_dot_n(x, b1, c5_1);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0); thimble_store_n(c + 0 * cs + 1 * NATIVE, c0_1);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0); thimble_store_n(c + 1 * cs + 1 * NATIVE, c1_1);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0); thimble_store_n(c + 2 * cs + 1 * NATIVE, c2_1);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0); thimble_store_n(c + 3 * cs + 1 * NATIVE, c3_1);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0); thimble_store_n(c + 4 * cs + 1 * NATIVE, c4_1);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0); thimble_store_n(c + 5 * cs + 1 * NATIVE, c5_1);
}
static __attribute__((noinline, unused)) void thimble_micro_dot_6x3(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c0_1, c0_2, c1_0, c1_1, c1_2, c2_0, c2_1, c2_2, c3_0, c3_1, c3_2, c4_0, c4_1, c4_2, c5_0, c5_1, c5_2;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE); c0_1 = thimble_load_n(c + 0 * cs + 1 * NATIVE); c0_2 = thimble_load_n(c + 0 * cs + 2 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE); c1_1 = thimble_load_n(c + 1 * cs + 1 * NATIVE); c1_2 = thimble_load_n(c + 1 * cs + 2 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE); c2_1 = thimble_load_n(c + 2 * cs + 1 * NATIVE); c2_2 = thimble_load_n(c + 2 * cs + 2 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE); c3_1 = thimble_load_n(c + 3 * cs + 1 * NATIVE); c3_2 = thimble_load_n(c + 3 * cs + 2 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE); c4_1 = thimble_load_n(c + 4 * cs + 1 * NATIVE); c4_2 = thimble_load_n(c + 4 * cs + 2 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE); c5_1 = thimble_load_n(c + 5 * cs + 1 * NATIVE); c5_2 = thimble_load_n(c + 5 * cs + 2 * NATIVE);
  } else {
    c0_0 = (vn){0}; c0_1 = (vn){0}; c0_2 = (vn){0};
    c1_0 = (vn){0}; c1_1 = (vn){0}; c1_2 = (vn){0};
    c2_0 = (vn){0}; c2_1 = (vn){0}; c2_2 = (vn){0};
    c3_0 = (vn){0}; c3_1 = (vn){0}; c3_2 = (vn){0};
    c4_0 = (vn){0}; c4_1 = (vn){0}; c4_2 = (vn){0};
    c5_0 = (vn){0}; c5_1 = (vn){0}; c5_2 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_word_alias* a0 = (const thimble_word_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_word_alias* a1 = (const thimble_word_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_word_alias* a2 = (const thimble_word_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_word_alias* a3 = (const thimble_word_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_word_alias* a4 = (const thimble_word_alias*)part->left + (valid > 4 ? 4 : valid - 1) * part->apart;
    const thimble_word_alias* a5 = (const thimble_word_alias*)part->left + (valid > 5 ? 5 : valid - 1) * part->apart;
    const thimble_word_alias* q = (const thimble_word_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE), b1 = thimble_load_n(q + 1 * NATIVE), b2 = thimble_load_n(q + 2 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_pair(a0[i]); c0_0 = thimble_dot_n(x, b0, c0_0); c0_1 = thimble_dot_n(x, b1, c0_1); c0_2 = thimble_dot_n(x, b2, c0_2);
      x = thimble_splat_pair(a1[i]); c1_0 = thimble_dot_n(x, b0, c1_0); c1_1 = thimble_dot_n(x, b1, c1_1); c1_2 = thimble_dot_n(x, b2, c1_2);
      x = thimble_splat_pair(a2[i]); c2_0 = thimble_dot_n(x, b0, c2_0); c2_1 = thimble_dot_n(x, b1, c2_1); c2_2 = thimble_dot_n(x, b2, c2_2);
      x = thimble_splat_pair(a3[i]); c3_0 = thimble_dot_n(x, b0, c3_0); c3_1 = thimble_dot_n(x, b1, c3_1); c3_2 = thimble_dot_n(x, b2, c3_2);
      x = thimble_splat_pair(a4[i]); c4_0 = thimble_dot_n(x, b0, c4_0); c4_1 = thimble_dot_n(x, b1, c4_1); c4_2 = thimble_dot_n(x, b2, c4_2);
      x = thimble_splat_pair(a5[i]); c5_0 = thimble_dot_n(x, b0, c5_0); c5_1 = thimble_dot_n(x, b1, c5_1); c5_2 = thimble_dot_n(x, b2, c5_2);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0); thimble_store_n(c + 0 * cs + 1 * NATIVE, c0_1); thimble_store_n(c + 0 * cs + 2 * NATIVE, c0_2);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0); thimble_store_n(c + 1 * cs + 1 * NATIVE, c1_1); thimble_store_n(c + 1 * cs + 2 * NATIVE, c1_2);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0); thimble_store_n(c + 2 * cs + 1 * NATIVE, c2_1); thimble_store_n(c + 2 * cs + 2 * NATIVE, c2_2);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0); thimble_store_n(c + 3 * cs + 1 * NATIVE, c3_1); thimble_store_n(c + 3 * cs + 2 * NATIVE, c3_2);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0); thimble_store_n(c + 4 * cs + 1 * NATIVE, c4_1); thimble_store_n(c + 4 * cs + 2 * NATIVE, c4_2);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0); thimble_store_n(c + 5 * cs + 1 * NATIVE, c5_1); thimble_store_n(c + 5 * cs + 2 * NATIVE, c5_2);
}
static __attribute__((noinline, unused)) void thimble_micro_dot_6x4(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c0_1, c0_2, c0_3, c1_0, c1_1, c1_2, c1_3, c2_0, c2_1, c2_2, c2_3, c3_0, c3_1, c3_2, c3_3, c4_0, c4_1, c4_2, c4_3, c5_0, c5_1, c5_2, c5_3;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE); c0_1 = thimble_load_n(c + 0 * cs + 1 * NATIVE); c0_2 = thimble_load_n(c + 0 * cs + 2 * NATIVE); c0_3 = thimble_load_n(c + 0 * cs + 3 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE); c1_1 = thimble_load_n(c + 1 * cs + 1 * NATIVE); c1_2 = thimble_load_n(c + 1 * cs + 2 * NATIVE); c1_3 = thimble_load_n(c + 1 * cs + 3 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE); c2_1 = thimble_load_n(c + 2 * cs + 1 * NATIVE); c2_2 = thimble_load_n(c + 2 * cs + 2 * NATIVE); c2_3 = thimble_load_n(c + 2 * cs + 3 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE); c3_1 = thimble_load_n(c + 3 * cs + 1 * NATIVE); c3_2 = thimble_load_n(c + 3 * cs + 2 * NATIVE); c3_3 = thimble_load_n(c + 3 * cs + 3 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE); c4_1 = thimble_load_n(c + 4 * cs + 1 * NATIVE); c4_2 = thimble_load_n(c + 4 * cs + 2 * NATIVE); c4_3 = thimble_load_n(c + 4 * cs + 3 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE); c5_1 = thimble_load_n(c + 5 * cs + 1 * NATIVE); c5_2 = thimble_load_n(c + 5 * cs + 2 * NATIVE); c5_3 = thimble_load_n(c + 5 * cs + 3 * NATIVE);
  } else {
    c0_0 = (vn){0}; c0_1 = (vn){0}; c0_2 = (vn){0}; c0_3 = (vn){0};
    c1_0 = (vn){0}; c1_1 = (vn){0}; c1_2 = (vn){0}; c1_3 = (vn){0};
    c2_0 = (vn){0}; c2_1 = (vn){0}; c2_2 = (vn){0}; c2_3 = (vn){0};
    c3_0 = (vn){0}; c3_1 = (vn){0}; c3_2 = (vn){0}; c3_3 = (vn){0};
    c4_0 = (vn){0}; c4_1 = (vn){0}; c4_2 = (vn){0}; c4_3 = (vn){0};
    c5_0 = (vn){0}; c5_1 = (vn){0}; c5_2 = (vn){0}; c5_3 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_word_alias* a0 = (const thimble_word_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_word_alias* a1 = (const thimble_word_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_word_alias* a2 = (const thimble_word_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_word_alias* a3 = (const thimble_word_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_word_alias* a4 = (const thimble_word_alias*)part->left + (valid > 4 ? 4 : valid - 1) * part->apart;
    const thimble_word_alias* a5 = (const thimble_word_alias*)part->left + (valid > 5 ? 5 : valid - 1) * part->apart;
    const thimble_word_alias* q = (const thimble_word_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE), b1 = thimble_load_n(q + 1 * NATIVE), b2 = thimble_load_n(q + 2 * NATIVE), b3 = thimble_load_n(q + 3 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_pair(a0[i]); c0_0 = thimble_dot_n(x, b0, c0_0); c0_1 = thimble_dot_n(x, b1, c0_1); c0_2 = thimble_dot_n(x, b2, c0_2); c0_3 = thimble_dot_n(x, b3, c0_3);
      x = thimble_splat_pair(a1[i]); c1_0 = thimble_dot_n(x, b0, c1_0); c1_1 = thimble_dot_n(x, b1, c1_1); c1_2 = thimble_dot_n(x, b2, c1_2); c1_3 = thimble_dot_n(x, b3, c1_3);
      x = thimble_splat_pair(a2[i]); c2_0 = thimble_dot_n(x, b0, c2_0); c2_1 = thimble_dot_n(x, b1, c2_1); c2_2 = thimble_dot_n(x, b2, c2_2); c2_3 = thimble_dot_n(x, b3, c2_3);
      x = thimble_splat_pair(a3[i]); c3_0 = thimble_dot_n(x, b0, c3_0); c3_1 = thimble_dot_n(x, b1, c3_1); c3_2 = thimble_dot_n(x, b2, c3_2); c3_3 = thimble_dot_n(x, b3, c3_3);
      x = thimble_splat_pair(a4[i]); c4_0 = thimble_dot_n(x, b0, c4_0); c4_1 = thimble_dot_n(x, b1, c4_1); c4_2 = thimble_dot_n(x, b2, c4_2); c4_3 = thimble_dot_n(x, b3, c4_3);
      x = thimble_splat_pair(a5[i]); c5_0 = thimble_dot_n(x, b0, c5_0); c5_1 = thimble_dot_n(x, b1, c5_1); c5_2 = thimble_dot_n(x, b2, c5_2); c5_3 = thimble_dot_n(x, b3, c5_3);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0); thimble_store_n(c + 0 * cs + 1 * NATIVE, c0_1); thimble_store_n(c + 0 * cs + 2 * NATIVE, c0_2); thimble_store_n(c + 0 * cs + 3 * NATIVE, c0_3);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0); thimble_store_n(c + 1 * cs + 1 * NATIVE, c1_1); thimble_store_n(c + 1 * cs + 2 * NATIVE, c1_2); thimble_store_n(c + 1 * cs + 3 * NATIVE, c1_3);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0); thimble_store_n(c + 2 * cs + 1 * NATIVE, c2_1); thimble_store_n(c + 2 * cs + 2 * NATIVE, c2_2); thimble_store_n(c + 2 * cs + 3 * NATIVE, c2_3);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0); thimble_store_n(c + 3 * cs + 1 * NATIVE, c3_1); thimble_store_n(c + 3 * cs + 2 * NATIVE, c3_2); thimble_store_n(c + 3 * cs + 3 * NATIVE, c3_3);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0); thimble_store_n(c + 4 * cs + 1 * NATIVE, c4_1); thimble_store_n(c + 4 * cs + 2 * NATIVE, c4_2); thimble_store_n(c + 4 * cs + 3 * NATIVE, c4_3);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0); thimble_store_n(c + 5 * cs + 1 * NATIVE, c5_1); thimble_store_n(c + 5 * cs + 2 * NATIVE, c5_2); thimble_store_n(c + 5 * cs + 3 * NATIVE, c5_3);
}
static __attribute__((noinline, unused)) void thimble_micro_dot_4x4(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c0_1, c0_2, c0_3, c1_0, c1_1, c1_2, c1_3, c2_0, c2_1, c2_2, c2_3, c3_0, c3_1, c3_2, c3_3;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE); c0_1 = thimble_load_n(c + 0 * cs + 1 * NATIVE); c0_2 = thimble_load_n(c + 0 * cs + 2 * NATIVE); c0_3 = thimble_load_n(c + 0 * cs + 3 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE); c1_1 = thimble_load_n(c + 1 * cs + 1 * NATIVE); c1_2 = thimble_load_n(c + 1 * cs + 2 * NATIVE); c1_3 = thimble_load_n(c + 1 * cs + 3 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE); c2_1 = thimble_load_n(c + 2 * cs + 1 * NATIVE); c2_2 = thimble_load_n(c + 2 * cs + 2 * NATIVE); c2_3 = thimble_load_n(c + 2 * cs + 3 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE); c3_1 = thimble_load_n(c + 3 * cs + 1 * NATIVE); c3_2 = thimble_load_n(c + 3 * cs + 2 * NATIVE); c3_3 = thimble_load_n(c + 3 * cs + 3 * NATIVE);
  } else {
    c0_0 = (vn){0}; c0_1 = (vn){0}; c0_2 = (vn){0}; c0_3 = (vn){0};
    c1_0 = (vn){0}; c1_1 = (vn){0}; c1_2 = (vn){0}; c1_3 = (vn){0};
    c2_0 = (vn){0}; c2_1 = (vn){0}; c2_2 = (vn){0}; c2_3 = (vn){0};
    c3_0 = (vn){0}; c3_1 = (vn){0}; c3_2 = (vn){0}; c3_3 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_word_alias* a0 = (const thimble_word_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_word_alias* a1 = (const thimble_word_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_word_alias* a2 = (const thimble_word_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_word_alias* a3 = (const thimble_word_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_word_alias* q = (const thimble_word_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE), b1 = thimble_load_n(q + 1 * NATIVE), b2 = thimble_load_n(q + 2 * NATIVE), b3 = thimble_load_n(q + 3 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_pair(a0[i]); c0_0 = thimble_dot_n(x, b0, c0_0); c0_1 = thimble_dot_n(x, b1, c0_1); c0_2 = thimble_dot_n(x, b2, c0_2); c0_3 = thimble_dot_n(x, b3, c0_3);
      x = thimble_splat_pair(a1[i]); c1_0 = thimble_dot_n(x, b0, c1_0); c1_1 = thimble_dot_n(x, b1, c1_1); c1_2 = thimble_dot_n(x, b2, c1_2); c1_3 = thimble_dot_n(x, b3, c1_3);
      x = thimble_splat_pair(a2[i]); c2_0 = thimble_dot_n(x, b0, c2_0); c2_1 = thimble_dot_n(x, b1, c2_1); c2_2 = thimble_dot_n(x, b2, c2_2); c2_3 = thimble_dot_n(x, b3, c2_3);
      x = thimble_splat_pair(a3[i]); c3_0 = thimble_dot_n(x, b0, c3_0); c3_1 = thimble_dot_n(x, b1, c3_1); c3_2 = thimble_dot_n(x, b2, c3_2); c3_3 = thimble_dot_n(x, b3, c3_3);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0); thimble_store_n(c + 0 * cs + 1 * NATIVE, c0_1); thimble_store_n(c + 0 * cs + 2 * NATIVE, c0_2); thimble_store_n(c + 0 * cs + 3 * NATIVE, c0_3);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0); thimble_store_n(c + 1 * cs + 1 * NATIVE, c1_1); thimble_store_n(c + 1 * cs + 2 * NATIVE, c1_2); thimble_store_n(c + 1 * cs + 3 * NATIVE, c1_3);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0); thimble_store_n(c + 2 * cs + 1 * NATIVE, c2_1); thimble_store_n(c + 2 * cs + 2 * NATIVE, c2_2); thimble_store_n(c + 2 * cs + 3 * NATIVE, c2_3);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0); thimble_store_n(c + 3 * cs + 1 * NATIVE, c3_1); thimble_store_n(c + 3 * cs + 2 * NATIVE, c3_2); thimble_store_n(c + 3 * cs + 3 * NATIVE, c3_3);
}
static __attribute__((noinline, unused)) void thimble_micro_dot_12x1(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c1_0, c2_0, c3_0, c4_0, c5_0, c6_0, c7_0, c8_0, c9_0, c10_0, c11_0;
  (void)valid;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE);
    c6_0 = thimble_load_n(c + 6 * cs + 0 * NATIVE);
    c7_0 = thimble_load_n(c + 7 * cs + 0 * NATIVE);
    c8_0 = thimble_load_n(c + 8 * cs + 0 * NATIVE);
    c9_0 = thimble_load_n(c + 9 * cs + 0 * NATIVE);
    c10_0 = thimble_load_n(c + 10 * cs + 0 * NATIVE);
    c11_0 = thimble_load_n(c + 11 * cs + 0 * NATIVE);
  } else {
    c0_0 = (vn){0};
    c1_0 = (vn){0};
    c2_0 = (vn){0};
    c3_0 = (vn){0};
    c4_0 = (vn){0};
    c5_0 = (vn){0};
    c6_0 = (vn){0};
    c7_0 = (vn){0};
    c8_0 = (vn){0};
    c9_0 = (vn){0};
    c10_0 = (vn){0};
    c11_0 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_word_alias* a0 = (const thimble_word_alias*)part->left + 0 * part->apart;
    const thimble_word_alias* a3 = (const thimble_word_alias*)part->left + 3 * part->apart;
    const thimble_word_alias* a6 = (const thimble_word_alias*)part->left + 6 * part->apart;
    const thimble_word_alias* a9 = (const thimble_word_alias*)part->left + 9 * part->apart;
    const thimble_word_alias* q = (const thimble_word_alias*)part->panel;
    const char *first = part->first;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    int64_t i0 = 0, i1 = part->apart, i2 = 2 * part->apart;
    for (; i0 < end; i0 += step, i1 += step, i2 += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      x = thimble_splat_pair(a0[i0]); c0_0 = thimble_dot_n(x, b0, c0_0);
      x = thimble_splat_pair(a0[i1]); c1_0 = thimble_dot_n(x, b0, c1_0);
      x = thimble_splat_pair(a0[i2]); c2_0 = thimble_dot_n(x, b0, c2_0);
      x = thimble_splat_pair(a3[i0]); c3_0 = thimble_dot_n(x, b0, c3_0);
      x = thimble_splat_pair(a3[i1]); c4_0 = thimble_dot_n(x, b0, c4_0);
      x = thimble_splat_pair(a3[i2]); c5_0 = thimble_dot_n(x, b0, c5_0);
      x = thimble_splat_pair(a6[i0]); c6_0 = thimble_dot_n(x, b0, c6_0);
      x = thimble_splat_pair(a6[i1]); c7_0 = thimble_dot_n(x, b0, c7_0);
      x = thimble_splat_pair(a6[i2]); c8_0 = thimble_dot_n(x, b0, c8_0);
      x = thimble_splat_pair(a9[i0]); c9_0 = thimble_dot_n(x, b0, c9_0);
      x = thimble_splat_pair(a9[i1]); c10_0 = thimble_dot_n(x, b0, c10_0);
      x = thimble_splat_pair(a9[i2]); c11_0 = thimble_dot_n(x, b0, c11_0);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0);
    thimble_store_n(c + 6 * cs + 0 * NATIVE, c6_0);
    thimble_store_n(c + 7 * cs + 0 * NATIVE, c7_0);
    thimble_store_n(c + 8 * cs + 0 * NATIVE, c8_0);
    thimble_store_n(c + 9 * cs + 0 * NATIVE, c9_0);
    thimble_store_n(c + 10 * cs + 0 * NATIVE, c10_0);
    thimble_store_n(c + 11 * cs + 0 * NATIVE, c11_0);
}
#elif NATIVE == 8
static __attribute__((noinline, unused)) void thimble_micro_dot_6x2(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c0_1, c1_0, c1_1, c2_0, c2_1, c3_0, c3_1, c4_0, c4_1, c5_0, c5_1;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE); c0_1 = thimble_load_n(c + 0 * cs + 1 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE); c1_1 = thimble_load_n(c + 1 * cs + 1 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE); c2_1 = thimble_load_n(c + 2 * cs + 1 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE); c3_1 = thimble_load_n(c + 3 * cs + 1 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE); c4_1 = thimble_load_n(c + 4 * cs + 1 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE); c5_1 = thimble_load_n(c + 5 * cs + 1 * NATIVE);
  } else {
    c0_0 = (vn){0}; c0_1 = (vn){0};
    c1_0 = (vn){0}; c1_1 = (vn){0};
    c2_0 = (vn){0}; c2_1 = (vn){0};
    c3_0 = (vn){0}; c3_1 = (vn){0};
    c4_0 = (vn){0}; c4_1 = (vn){0};
    c5_0 = (vn){0}; c5_1 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_word_alias* a0 = (const thimble_word_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_word_alias* a1 = (const thimble_word_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_word_alias* a2 = (const thimble_word_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_word_alias* a3 = (const thimble_word_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_word_alias* a4 = (const thimble_word_alias*)part->left + (valid > 4 ? 4 : valid - 1) * part->apart;
    const thimble_word_alias* a5 = (const thimble_word_alias*)part->left + (valid > 5 ? 5 : valid - 1) * part->apart;
    const thimble_word_alias* q = (const thimble_word_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE), b1 = thimble_load_n(q + 1 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_pair(a0[i]); c0_0 = thimble_dot_n(x, b0, c0_0); c0_1 = thimble_dot_n(x, b1, c0_1);
      x = thimble_splat_pair(a1[i]); c1_0 = thimble_dot_n(x, b0, c1_0); c1_1 = thimble_dot_n(x, b1, c1_1);
      x = thimble_splat_pair(a2[i]); c2_0 = thimble_dot_n(x, b0, c2_0); c2_1 = thimble_dot_n(x, b1, c2_1);
      x = thimble_splat_pair(a3[i]); c3_0 = thimble_dot_n(x, b0, c3_0); c3_1 = thimble_dot_n(x, b1, c3_1);
      x = thimble_splat_pair(a4[i]); c4_0 = thimble_dot_n(x, b0, c4_0); c4_1 = thimble_dot_n(x, b1, c4_1);
      x = thimble_splat_pair(a5[i]); c5_0 = thimble_dot_n(x, b0, c5_0); c5_1 = thimble_dot_n(x, b1, c5_1);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0); thimble_store_n(c + 0 * cs + 1 * NATIVE, c0_1);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0); thimble_store_n(c + 1 * cs + 1 * NATIVE, c1_1);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0); thimble_store_n(c + 2 * cs + 1 * NATIVE, c2_1);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0); thimble_store_n(c + 3 * cs + 1 * NATIVE, c3_1);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0); thimble_store_n(c + 4 * cs + 1 * NATIVE, c4_1);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0); thimble_store_n(c + 5 * cs + 1 * NATIVE, c5_1);
}
#else
static __attribute__((noinline, unused)) void thimble_micro_dot_6x4(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn c0_0, c0_1, c0_2, c0_3, c1_0, c1_1, c1_2, c1_3, c2_0, c2_1, c2_2, c2_3, c3_0, c3_1, c3_2, c3_3, c4_0, c4_1, c4_2, c4_3, c5_0, c5_1, c5_2, c5_3;
  if (accumulate) {
    c0_0 = thimble_load_n(c + 0 * cs + 0 * NATIVE); c0_1 = thimble_load_n(c + 0 * cs + 1 * NATIVE); c0_2 = thimble_load_n(c + 0 * cs + 2 * NATIVE); c0_3 = thimble_load_n(c + 0 * cs + 3 * NATIVE);
    c1_0 = thimble_load_n(c + 1 * cs + 0 * NATIVE); c1_1 = thimble_load_n(c + 1 * cs + 1 * NATIVE); c1_2 = thimble_load_n(c + 1 * cs + 2 * NATIVE); c1_3 = thimble_load_n(c + 1 * cs + 3 * NATIVE);
    c2_0 = thimble_load_n(c + 2 * cs + 0 * NATIVE); c2_1 = thimble_load_n(c + 2 * cs + 1 * NATIVE); c2_2 = thimble_load_n(c + 2 * cs + 2 * NATIVE); c2_3 = thimble_load_n(c + 2 * cs + 3 * NATIVE);
    c3_0 = thimble_load_n(c + 3 * cs + 0 * NATIVE); c3_1 = thimble_load_n(c + 3 * cs + 1 * NATIVE); c3_2 = thimble_load_n(c + 3 * cs + 2 * NATIVE); c3_3 = thimble_load_n(c + 3 * cs + 3 * NATIVE);
    c4_0 = thimble_load_n(c + 4 * cs + 0 * NATIVE); c4_1 = thimble_load_n(c + 4 * cs + 1 * NATIVE); c4_2 = thimble_load_n(c + 4 * cs + 2 * NATIVE); c4_3 = thimble_load_n(c + 4 * cs + 3 * NATIVE);
    c5_0 = thimble_load_n(c + 5 * cs + 0 * NATIVE); c5_1 = thimble_load_n(c + 5 * cs + 1 * NATIVE); c5_2 = thimble_load_n(c + 5 * cs + 2 * NATIVE); c5_3 = thimble_load_n(c + 5 * cs + 3 * NATIVE);
  } else {
    c0_0 = (vn){0}; c0_1 = (vn){0}; c0_2 = (vn){0}; c0_3 = (vn){0};
    c1_0 = (vn){0}; c1_1 = (vn){0}; c1_2 = (vn){0}; c1_3 = (vn){0};
    c2_0 = (vn){0}; c2_1 = (vn){0}; c2_2 = (vn){0}; c2_3 = (vn){0};
    c3_0 = (vn){0}; c3_1 = (vn){0}; c3_2 = (vn){0}; c3_3 = (vn){0};
    c4_0 = (vn){0}; c4_1 = (vn){0}; c4_2 = (vn){0}; c4_3 = (vn){0};
    c5_0 = (vn){0}; c5_1 = (vn){0}; c5_2 = (vn){0}; c5_3 = (vn){0};
  }
  for (; count > 0; count--, part++) {
    const thimble_word_alias* a0 = (const thimble_word_alias*)part->left + (valid > 0 ? 0 : valid - 1) * part->apart;
    const thimble_word_alias* a1 = (const thimble_word_alias*)part->left + (valid > 1 ? 1 : valid - 1) * part->apart;
    const thimble_word_alias* a2 = (const thimble_word_alias*)part->left + (valid > 2 ? 2 : valid - 1) * part->apart;
    const thimble_word_alias* a3 = (const thimble_word_alias*)part->left + (valid > 3 ? 3 : valid - 1) * part->apart;
    const thimble_word_alias* a4 = (const thimble_word_alias*)part->left + (valid > 4 ? 4 : valid - 1) * part->apart;
    const thimble_word_alias* a5 = (const thimble_word_alias*)part->left + (valid > 5 ? 5 : valid - 1) * part->apart;
    const thimble_word_alias* q = (const thimble_word_alias*)part->panel;
    const char *first = part->first, *second = part->second;
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
    for (int64_t i = 0; i < end; i += step) {
      vn x, b0 = thimble_load_n(q + 0 * NATIVE), b1 = thimble_load_n(q + 1 * NATIVE), b2 = thimble_load_n(q + 2 * NATIVE), b3 = thimble_load_n(q + 3 * NATIVE);
      __builtin_prefetch(first);
      first += ahead;
      __builtin_prefetch(second);
      second += ahead;
      x = thimble_splat_pair(a0[i]); c0_0 = thimble_dot_n(x, b0, c0_0); c0_1 = thimble_dot_n(x, b1, c0_1); c0_2 = thimble_dot_n(x, b2, c0_2); c0_3 = thimble_dot_n(x, b3, c0_3);
      x = thimble_splat_pair(a1[i]); c1_0 = thimble_dot_n(x, b0, c1_0); c1_1 = thimble_dot_n(x, b1, c1_1); c1_2 = thimble_dot_n(x, b2, c1_2); c1_3 = thimble_dot_n(x, b3, c1_3);
      x = thimble_splat_pair(a2[i]); c2_0 = thimble_dot_n(x, b0, c2_0); c2_1 = thimble_dot_n(x, b1, c2_1); c2_2 = thimble_dot_n(x, b2, c2_2); c2_3 = thimble_dot_n(x, b3, c2_3);
      x = thimble_splat_pair(a3[i]); c3_0 = thimble_dot_n(x, b0, c3_0); c3_1 = thimble_dot_n(x, b1, c3_1); c3_2 = thimble_dot_n(x, b2, c3_2); c3_3 = thimble_dot_n(x, b3, c3_3);
      x = thimble_splat_pair(a4[i]); c4_0 = thimble_dot_n(x, b0, c4_0); c4_1 = thimble_dot_n(x, b1, c4_1); c4_2 = thimble_dot_n(x, b2, c4_2); c4_3 = thimble_dot_n(x, b3, c4_3);
      x = thimble_splat_pair(a5[i]); c5_0 = thimble_dot_n(x, b0, c5_0); c5_1 = thimble_dot_n(x, b1, c5_1); c5_2 = thimble_dot_n(x, b2, c5_2); c5_3 = thimble_dot_n(x, b3, c5_3);
      q += pitch;
    }
  }
    thimble_store_n(c + 0 * cs + 0 * NATIVE, c0_0); thimble_store_n(c + 0 * cs + 1 * NATIVE, c0_1); thimble_store_n(c + 0 * cs + 2 * NATIVE, c0_2); thimble_store_n(c + 0 * cs + 3 * NATIVE, c0_3);
    thimble_store_n(c + 1 * cs + 0 * NATIVE, c1_0); thimble_store_n(c + 1 * cs + 1 * NATIVE, c1_1); thimble_store_n(c + 1 * cs + 2 * NATIVE, c1_2); thimble_store_n(c + 1 * cs + 3 * NATIVE, c1_3);
    thimble_store_n(c + 2 * cs + 0 * NATIVE, c2_0); thimble_store_n(c + 2 * cs + 1 * NATIVE, c2_1); thimble_store_n(c + 2 * cs + 2 * NATIVE, c2_2); thimble_store_n(c + 2 * cs + 3 * NATIVE, c2_3);
    thimble_store_n(c + 3 * cs + 0 * NATIVE, c3_0); thimble_store_n(c + 3 * cs + 1 * NATIVE, c3_1); thimble_store_n(c + 3 * cs + 2 * NATIVE, c3_2); thimble_store_n(c + 3 * cs + 3 * NATIVE, c3_3);
    thimble_store_n(c + 4 * cs + 0 * NATIVE, c4_0); thimble_store_n(c + 4 * cs + 1 * NATIVE, c4_1); thimble_store_n(c + 4 * cs + 2 * NATIVE, c4_2); thimble_store_n(c + 4 * cs + 3 * NATIVE, c4_3);
    thimble_store_n(c + 5 * cs + 0 * NATIVE, c5_0); thimble_store_n(c + 5 * cs + 1 * NATIVE, c5_1); thimble_store_n(c + 5 * cs + 2 * NATIVE, c5_2); thimble_store_n(c + 5 * cs + 3 * NATIVE, c5_3);
}
#endif
static __attribute__((noinline, unused)) void thimble_micro_dot(
    int width, int rows, int count, const thimble_part* parts, float* c, int64_t cs, int accumulate) {
#if NATIVE == 16
  if (width > 48) {
    if (rows > 4) thimble_micro_dot_6x4(rows, count, parts, c, cs, accumulate);
    else thimble_micro_dot_4x4(rows, count, parts, c, cs, accumulate);
  } else if (width > 32) thimble_micro_dot_6x3(rows, count, parts, c, cs, accumulate);
  else if (width > 16) thimble_micro_dot_6x2(rows, count, parts, c, cs, accumulate);
  else if (rows > 6) thimble_micro_dot_12x1(rows, count, parts, c, cs, accumulate);
  else thimble_micro_dot_6x1(rows, count, parts, c, cs, accumulate);
#elif NATIVE == 8
  (void)width;
  thimble_micro_dot_6x2(rows, count, parts, c, cs, accumulate);
#else
  (void)width;
  thimble_micro_dot_6x4(rows, count, parts, c, cs, accumulate);
#endif
}
static __attribute__((noinline, unused)) void thimble_micro_dot_row(
    int width, int64_t k, const void* a, int64_t as, int rows, const void* b, int64_t bs, float* c, int64_t cs, int accumulate) {
  const thimble_part part = {.left = a, .panel = b, .first = (const char*)b, .second = (const char*)b, .units = k, .apart = as, .step = 1, .pitch = bs};
  thimble_micro_dot(width, rows, 1, &part, c, cs, accumulate);
}
static __attribute__((noinline, unused)) void thimble_micro_dot_strip(
    int width, int64_t k, const void* a, int64_t as, int rows, const void* b, int64_t bs, float* c, int64_t cs, int accumulate) {
  const thimble_part part = {.left = a, .panel = b, .first = (const char*)b, .second = (const char*)b, .units = k, .apart = 1, .step = as, .pitch = bs};
  thimble_micro_dot(width, rows, 1, &part, c, cs, accumulate);
}
#endif
#endif
#ifndef THIMBLE_PACKING
#define THIMBLE_PACKING

#if defined(HAS_AVX512)
/* 16 rows of n words become n lines of 16 words. */
INLINE void thimble_transpose_16(const thimble_word_alias* const* rows, int64_t offset, int n, thimble_word_alias* out, int64_t stride) {
  __m512i r[16], t[16];
  __mmask16 mask = thimble_mask(n);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) r[i] = _mm512_maskz_loadu_epi32(mask, rows[i] + offset);
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
  }
  if (n == 16) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + i * stride, r[i]);
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
      if (i < n) _mm512_storeu_si512(out + i * stride, r[i]);
  }
}
#elif defined(HAS_AVX2)
INLINE void thimble_transpose_8(const thimble_word_alias* const* rows, int64_t offset, thimble_word_alias* out, int64_t stride) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps((const float*)(rows[i] + offset));
  for (int i = 0; i < 4; i++) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 2; i++) {
    r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    _mm256_storeu_ps((float*)(out + i * stride), _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps((float*)(out + (i + 4) * stride), _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}
INLINE void thimble_transpose_16(const thimble_word_alias* const* rows, int64_t offset, int n, thimble_word_alias* out, int64_t stride) {
  int done = 0;
  for (; done + 8 <= n; done += 8)
    for (int half = 0; half < 16; half += 8)
      thimble_transpose_8(rows + half, offset + done, out + done * stride + half, stride);
  for (; done < n; done++)
    for (int i = 0; i < 16; i++) out[done * stride + i] = rows[i][offset + done];
}
#else
INLINE void thimble_transpose_16(const thimble_word_alias* const* rows, int64_t offset, int n, thimble_word_alias* out, int64_t stride) {
  for (int j = 0; j < n; j++)
    for (int i = 0; i < 16; i++) out[j * stride + i] = rows[i][offset + j];
}
#endif
/* The first "count" words of 16 rows become lines of 16 words, "stride" apart. */
static __attribute__((noinline, unused)) void thimble_pack_rows(
    const thimble_word_alias* const* rows, int64_t count, thimble_word_alias* out, int64_t stride) {
  for (int64_t k = 0; k < count; k += 16)
    thimble_transpose_16(rows, k, (int)smaller(16, count - k), out + k * stride, stride);
}


/* Rounds to bf16 in place, values staying f32. */
INLINE void thimble_round_all(float* values, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) {
    int n = (int)smaller(16, count - i);
    store_f32_n(values + i, round_bf16(load_f32_n(values + i, n)), n);
  }
}
#ifdef HAS_BF16_DOT
/* count values become (count + 1) / 2 pairs; the conversion flushes denormals just as the dot product would. */
INLINE void thimble_pairs(const float* values, int64_t count, thimble_word_alias* out) {
  for (int64_t i = 0; i < count; i += 32) {
    int n = (int)smaller(32, count - i);
    vf low = load_f32_n(values + i, (int)smaller(16, n)), high = load_f32_n(values + i + 16, (int)larger(0, n - 16));
    store_u32_n(out + i / 2, (vu)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low), (n + 1) / 2);
  }
}
/* Pairs of one value from each of two rows. */
INLINE void thimble_interleave(const float* first, const float* second, int64_t count, thimble_word_alias* out) {
  for (int64_t i = 0; i < count; i += 16) {
    int n = (int)smaller(16, count - i);
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)load_f32_n(first + i, n)));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)load_f32_n(second + i, n)));
    store_u32_n(out + i, (vu)_mm512_or_si512(low, _mm512_slli_epi32(high, 16)), n);
  }
}
#endif
/* Copies n of width words and clears the rest. */
INLINE void thimble_copy_words(const thimble_word_alias* in, int64_t n, int64_t width, thimble_word_alias* out) {
  if (n >= width) {
    for (int64_t i = 0; i < width; i += 16) store_u32(out + i, load_u32(in + i));
    return;
  }
  for (int64_t i = 0; i < width; i += 16) store_u32(out + i, load_u32_n(in + i, (int)larger(0, smaller(16, n - i))));
}


/* sums[i][j] += a_i[k] * b_j[k] for 4 rows each, 16 interleaved sums over k apiece. */
static __attribute__((noinline, unused)) void thimble_dot_4x4(
    int64_t count, const float* a, int64_t as, const float* const* b, float* sums) {
  for (int part = 0; part < 16; part += NATIVE) {
    vn s[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) s[i] = thimble_load_n(sums + i * 16 + part);
    int64_t k = 0;
    for (; k + 16 <= count; k += 16) {
      vn x[4], y;
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) x[i] = thimble_load_n(a + i * as + k + part);
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
        y = thimble_load_n(b[j] + k + part);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) s[i * 4 + j] = thimble_fma_n(x[i], y, s[i * 4 + j]);
      }
    }
    if (k < count) {
      for (int j = 0; j < 4; j++) {
        thimble_lanes y = {.f = load_f32_n(b[j] + k, (int)(count - k))};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
          vn sum = thimble_fma_n(thimble_load_n(a + i * as + k + part), thimble_load_n(y.lane_f + part), s[i * 4 + j]);
          s[i * 4 + j] = sum;
        }
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) thimble_store_n(sums + i * 16 + part, s[i]);
  }
}

#endif
#ifndef THIMBLE_ONCE_contraction_types
#define THIMBLE_ONCE_contraction_types

#define THIMBLE_SEGMENTS 8
typedef struct {
  /* across: stored [K, x]; direct: values are units as they lie; pairs: they are if K and strides are even;
     elements values take bytes bytes; plain: bytes of one value, 0 where several are packed or any is computed. */
  int across, direct, pairs, elements, bytes, plain;
  void (*panels)(const char*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, thimble_word_alias*);
  void (*strips)(const char*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, thimble_word_alias*, int64_t);
  void (*rows)(const char*, int64_t, int64_t, int, int64_t, thimble_word_alias*, int64_t);
  void (*values)(const char*, int64_t, int64_t, float*);
} thimble_operand;
typedef struct {
  int segments, unit, granule, depth;
  thimble_micro micro;
  void (*finish)(const float*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, const int64_t*);
  const thimble_operand *a[THIMBLE_SEGMENTS], *b[THIMBLE_SEGMENTS];
} thimble_contraction;

#endif

#ifndef THIMBLE_ONCE_contraction_driver
#define THIMBLE_ONCE_contraction_driver

#ifndef THIMBLE_BLOCK
#define THIMBLE_BLOCK 229376
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
  int64_t used = 0, limit = w[1] <= 128 ? 2304 : t->depth;
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
  int64_t M = w[0], N = w[1], skinny = 0, packed = 0, strips = (M + 5) / 6;
  int along = 1, wide_rows = 1, wide_columns = 1;
  for (int s = 0; s < t->segments; s++) {
    int64_t K = w[4 + 7 * s + 6];
    skinny += (K + 15) / 16 * 16 + 16;
    if (t->a[s]->across) packed += 6 * ((K + 1) / 2 * 2) + 16;
    along &= !t->a[s]->across && !t->b[s]->across;
    wide_rows &= t->a[s]->across;
    wide_columns &= t->b[s]->across;
  }
  p.path = along && M <= 8 ? thimble_path_few
    : wide_columns && M <= 24 ? thimble_path_thin_rows
    : wide_rows && N <= 24 && M >= 64 ? thimble_path_thin_columns : thimble_path_blocks;
  if (p.path == thimble_path_few) p.private = 8 * skinny;
  else if (p.path != thimble_path_blocks) p.private = 24 * (skinny + 512) + 64 * 64;
  p.team = threads * p.private;
  if (p.path != thimble_path_blocks) return p;
  thimble_cut_depth(t, w, &p);
  p.columns = larger(64, smaller(512, THIMBLE_BLOCK / p.chunk / 64 * 64));
  p.columns = (p.columns + t->granule - 1) / t->granule * t->granule;
  p.rows = strips * 6;
  if (packed) p.rows = smaller(p.rows, larger(16, 2097152 / packed) * 6);
  if (p.chunks > 1) p.rows = smaller(p.rows, 1020);
  p.packed = (packed * (p.rows / 6) + 15) / 16 * 16;
  p.block = p.columns * p.chunk;
  p.height = N <= 16 && !packed && p.chunks == 1 ? TALL : 6;
  p.strip = 12 * ((p.chunk + 16 * t->segments + 15) / 16 * 16);
  p.partial = p.chunks > 1 ? p.rows * p.columns : 0;
  p.private = p.strip + p.partial;
  p.team = p.packed + threads * (p.block + p.private);
  return p;
}

/* How many groups of threads share out N; the threads of a group share out M. Least work for the busiest thread. */
INLINE int64_t thimble_groups(int64_t M, int64_t N, int64_t threads) {
  int64_t best = 1, least = INT64_MAX;
  for (int64_t groups = threads; groups >= 1; groups--) {
    int64_t members = threads / groups, columns = ((N + 15) / 16 + groups - 1) / groups;
    int64_t strips = ((M + 5) / 6 + members - 1) / members;
    int64_t cost = columns * (strips * 6 + 12) + (members > 1 ? 64 : 0);
    if (cost < least) {
      least = cost;
      best = groups;
    }
  }
  return best;
}


static __attribute__((noinline)) void thimble_few(const thimble_contraction* t, const int64_t* w, int64_t batch, float* area, int64_t thread, int64_t threads) {
  int64_t M = w[0], N = w[1], begin, end;
  const int64_t* words = w + 4 + 7 * t->segments;
  float* copy[THIMBLE_SEGMENTS];
  share(N, 16, thread, threads, &begin, &end);
  if (begin >= end) return;
  for (int s = 0; s < t->segments; s++) {
    const int64_t* g = w + 4 + 7 * s;
    int64_t K = g[6], length = (K + 15) / 16 * 16;
    copy[s] = area;
    area += 8 * length;
    __builtin_memset(copy[s], 0, (size_t)(8 * length) * 4);
    for (int64_t m = 0; m < M; m++)
      for (int64_t k = 0; k < K; k += 256)
        t->a[s]->values((const char*)g[0], batch * g[2] + m * g[1] + k, smaller(256, K - k), copy[s] + m * length + k);
  }
  for (int64_t column = begin; column < end; column += 16) {
    float tile[8][16] __attribute__((aligned(64)));
    for (int quad = 0; quad < 16; quad += 4) {
      float sums[8 * 64] __attribute__((aligned(64)));
      float values[4][256] __attribute__((aligned(64)));
      const float* rows[4];
      __builtin_memset(sums, 0, sizeof sums);
      for (int s = 0; s < t->segments; s++) {
        const int64_t* g = w + 4 + 7 * s;
        int64_t K = g[6], length = (K + 15) / 16 * 16;
        for (int64_t k = 0; k < K; k += 256) {
          int64_t count = smaller(256, K - k);
          for (int i = 0; i < 4; i++) {
            int64_t element = batch * g[5] + smaller(column + quad + i, N - 1) * g[4] + k;
            /* Rows are too short for the hardware to foresee the next ones. */
            const char* ahead = (const char*)g[3] + (element + smaller(4, N - 1 - smaller(column + quad + i, N - 1)) * g[4]) / t->b[s]->elements * t->b[s]->bytes;
            for (int64_t byte = 0; byte < count / t->b[s]->elements * t->b[s]->bytes; byte += 64) __builtin_prefetch(ahead + byte);
            rows[i] = t->b[s]->direct ? (const float*)g[3] + element : values[i];
            if (!t->b[s]->direct) t->b[s]->values((const char*)g[3], element, count, values[i]);
          }
          for (int64_t m = 0; m < M; m += 4) thimble_dot_4x4(count, copy[s] + m * length + k, length, rows, sums + m * 64);
        }
      }
      for (int64_t m = 0; m < M; m++)
        for (int i = 0; i < 4; i++) tile[m][quad + i] = sum_lanes(load_f32(sums + m * 64 + i * 16));
    }
    t->finish(tile[0], 16, M, smaller(16, end - column), batch, 0, column, words);
  }
}
/* The thin side as rows that the kernels can use, and what it takes of "area". */
static thimble_word_alias* thimble_thin_left(const thimble_contraction* t, const int64_t* w, int64_t batch, int s, int turned,
                                             thimble_word_alias* area, thimble_part* left) {
  const int64_t* g = w + 4 + 7 * s + 3 * turned;
  const thimble_operand* operand = turned ? t->b[s] : t->a[s];
  int64_t thin = w[turned], K = w[4 + 7 * s + 6], units = (K + t->unit - 1) / t->unit;
  left->step = 1;
  if (operand->across) {
    int64_t pitch = units * 6 + 16;
    operand->strips((const char*)g[0], batch * g[2], g[1], 0, thin, K, 0, 1, area, pitch);
    *left = (thimble_part){.left = area, .apart = 1, .step = 6, .pitch = pitch};
    return area + (thin + 5) / 6 * pitch;
  }
  if (operand->direct) {
    *left = (thimble_part){.left = (const float*)g[0] + batch * g[2], .apart = g[1], .step = 1, .pitch = g[1] * 6};
    return area;
  }
  int64_t length = (units + 15) / 16 * 16;
  operand->rows((const char*)g[0], batch * g[2], g[1], (int)thin, K, area, length);
  *left = (thimble_part){.left = area, .apart = length, .step = 1, .pitch = length * 6};
  return area + thin * length;
}

/* Adds one stretch of k of one segment to the sums of the columns c .. c + columns. */
static void thimble_thin_stretch(const thimble_contraction* t, const int64_t* w, int64_t batch, int s, int turned, const thimble_part* from,
                                 int64_t c, int64_t columns, int64_t k, int64_t count, thimble_word_alias* area, float* sums, int more) {
  const int64_t* g = w + 4 + 7 * s + 3 * !turned;
  const thimble_operand* operand = turned ? t->a[s] : t->b[s];
  int64_t thin = w[turned], wide = w[!turned], units = (count + t->unit - 1) / t->unit;
  for (int64_t p = 0; p < columns; p += PANEL) {
    int64_t valid = smaller(PANEL, columns - p), width = (valid + 15) / 16 * 16, element = batch * g[2] + k * g[1] + c + p;
    thimble_part part = {.panel = area, .units = units, .apart = from->apart, .step = from->step, .pitch = width};
    if (operand->direct && valid == width) {
      part.panel = (const float*)g[0] + element;
      part.pitch = g[1];
    } else {
      operand->panels((const char*)g[0], batch * g[2], g[1], c + p, valid, wide, k, k + count, 0, 1, area);
    }
    /* The next panel of the stretch, or the first of the next one: two of its lines of each k with each strip. */
    const char* next = (const char*)part.panel;
    int64_t lines = 1, ahead = 0;
    if (operand->plain) {
      next = (const char*)g[0] + (p + PANEL < columns ? element + PANEL : element - p + count * g[1]) * operand->plain;
      lines = PANEL * operand->plain / 64;
      ahead = g[1] * operand->plain * t->unit;
    }
    for (int64_t m = 0, line = 0; m < thin; m += 6, line += 2) {
      part.left = (const thimble_word_alias*)from->left + m / 6 * from->pitch + k / t->unit * from->step;
      part.first = next + smaller(line, lines - 1) * 64;
      part.second = next + smaller(line + 1, lines - 1) * 64;
      part.ahead = ahead;
      t->micro((int)width, (int)smaller(6, thin - m), 1, &part, sums + m * 512 + p, 512, more);
    }
  }
}

static void thimble_thin_finish(const thimble_contraction* t, const int64_t* w, int64_t batch, int turned, const float* sums, int64_t c, int64_t columns) {
  const int64_t* words = w + 4 + 7 * t->segments;
  int64_t thin = w[turned];
  if (!turned) {
    t->finish(sums, 512, thin, columns, batch, 0, c, words);
    return;
  }
  for (int64_t p = 0; p < columns; p += 16) {
    thimble_word_alias lines[16 * 32] __attribute__((aligned(64)));
    for (int64_t m = 0; m < thin; m += 16) {
      const thimble_word_alias* rows[16];
      for (int i = 0; i < 16; i++) rows[i] = (const thimble_word_alias*)sums + smaller(m + i, thin - 1) * 512 + p;
      thimble_pack_rows(rows, 16, lines + m, 32);
    }
    t->finish((const float*)lines, 32, smaller(16, columns - p), thin, batch, c + p, 0, words);
  }
}

static __attribute__((noinline)) void thimble_thin(const thimble_contraction* t, const int64_t* w, int64_t batch, thimble_word_alias* area,
                                                   int64_t thread, int64_t threads, int turned) {
  int64_t begin, end;
  float* sums = (float*)area;
  thimble_part left[THIMBLE_SEGMENTS];
  share(w[!turned], 16, thread, threads, &begin, &end);
  if (begin >= end) return;
  area += 12288;
  for (int s = 0; s < t->segments; s++) area = thimble_thin_left(t, w, batch, s, turned, area, left + s);
  for (int64_t c = begin; c < end; c += 512) {
    int64_t columns = smaller(512, end - c);
    int more = 0;
    for (int s = 0; s < t->segments; s++) {
      int64_t K = w[4 + 7 * s + 6];
      for (int64_t k = 0; k < K; k += 64, more = 1)
        thimble_thin_stretch(t, w, batch, s, turned, left + s, c, columns, k, smaller(64, K - k), area, sums, more);
    }
    if (!more) __builtin_memset(sums, 0, 49152);
    thimble_thin_finish(t, w, batch, turned, sums, c, columns);
  }
}

typedef struct {
  const thimble_contraction* t;
  const int64_t* w;
  const thimble_plan* plan;
  int64_t batch, top, first, last, column, columns, chunk, height;
  /* Columns of the next block, and how many lines (or rows) of each of its B are on their way. */
  int64_t coming, fetched[THIMBLE_SEGMENTS];
  int64_t from[THIMBLE_SEGMENTS], to[THIMBLE_SEGMENTS], units[THIMBLE_SEGMENTS], pitch[THIMBLE_SEGMENTS];
  thimble_word_alias *panel[THIMBLE_SEGMENTS], *strips[THIMBLE_SEGMENTS], *own;
} thimble_block;

/* Which k of each segment belong to the chunk, and where their panels go. */
static void thimble_set_chunk(thimble_block* x, int64_t chunk, thimble_word_alias* area) {
  x->chunk = chunk;
  for (int s = 0; s < x->t->segments; s++) {
    int64_t K = x->w[4 + 7 * s + 6], length = x->plan->length[s], before = chunk - x->plan->start[s];
    /* The segment's pieces that share a chunk with the one before come first; after them each piece is alone. */
    x->from[s] = before >= 0 ? smaller(K, before * length) : 0;
    x->to[s] = before >= 0 ? smaller(K, (before + 1) * length) : 0;
    x->units[s] = (x->to[s] - x->from[s] + x->t->unit - 1) / x->t->unit;
    x->panel[s] = area;
    area += x->units[s] * ((x->columns + 15) / 16 * 16);
  }
}

static void thimble_pack_block(const thimble_block* x, int64_t member, int64_t members) {
  for (int s = 0; s < x->t->segments; s++) {
    const int64_t* g = x->w + 4 + 7 * s;
    if (x->units[s])
      x->t->b[s]->panels((const char*)g[3], x->batch * g[5], g[4], x->column, x->columns, x->w[1], x->from[s], x->to[s], member, members, x->panel[s]);
  }
}

/* Where the rows of one strip of A are. */
static void thimble_find_strip(const thimble_block* x, int64_t m, int rows, thimble_part* parts) {
  thimble_word_alias* converted = x->own;
  for (int s = 0; s < x->t->segments; s++) {
    const int64_t* g = x->w + 4 + 7 * s;
    const thimble_operand* a = x->t->a[s];
    int64_t element = x->batch * g[2] + m * g[1] + x->from[s];
    if (!x->units[s]) continue;
    thimble_part* part = parts++;
    part->units = x->units[s];
    part->step = 1;
    if (a->across) {
      part->left = x->strips[s] + (m - x->top) / 6 * x->pitch[s] + x->from[s] / x->t->unit * 6;
      part->apart = 1;
      part->step = 6;
    } else if (a->direct) {
      part->left = (const float*)g[0] + element;
      part->apart = g[1];
    } else if (a->pairs && !((g[1] | element | x->to[s]) & 1)) {
      part->left = (const char*)g[0] + element * 2;
      part->apart = g[1] / 2;
    } else {
      part->left = converted;
      part->apart = (x->units[s] + 15) / 16 * 16;
      a->rows((const char*)g[0], element, g[1], rows, x->to[s] - x->from[s], converted, part->apart);
      converted += x->height * part->apart;
    }
  }
}

/*
 * What the kernels fetch ahead while they multiply the panels of the strip at m: with the first panels the next strip
 * of A, two rows a panel; with the others the next block of B, two lines a panel, as far as "fetched" has not come.
 */
static void thimble_look_ahead(thimble_block* x, int64_t m, int64_t panel, thimble_part* part) {
  for (int s = 0; s < x->t->segments; s++) {
    if (!x->units[s]) continue;
    const int64_t* g = x->w + 4 + 7 * s;
    const thimble_operand *a = x->t->a[s], *b = x->t->b[s];
    int64_t next = m + x->height < x->last ? m + x->height : x->first, rows = smaller(x->height, x->last - next), row = 2 * panel;
    part->ahead = 0;
    part->first = part->second = (const char*)part->panel;
    if (a->across) {
      if (panel == 0) {
        part->first = (const char*)(x->strips[s] + (next - x->top) / 6 * x->pitch[s] + x->from[s] / x->t->unit * 6);
        part->second = part->first + x->units[s] * 12;
        part->ahead = 12;
      }
    } else if (a->plain && x->height > 6) {
      part->first = (const char*)g[0] + (x->batch * g[2] + next * g[1] + x->from[s]) * a->plain;
      part->ahead = x->height * a->plain * x->t->unit;
    } else if (a->plain && row < rows) {
      part->ahead = a->plain * x->t->unit;
      part->first = (const char*)g[0] + (x->batch * g[2] + (next + row) * g[1] + x->from[s]) * a->plain;
      part->second = part->first + (row + 1 < rows ? g[1] * a->plain : 0);
    } else {
      row -= rows;
    }
    int64_t lines = x->coming * (b->across ? b->plain : 64) / 64, line = x->fetched[s];
    if (part->ahead == 0 && b->plain && line < lines) {
      const char* base = (const char*)g[3] + (x->batch * g[5] + (b->across ? x->from[s] * g[4] + x->column + x->columns : (x->column + x->columns) * g[4] + x->from[s])) * b->plain;
      int64_t apart = b->across ? 64 : g[4] * b->plain;
      part->ahead = (b->across ? g[4] : 1) * b->plain * x->t->unit;
      part->first = base + line * apart;
      part->second = base + smaller(line + 1, lines - 1) * apart;
      x->fetched[s] = line + 2;
    }
    part++;
  }
}

static __attribute__((noinline)) void thimble_multiply_block(thimble_block* x) {
  const thimble_contraction* t = x->t;
  const thimble_plan* plan = x->plan;
  int64_t padded = (x->columns + 15) / 16 * 16, count = 0;
  float* partial = (float*)x->own + plan->strip;
  thimble_part parts[THIMBLE_SEGMENTS];
  for (int s = 0; s < t->segments; s++) count += x->units[s] > 0;
  x->height = plan->height;
  for (int64_t m = x->first; m < x->last; m += x->height) {
    if (x->last - m < x->height) x->height = 6;
    int rows = (int)smaller(x->height, x->last - m);
    thimble_find_strip(x, m, rows, parts);
    for (int64_t c = 0; c < padded; c += PANEL) {
      float local[TALL * PANEL] __attribute__((aligned(64)));
      int64_t width = smaller(PANEL, padded - c), length = plan->chunks > 1 ? plan->columns : PANEL;
      float* tile = plan->chunks > 1 ? partial + (m - x->first) * length + c : local;
      for (int s = 0, i = 0; s < t->segments; s++) {
        if (!x->units[s]) continue;
        parts[i].panel = x->panel[s] + c * x->units[s];
        parts[i++].pitch = width;
      }
      thimble_look_ahead(x, m, c / PANEL, parts);
      t->micro((int)width, rows, (int)count, parts, tile, length, x->chunk > 0);
      if (x->chunk == plan->chunks - 1)
        t->finish(tile, length, rows, smaller(PANEL, x->columns - c), x->batch, m, x->column + c, x->w + 4 + 7 * t->segments);
    }
  }
}


/* Packs the rows top.. of all A stored [K, M], by all threads. */
static void thimble_pack_left(thimble_block* x, thimble_word_alias* area, int64_t thread, int64_t threads, Context* context) {
  int any = 0;
  for (int s = 0; s < x->t->segments; s++) any |= x->t->a[s]->across;
  if (!any) return;
  if (context) barrier(context);
  for (int s = 0; s < x->t->segments; s++) {
    const int64_t* g = x->w + 4 + 7 * s;
    if (!x->t->a[s]->across) continue;
    int64_t rows = smaller(x->plan->rows, x->w[0] - x->top);
    x->strips[s] = area;
    x->pitch[s] = (g[6] + x->t->unit - 1) / x->t->unit * 6 + 16;
    area += x->pitch[s] * ((rows + 5) / 6);
    x->t->a[s]->strips((const char*)g[0], x->batch * g[2], g[1], x->top, rows, g[6], thread, threads, x->strips[s], x->pitch[s]);
  }
  if (context) barrier(context);
}

/* One product by all threads of a team, or by one thread alone (context null). */
static __attribute__((noinline)) void thimble_product(const thimble_contraction* t, const int64_t* w, const thimble_plan* plan, int64_t batch,
                                                      float* workspace, int64_t thread, int64_t threads, Context* context) {
  if (plan->path == thimble_path_few) {
    thimble_few(t, w, batch, workspace + thread * plan->private, thread, threads);
    return;
  }
  if (plan->path != thimble_path_blocks) {
    thimble_word_alias* area = (thimble_word_alias*)workspace + thread * plan->private;
    thimble_thin(t, w, batch, area, thread, threads, plan->path == thimble_path_thin_columns);
    return;
  }
  int64_t M = w[0], N = w[1], most = 0, begin, end;
  int64_t groups = thimble_groups(M, N, threads), members = threads / groups, group = thread / members, member = thread % members;
  thimble_word_alias* area = (thimble_word_alias*)workspace + plan->packed + group * plan->block;
  thimble_block x = {.t = t, .w = w, .plan = plan, .batch = batch};
  x.own = (thimble_word_alias*)workspace + plan->packed + threads * plan->block + thread * plan->private;
  for (int64_t i = 0; i < groups; i++) {
    share(N, 16, i, groups, &begin, &end);
    most = larger(most, end - begin);
  }
  share(N, 16, group, groups, &begin, &end);
  if (group >= groups) begin = end = 0;
  for (x.top = 0; x.top < M; x.top += plan->rows) {
    thimble_pack_left(&x, (thimble_word_alias*)workspace, thread, threads, context);
    share(smaller(plan->rows, M - x.top), 6, member, members, &x.first, &x.last);
    x.first += x.top;
    x.last += x.top;
    for (int64_t done = 0; done < most; done += plan->columns) {
      x.column = begin + done;
      x.columns = larger(0, smaller(plan->columns, end - x.column));
      x.coming = plan->chunks > 1 ? 0 : larger(0, smaller(plan->columns, end - x.column - x.columns));
      for (int s = 0; s < t->segments; s++) x.fetched[s] = 0;
      for (int64_t chunk = 0; chunk < plan->chunks; chunk++) {
        thimble_set_chunk(&x, chunk, area);
        if (x.columns) thimble_pack_block(&x, member, members);
        if (context && members > 1) barrier(context);
        if (x.columns) thimble_multiply_block(&x);
        if (context && members > 1) barrier(context);
      }
    }
  }
}

static __attribute__((noinline, unused)) void thimble_contract(const thimble_contraction* t, const int64_t* w, Context* context) {
  float* workspace = (float*)((w[3] + 63) / 64 * 64);
  int64_t batches = w[2], thread = context->thread, threads = context->threads;
  int alone = batches >= 2 * threads;
  thimble_plan plan = thimble_make_plan(t, w, alone ? 1 : threads);
  if (alone) {
    int64_t begin, end;
    share(batches, 1, thread, threads, &begin, &end);
    for (int64_t batch = begin; batch < end; batch++) thimble_product(t, w, &plan, batch, workspace + thread * plan.team, 0, 1, 0);
  } else {
    for (int64_t batch = 0; batch < batches; batch++) thimble_product(t, w, &plan, batch, workspace, thread, threads, context);
  }
}

#endif

