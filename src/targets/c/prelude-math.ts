/**
 * exp and log of 16 lanes, within 2 units in the last place of the true value, special values included. Minimax
 * polynomials after Moshier's Cephes single-precision library (public domain).
 */
export const preludeMath = String.raw`
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
`;
