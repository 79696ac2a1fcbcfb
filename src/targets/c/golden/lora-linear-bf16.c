#ifndef THIMBLE_ONCE_contraction_314a19fadf847678
#define THIMBLE_ONCE_contraction_314a19fadf847678


#ifndef THIMBLE_ONCE_thimble_bf16_bf16
#define THIMBLE_ONCE_thimble_bf16_bf16

INLINE void thimble_bf16_bf16_fill(const char* base, int64_t element, int64_t count, float* out) {
  const thimble_half_alias* p = (const thimble_half_alias*)base + element;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) store_f32(out + i, (load_bf16(p + i)));
  if (i < count) store_f32_n(out + i, (load_bf16_n(p + i, (int)(count - i))), (int)(count - i));
}
static __attribute__((noinline, unused)) void thimble_bf16_bf16_values(const char* base, int64_t element, int64_t count, float* out) {
  thimble_bf16_bf16_fill(base, element, count, out);
}
INLINE void thimble_bf16_bf16_units(const char* base, int64_t element, int64_t count, thimble_word_alias* out) {
#ifdef HAS_BF16_DOT
  float values[256] __attribute__((aligned(64)));
  thimble_bf16_bf16_fill(base, element, count, values);
  thimble_pairs(values, count, out);
#else
  thimble_bf16_bf16_values(base, element, count, (float*)out);
#endif
}
INLINE void thimble_bf16_bf16_columns(const char* base, int64_t element, int64_t stride, int64_t rows, int64_t count, thimble_word_alias* out) {
#ifdef HAS_BF16_DOT
  float values[2][256] __attribute__((aligned(64)));
  thimble_bf16_bf16_fill(base, element, count, values[0]);
  if (rows > 1) thimble_bf16_bf16_fill(base, element + stride, count, values[1]);
  else __builtin_memset(values[1], 0, sizeof values[1]);
  thimble_interleave(values[0], values[1], count, out);
#else
  (void)stride; (void)rows;
  thimble_bf16_bf16_values(base, element, count, (float*)out);
#endif
}
#endif

#ifndef THIMBLE_ONCE_thimble_bf16_bf16_along
#define THIMBLE_ONCE_thimble_bf16_bf16_along

static void thimble_bf16_bf16_along_panels(const char* base, int64_t offset, int64_t stride, int64_t first, int64_t columns, int64_t last,
                                 int64_t k0, int64_t k1, int64_t member, int64_t members, thimble_word_alias* out) {
  int64_t padded = (columns + 15) / 16 * 16, total = (k1 - k0 + UNIT_bf16 - 1) / UNIT_bf16, parts = (k1 - k0 + 255) / 256;
  int64_t begin, end;
  share(padded / 16 * parts, 1, member, members, &begin, &end);
  for (int64_t item = begin; item < end; item++) {
    int64_t c = item / parts * 16, k = k0 + item % parts * 256, count = smaller(256, k1 - k);
    int64_t panel = c / PANEL * PANEL, width = smaller(PANEL, padded - panel);
    thimble_word_alias* lines = out + panel * total + (k - k0) / UNIT_bf16 * width + (c - panel);
    const thimble_word_alias* rows[16];
    uint32_t words[16][256 / UNIT_bf16] __attribute__((aligned(64)));
    for (int i = 0; i < 16; i++) {
      int64_t element = offset + smaller(first + c + i, last - 1) * stride + k;
      const char* next = base + element * 2 + 2 * (k + 256 < k1 ? 256 : 16 * stride - (k - k0));
      for (int64_t byte = 0; byte < count * 2; byte += 64) __builtin_prefetch(next + byte);
      rows[i] = words[i];
      thimble_bf16_bf16_units(base, element, count, words[i]);
    }
    thimble_pack_rows(rows, (count + UNIT_bf16 - 1) / UNIT_bf16, lines, width);
  }
}
static void thimble_bf16_bf16_along_rows(const char* base, int64_t element, int64_t stride, int rows, int64_t depth,
                               thimble_word_alias* out, int64_t length) {
  for (int i = 0; i < rows; i++)
    for (int64_t k = 0; k < depth; k += 256)
      thimble_bf16_bf16_units(base, element + i * stride + k, smaller(256, depth - k), out + i * length + k / UNIT_bf16);
}
static const thimble_operand thimble_bf16_bf16_along = {.across = 0, .direct = 0, .pairs = UNIT_bf16 == 2, .elements = 1, .bytes = 2, .plain = 2, .panels = thimble_bf16_bf16_along_panels, .rows = thimble_bf16_bf16_along_rows, .values = thimble_bf16_bf16_values};
#endif

