/**
 * Packing primitives. A "unit" is one word of a packed panel: a float, or two bf16 of neighbouring k (the earlier in
 * the low half) where the bf16 dot instruction is used.
 */
const transpose = String.raw`
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
`;

const units = String.raw`
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
`;

const dot = String.raw`
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
`;

export const packing: string = [
  "#ifndef THIMBLE_PACKING\n#define THIMBLE_PACKING",
  transpose,
  units,
  dot,
  "#endif",
].join("\n");
