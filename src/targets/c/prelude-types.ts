/**
 * Types and machine features that all generated C shares. A "lane" vector has 16 elements on every machine, so that
 * results do not depend on the width of the machine's registers: the compiler splits them where it must.
 *
 * HAS_AVX512, HAS_AVX2, HAS_F16C, HAS_BF16_DOT and HAS_NEON say which intrinsics may be used. Compiling with
 * -DTHIMBLE_GENERIC turns all of them off, which is how the portable code is tested.
 *
 * The bf16 dot product is left unused on Intel's CPUs, where it does half the work of f32 multiply-adds in a cycle
 * (measured: 86 against 175 GFLOP/s a core), while on AMD's it does twice as much. -DTHIMBLE_BF16_DOT=0 or =1 decides.
 */
export const preludeTypes = String.raw`
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
`;