#ifndef THIMBLE_ONCE_thimble_bf16_f32
#define THIMBLE_ONCE_thimble_bf16_f32

INLINE void thimble_bf16_f32_fill(const char* base, int64_t element, int64_t count, float* out) {
  const thimble_float_alias* p = (const thimble_float_alias*)base + element;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) store_f32(out + i, (load_f32(p + i)));
  if (i < count) store_f32_n(out + i, (load_f32_n(p + i, (int)(count - i))), (int)(count - i));
}
INLINE void thimble_bf16_f32_rounded(const char* base, int64_t element, int64_t count, float* out) {
  const thimble_float_alias* p = (const thimble_float_alias*)base + element;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) store_f32(out + i, round_bf16(load_f32(p + i)));
  if (i < count) store_f32_n(out + i, round_bf16(load_f32_n(p + i, (int)(count - i))), (int)(count - i));
}
static __attribute__((noinline, unused)) void thimble_bf16_f32_values(const char* base, int64_t element, int64_t count, float* out) {
  thimble_bf16_f32_rounded(base, element, count, out);
}
INLINE void thimble_bf16_f32_units(const char* base, int64_t element, int64_t count, thimble_word_alias* out) {
#ifdef HAS_BF16_DOT
  float values[256] __attribute__((aligned(64)));
  thimble_bf16_f32_fill(base, element, count, values);
  thimble_pairs(values, count, out);
#else
  thimble_bf16_f32_values(base, element, count, (float*)out);
#endif
}
INLINE void thimble_bf16_f32_columns(const char* base, int64_t element, int64_t stride, int64_t rows, int64_t count, thimble_word_alias* out) {
#ifdef HAS_BF16_DOT
  float values[2][256] __attribute__((aligned(64)));
  thimble_bf16_f32_fill(base, element, count, values[0]);
  if (rows > 1) thimble_bf16_f32_fill(base, element + stride, count, values[1]);
  else __builtin_memset(values[1], 0, sizeof values[1]);
  thimble_interleave(values[0], values[1], count, out);
#else
  (void)stride; (void)rows;
  thimble_bf16_f32_values(base, element, count, (float*)out);
#endif
}
#endif

#ifndef THIMBLE_ONCE_thimble_bf16_f32_along
#define THIMBLE_ONCE_thimble_bf16_f32_along

static void thimble_bf16_f32_along_panels(const char* base, int64_t offset, int64_t stride, int64_t first, int64_t columns, int64_t last,
                                 int64_t k0, int64_t k1, int64_t member, int64_t members, thimble_word_alias* out) {
  int64_t padded = (columns + 15) / 16 * 16, total = (k1 - k0 + UNIT_bf16 - 1) / UNIT_bf16, parts = (k1 - k0 + 255) / 256;
  int64_t begin, end;
  share(padded / 16 * parts, 1, member, members, &begin, &end);
  for (int64_t item = begin; item < end; item++) {
    int64_t c = item / parts * 16, k = k0 + item % parts * 256, count = smaller(256, k1 - k);
    int64_t panel = c / PANEL * PANEL, width = smaller(PANEL, padded - panel);
    thimble_word_alias* lines = out + panel * total + (k - k0) / UNIT_bf16 * width + (c - panel);
    const thimble_word_alias* rows[16];
    uint32_t words[16][256 / UNIT_bf16] __attribute__((aligned(64)));
    for (int i = 0; i < 16; i++) {
      int64_t element = offset + smaller(first + c + i, last - 1) * stride + k;
      const char* next = base + element * 4 + 4 * (k + 256 < k1 ? 256 : 16 * stride - (k - k0));
      for (int64_t byte = 0; byte < count * 4; byte += 64) __builtin_prefetch(next + byte);
      rows[i] = words[i];
      thimble_bf16_f32_units(base, element, count, words[i]);
    }
    thimble_pack_rows(rows, (count + UNIT_bf16 - 1) / UNIT_bf16, lines, width);
  }
}
static void thimble_bf16_f32_along_rows(const char* base, int64_t element, int64_t stride, int rows, int64_t depth,
                               thimble_word_alias* out, int64_t length) {
  for (int i = 0; i < rows; i++)
    for (int64_t k = 0; k < depth; k += 256)
      thimble_bf16_f32_units(base, element + i * stride + k, smaller(256, depth - k), out + i * length + k / UNIT_bf16);
}
static const thimble_operand thimble_bf16_f32_along = {.across = 0, .direct = 0, .pairs = 0, .elements = 1, .bytes = 4, .plain = 4, .panels = thimble_bf16_f32_along_panels, .rows = thimble_bf16_f32_along_rows, .values = thimble_bf16_f32_values};
#endif

