/** Lane arithmetic. Comparison masks are -1 (true) or 0 in each lane of a `vi`. */
export const preludeArithmetic = String.raw`
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
`;
