/**
 * Loads and stores of 16 lanes, whole or the first n (0..16; the other lanes load as 0 and are not touched by stores),
 * with conversion between storage types and f32/i32/u32 lanes. Addresses need no alignment beyond the element's.
 */
function direct(type: "f32" | "i32" | "u32"): string {
  const letter = type.charAt(0);
  const vector = `v${letter}`;
  const element = { f32: "float", i32: "int32_t", u32: "uint32_t" }[type];
  const suffix = letter === "f" ? "ps" : "epi32";
  const cast = letter === "f" ? "" : "(__m512i)";
  return String.raw`
INLINE ${vector} load_${type}(const void* p) { return *(const thimble_loose_${letter}*)p; }
INLINE void store_${type}(void* p, ${vector} v) { *(thimble_loose_${letter}*)p = v; }
#ifdef HAS_AVX512
INLINE ${vector} load_${type}_n(const void* p, int n) { return (${vector})_mm512_maskz_loadu_${suffix}(thimble_mask(n), p); }
INLINE void store_${type}_n(void* p, ${vector} v, int n) { _mm512_mask_storeu_${suffix}(p, thimble_mask(n), ${cast}v); }
#else
INLINE ${vector} load_${type}_n(const void* p, int n) {
  if (n >= 16) return load_${type}(p);
  thimble_lanes v = {{0}};
  for (int i = 0; i < n; i++) __builtin_memcpy(&v.lane_${letter}[i], (const ${element}*)p + i, 4);
  return v.${letter};
}
INLINE void store_${type}_n(void* p, ${vector} v, int n) {
  if (n >= 16) { store_${type}(p, v); return; }
  thimble_lanes lanes = {.${letter} = v};
  for (int i = 0; i < n; i++) __builtin_memcpy((${element}*)p + i, &lanes.lane_${letter}[i], 4);
}
#endif`;
}

/** Loads and stores of `type` built on conversions of whole small vectors. */
function narrow(type: string, lanes: string, small: string, element: string, maskLoad: string): string {
  return String.raw`
INLINE ${small} thimble_load_${type}_n(const void* p, int n) {
#ifdef HAS_AVX512
  return (${small})${maskLoad}(thimble_mask(n), p);
#else
  ${small} v = {0};
  for (int i = 0; i < n; i++) v[i] = ((const ${element}*)p)[i];
  return v;
#endif
}
INLINE ${lanes} load_${type}(const void* p) { return thimble_expand_${type}(*(const thimble_loose_${small === "thimble_halves" ? "h" : "b"}*)p); }
INLINE ${lanes} load_${type}_n(const void* p, int n) { return thimble_expand_${type}(thimble_load_${type}_n(p, n)); }
INLINE void store_${type}(void* p, ${lanes} v) { *(thimble_loose_${small === "thimble_halves" ? "h" : "b"}*)p = thimble_shrink_${type}(v); }
INLINE void store_${type}_n(void* p, ${lanes} v, int n) {
  if (n >= 16) { store_${type}(p, v); return; }
  ${small} values = thimble_shrink_${type}(v);
  for (int i = 0; i < n; i++) ((${element}*)p)[i] = values[i];
}`;
}

const conversions = String.raw`
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
`;

const mask = String.raw`
#ifdef HAS_AVX512
INLINE __mmask16 thimble_mask(int n) { return (__mmask16)((1u << n) - 1u); }
#endif
`;

export const preludeMemory = [
  mask,
  ...(["f32", "i32", "u32"] as const).map(direct),
  conversions,
  narrow("bf16", "vf", "thimble_halves", "thimble_half_alias", "_mm256_maskz_loadu_epi16"),
  narrow("f16", "vf", "thimble_halves", "thimble_half_alias", "_mm256_maskz_loadu_epi16"),
  narrow("u8", "vu", "thimble_bytes", "uint8_t", "_mm_maskz_loadu_epi8"),
  narrow("bool", "vi", "thimble_bytes", "uint8_t", "_mm_maskz_loadu_epi8"),
].join("\n");
