#ifndef THIMBLE_NOISE
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
  for (int round = 0; round < 10; round++) {
    vu high0, high1;
    vu low0 = thimble_wide_product(c0, 3528531795u, &high0);
    vu low1 = thimble_wide_product(c2, 3449720151u, &high1);
    c0 = high1 ^ c1 ^ splat_u(low);
    c1 = low1;
    c2 = high0 ^ c3 ^ splat_u(high);
    c3 = low0;
    low += 2654435769u;
    high += 3144134277u;
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
EXPORT void loops_27ba2ca389f5558f(const int64_t* arguments, Context* context) {
  const char* in0 = (const char*)(uintptr_t)arguments[0]; (void)in0;
  const char* in1 = (const char*)(uintptr_t)arguments[1]; (void)in1;
  const char* in2 = (const char*)(uintptr_t)arguments[2]; (void)in2;
  const char* in3 = (const char*)(uintptr_t)arguments[3]; (void)in3;
  const char* in4 = (const char*)(uintptr_t)arguments[4]; (void)in4;
  const char* in5 = (const char*)(uintptr_t)arguments[5]; (void)in5;
  const char* in6 = (const char*)(uintptr_t)arguments[6]; (void)in6;
  const char* in7 = (const char*)(uintptr_t)arguments[7]; (void)in7;
  const char* in8 = (const char*)(uintptr_t)arguments[8]; (void)in8;
  const char* in9 = (const char*)(uintptr_t)arguments[9]; (void)in9;
  const char* in10 = (const char*)(uintptr_t)arguments[10]; (void)in10;
  char* out0 = (char*)(uintptr_t)arguments[11]; (void)out0;
  char* out1 = (char*)(uintptr_t)arguments[12]; (void)out1;
  char* out2 = (char*)(uintptr_t)arguments[13]; (void)out2;
  const int64_t s0 = arguments[14];
  const int64_t s1 = arguments[15];
  const int64_t s2 = arguments[16];
  const int64_t s3 = arguments[17];
  const int64_t s4 = arguments[18];
  const vf number_s1 = bitcast_i_to_f(splat_i((int32_t)s1));
  const vf number_s2 = bitcast_i_to_f(splat_i((int32_t)s2));
  const vf number_s3 = bitcast_i_to_f(splat_i((int32_t)s3));
  const vf number_s4 = bitcast_i_to_f(splat_i((int32_t)s4));
  thimble_noise_block v30_block = {.block = -1};
  thimble_noise_block v48_block = {.block = -1};
  {
    const vf v0 = splat_f(get_f32(in3 + (0) * 4));
    const vf v1 = splat_f(get_f32(in4 + (0) * 4));
    const vf v2 = v0 / v1;
    const vf v3 = splat_f(get_f32(in6 + (0) * 4));
    const vu v4 = splat_u(get_u32(in7 + (0) * 4));
    const vu v5 = splat_u(get_u32(in8 + (0) * 4));
    const vu v6 = splat_u(get_u32(in9 + (0) * 4));
    const vu v7 = splat_u(get_u32(in10 + (0) * 4));
    const vu v8 = v7 + splat_u(1u);
    int64_t begin, end;
    share(s0, 64, context->thread, context->threads, &begin, &end);
    {
      int64_t i0 = begin;
      const int64_t i0_end = end;
      for (; i0 + 16 <= i0_end; i0 += 16) {
        const vf v9 = load_bf16(in0 + (i0) * 2);
        const vf v10 = load_bf16(in1 + (i0) * 2);
        const vf v11 = load_f32(in2 + (i0) * 4);
        const vf v12 = v11 - v10;
        const vf v13 = v12 * number_s1;
        const vf v14 = v10 + v13;
        const vf v15 = v14 * v2;
        const vf v16 = load_bf16(in5 + (i0) * 2);
        const vf v17 = v16 * number_s2;
        const vf v18 = v11 * v11;
        const vf v19 = v18 * number_s3;
        const vf v20 = v17 + v19;
        const vf v21 = sqrt_f(v20);
        const vf v22 = v21 / v3;
        const vf v23 = v22 + number_s4;
        const vf v24 = v15 / v23;
        const vf v25 = v9 - v24;
        const vu v26 = (vu)v25;
        const vu v27 = v26 & splat_u(2147483647u);
        const vi v28 = v27 <= splat_u(2139095039u);
        const vu v29 = (vu)counting(i0, 1);
        (void)v29;
        const vu v30 = thimble_noise(&v30_block, v4, v5, v6, v7, splat_u(0u), i0);
        const vu v31 = v30 & splat_u(65535u);
        const vu v32 = v26 + v31;
        const vu v33 = v32 & splat_u(4294901760u);
        const vu v34 = select_u(v28, v33, v26);
        const vf v35 = (vf)v34;
        const vu v36 = (vu)v14;
        const vu v37 = v36 & splat_u(2147483647u);
        const vi v38 = v37 <= splat_u(2139095039u);
        const vu v39 = v30 >> splat_u(16u);
        const vu v40 = v39 & splat_u(65535u);
        const vu v41 = v36 + v40;
        const vu v42 = v41 & splat_u(4294901760u);
        const vu v43 = select_u(v38, v42, v36);
        const vf v44 = (vf)v43;
        const vu v45 = (vu)v20;
        const vu v46 = v45 & splat_u(2147483647u);
        const vi v47 = v46 <= splat_u(2139095039u);
        (void)v29;
        const vu v48 = thimble_noise(&v48_block, v4, v5, v6, v8, splat_u(0u), i0);
        const vu v49 = v48 & splat_u(65535u);
        const vu v50 = v45 + v49;
        const vu v51 = v50 & splat_u(4294901760u);
        const vu v52 = select_u(v47, v51, v45);
        const vf v53 = (vf)v52;
        store_bf16(out0 + (i0) * 2, v35);
        store_bf16(out1 + (i0) * 2, v44);
        store_bf16(out2 + (i0) * 2, v53);
      }
      if (i0 < i0_end) {
        const int n = (int)(i0_end - i0); (void)n;
        const vf v9 = load_bf16_n(in0 + (i0) * 2, n);
        const vf v10 = load_bf16_n(in1 + (i0) * 2, n);
        const vf v11 = load_f32_n(in2 + (i0) * 4, n);
        const vf v12 = v11 - v10;
        const vf v13 = v12 * number_s1;
        const vf v14 = v10 + v13;
        const vf v15 = v14 * v2;
        const vf v16 = load_bf16_n(in5 + (i0) * 2, n);
        const vf v17 = v16 * number_s2;
        const vf v18 = v11 * v11;
        const vf v19 = v18 * number_s3;
        const vf v20 = v17 + v19;
        const vf v21 = sqrt_f(v20);
        const vf v22 = v21 / v3;
        const vf v23 = v22 + number_s4;
        const vf v24 = v15 / v23;
        const vf v25 = v9 - v24;
        const vu v26 = (vu)v25;
        const vu v27 = v26 & splat_u(2147483647u);
        const vi v28 = v27 <= splat_u(2139095039u);
        const vu v29 = (vu)counting(i0, 1);
        (void)v29;
        const vu v30 = thimble_noise(&v30_block, v4, v5, v6, v7, splat_u(0u), i0);
        const vu v31 = v30 & splat_u(65535u);
        const vu v32 = v26 + v31;
        const vu v33 = v32 & splat_u(4294901760u);
        const vu v34 = select_u(v28, v33, v26);
        const vf v35 = (vf)v34;
        const vu v36 = (vu)v14;
        const vu v37 = v36 & splat_u(2147483647u);
        const vi v38 = v37 <= splat_u(2139095039u);
        const vu v39 = v30 >> splat_u(16u);
        const vu v40 = v39 & splat_u(65535u);
        const vu v41 = v36 + v40;
        const vu v42 = v41 & splat_u(4294901760u);
        const vu v43 = select_u(v38, v42, v36);
        const vf v44 = (vf)v43;
        const vu v45 = (vu)v20;
        const vu v46 = v45 & splat_u(2147483647u);
        const vi v47 = v46 <= splat_u(2139095039u);
        (void)v29;
        const vu v48 = thimble_noise(&v48_block, v4, v5, v6, v8, splat_u(0u), i0);
        const vu v49 = v48 & splat_u(65535u);
        const vu v50 = v45 + v49;
        const vu v51 = v50 & splat_u(4294901760u);
        const vu v52 = select_u(v47, v51, v45);
        const vf v53 = (vf)v52;
        store_bf16_n(out0 + (i0) * 2, v35, n);
        store_bf16_n(out1 + (i0) * 2, v44, n);
        store_bf16_n(out2 + (i0) * 2, v53, n);
      }
    }
  }
}

// loops_27ba2ca389f5558f(@64, @12352, @36928, @0, @4, @24640, @8, @12, @16, @20, @24, @64, @12352, @24640, 6144, 1036831949, 1065336439, 981668463, 841731191)
