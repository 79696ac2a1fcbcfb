/** Random words for vectors of neighbouring elements: a vector of Philox counters serves four vectors of elements. */
import { philoxMultipliers, philoxRounds, philoxWeyl } from "../../ops/random.js";
import { literal } from "./scalar.js";

const word = (value: number): string => literal("u32", value);

export const noiseSupportName = "thimble_noise";

export const noiseSupport = `#ifndef THIMBLE_NOISE
#define THIMBLE_NOISE
/* The words of one block of 64 elements; block -1 = none yet. */
typedef struct { int64_t block; vu words[4]; } thimble_noise_block;
INLINE vu thimble_wide_product(vu a, uint32_t factor, vu* high) {
#if defined(HAS_AVX512)
  __m512i x = (__m512i)a, m = _mm512_set1_epi32((int)factor);
  __m512i even = _mm512_mul_epu32(x, m), odd = _mm512_mul_epu32(_mm512_shuffle_epi32(x, 0xf5), m);
  *high = (vu)_mm512_mask_blend_epi32(0xaaaa, _mm512_shuffle_epi32(even, 0xf5), odd);
  return (vu)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_shuffle_epi32(odd, 0xa0));
#else
  *high = mulhi_u(a, splat_u(factor));
  return a * splat_u(factor);
#endif
}
static __attribute__((noinline, unused)) void thimble_noise_make(
    thimble_noise_block* b, int64_t block, uint32_t low, uint32_t high, uint32_t step, uint32_t stream, uint32_t use) {
  vu c0 = splat_u((uint32_t)block * 16u) + (vu)lanes_iota(), c1 = splat_u(step), c2 = splat_u(stream), c3 = splat_u(use);
#pragma GCC unroll 1
  for (int round = 0; round < ${philoxRounds}; round++) {
    vu high0, high1;
    vu low0 = thimble_wide_product(c0, ${word(philoxMultipliers[0])}, &high0);
    vu low1 = thimble_wide_product(c2, ${word(philoxMultipliers[1])}, &high1);
    c0 = high1 ^ c1 ^ splat_u(low);
    c1 = low1;
    c2 = high0 ^ c3 ^ splat_u(high);
    c3 = low0;
    low += ${word(philoxWeyl[0])};
    high += ${word(philoxWeyl[1])};
  }
  b->block = block;
  b->words[0] = c0;
  b->words[1] = c1;
  b->words[2] = c2;
  b->words[3] = c3;
}
/* The words of elements index .. index + 15. */
INLINE vu thimble_noise(thimble_noise_block* b, vu low, vu high, vu step, vu stream, vu use, int64_t index) {
  if (b->block != index >> 6) thimble_noise_make(b, index >> 6, low[0], high[0], step[0], stream[0], use[0]);
  if ((index & 15) == 0) return b->words[(index >> 4) & 3];
  uint32_t both[32] __attribute__((aligned(64)));
  int64_t next = (index + 15) >> 4;
  *(vu*)both = b->words[(index >> 4) & 3];
  if (b->block != next >> 2) thimble_noise_make(b, next >> 2, low[0], high[0], step[0], stream[0], use[0]);
  *(vu*)(both + 16) = b->words[next & 3];
  thimble_loose_u joined = *(const thimble_loose_u*)(both + (index & 15));
  return (vu)joined;
}
#endif
`;