#ifndef THIMBLE_ONCE_epilogue_9e270beb10113476
#define THIMBLE_ONCE_epilogue_9e270beb10113476
INLINE void epilogue_9e270beb10113476(vf sums, int64_t batch, int64_t row, int64_t column, int n, const int64_t* words) {
  (void)sums; (void)batch; (void)row; (void)column; (void)n;
  char* out0 = (char*)(uintptr_t)words[0];
  const int64_t s0 = words[1];
  const int64_t s1 = words[2];
  const vf number_s0 = bitcast_i_to_f(splat_i((int32_t)s0));
  if (n == 16) {
    const vf v1 = sums * number_s0;
    store_bf16(out0 + (row * s1 + column) * 2, v1);
  } else {
    const vf v1 = sums * number_s0;
    store_bf16_n(out0 + (row * s1 + column) * 2, v1, n);
  }
}

#endif


static void contraction_314a19fadf847678_finish(const float* tile, int64_t length, int64_t rows, int64_t columns, int64_t batch, int64_t row, int64_t column, const int64_t* words) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += 16) {
      if (columns - j >= 16) epilogue_9e270beb10113476(load_f32(tile + i * length + j), batch, row + i, column + j, 16, words);
      else epilogue_9e270beb10113476(load_f32(tile + i * length + j), batch, row + i, column + j, (int)(columns - j), words);
    }
}

static const thimble_contraction contraction_314a19fadf847678_parts = {
  .segments = 1, .unit = UNIT_bf16, .granule = 64, .depth = 1152,
  .micro = thimble_micro_bf16, .finish = contraction_314a19fadf847678_finish,
  .a = {&thimble_bf16_bf16_along}, .b = {&thimble_bf16_f32_along},
};
EXPORT void contraction_314a19fadf847678(const int64_t* w, Context* context) { thimble_contract(&contraction_314a19fadf847678_parts, w, context); }

#endif

#ifndef THIMBLE_ONCE_contraction_133ba6ba62d5ee37
#define THIMBLE_ONCE_contraction_133ba6ba62d5ee37










#ifndef THIMBLE_ONCE_epilogue_071ae71740937704
#define THIMBLE_ONCE_epilogue_071ae71740937704
INLINE void epilogue_071ae71740937704(vf sums, int64_t batch, int64_t row, int64_t column, int n, const int64_t* words) {
  (void)sums; (void)batch; (void)row; (void)column; (void)n;
  char* out0 = (char*)(uintptr_t)words[0];
  const int64_t s0 = words[1];
  if (n == 16) {
    store_bf16(out0 + (row * s0 + column) * 2, sums);
  } else {
    store_bf16_n(out0 + (row * s0 + column) * 2, sums, n);
  }
}

#endif


static void contraction_133ba6ba62d5ee37_finish(const float* tile, int64_t length, int64_t rows, int64_t columns, int64_t batch, int64_t row, int64_t column, const int64_t* words) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += 16) {
      if (columns - j >= 16) epilogue_071ae71740937704(load_f32(tile + i * length + j), batch, row + i, column + j, 16, words);
      else epilogue_071ae71740937704(load_f32(tile + i * length + j), batch, row + i, column + j, (int)(columns - j), words);
    }
}

static const thimble_contraction contraction_133ba6ba62d5ee37_parts = {
  .segments = 2, .unit = UNIT_bf16, .granule = 64, .depth = 1152,
  .micro = thimble_micro_bf16, .finish = contraction_133ba6ba62d5ee37_finish,
  .a = {&thimble_bf16_bf16_along, &thimble_bf16_bf16_along}, .b = {&thimble_bf16_bf16_along, &thimble_bf16_f32_along},
};
EXPORT void contraction_133ba6ba62d5ee37(const int64_t* w, Context* context) { thimble_contract(&contraction_133ba6ba62d5ee37_parts, w, context); }

#endif

// contraction_314a19fadf847678(64, 16, 1, @38912, @0, 96, 0, @27648, 96, 0, 96, @521792, 1073741824, 16)
// contraction_133ba6ba62d5ee37(64, 80, 1, @38912, @0, 96, 0, @12288, 96, 0, 96, @521792, 16, 0, @33792, 16, 0, 16, @511552, 80)
