#ifndef THIMBLE_ONCE_contraction_c20cc46a0bafc7c8
#define THIMBLE_ONCE_contraction_c20cc46a0bafc7c8


#ifndef THIMBLE_ONCE_thimble_f32_f32
#define THIMBLE_ONCE_thimble_f32_f32

INLINE void thimble_f32_f32_fill(const char* base, int64_t element, int64_t count, float* out) {
  const thimble_float_alias* p = (const thimble_float_alias*)base + element;
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) store_f32(out + i, (load_f32(p + i)));
  if (i < count) store_f32_n(out + i, (load_f32_n(p + i, (int)(count - i))), (int)(count - i));
}
static __attribute__((noinline, unused)) void thimble_f32_f32_values(const char* base, int64_t element, int64_t count, float* out) {
  thimble_f32_f32_fill(base, element, count, out);
}
INLINE void thimble_f32_f32_units(const char* base, int64_t element, int64_t count, thimble_word_alias* out) {
  thimble_f32_f32_fill(base, element, count, (float*)out);
}
INLINE void thimble_f32_f32_columns(const char* base, int64_t element, int64_t stride, int64_t rows, int64_t count, thimble_word_alias* out) {
  (void)stride; (void)rows;
  thimble_f32_f32_fill(base, element, count, (float*)out);
}
#endif

#ifndef THIMBLE_ONCE_thimble_f32_f32_along
#define THIMBLE_ONCE_thimble_f32_f32_along

static void thimble_f32_f32_along_panels(const char* base, int64_t offset, int64_t stride, int64_t first, int64_t columns, int64_t last,
                                 int64_t k0, int64_t k1, int64_t member, int64_t members, thimble_word_alias* out) {
  int64_t padded = (columns + 15) / 16 * 16, total = (k1 - k0 + UNIT_f32 - 1) / UNIT_f32, parts = (k1 - k0 + 255) / 256;
  int64_t begin, end;
  share(padded / 16 * parts, 1, member, members, &begin, &end);
  for (int64_t item = begin; item < end; item++) {
    int64_t c = item / parts * 16, k = k0 + item % parts * 256, count = smaller(256, k1 - k);
    int64_t panel = c / PANEL * PANEL, width = smaller(PANEL, padded - panel);
    thimble_word_alias* lines = out + panel * total + (k - k0) / UNIT_f32 * width + (c - panel);
    const thimble_word_alias* rows[16];

    for (int i = 0; i < 16; i++) {
      int64_t element = offset + smaller(first + c + i, last - 1) * stride + k;
      const char* next = base + element * 4 + 4 * (k + 256 < k1 ? 256 : 16 * stride - (k - k0));
      for (int64_t byte = 0; byte < count * 4; byte += 64) __builtin_prefetch(next + byte);
      rows[i] = (const thimble_word_alias*)base + element;
    }
    thimble_pack_rows(rows, (count + UNIT_f32 - 1) / UNIT_f32, lines, width);
  }
}
static void thimble_f32_f32_along_rows(const char* base, int64_t element, int64_t stride, int rows, int64_t depth,
                               thimble_word_alias* out, int64_t length) {
  for (int i = 0; i < rows; i++)
    for (int64_t k = 0; k < depth; k += 256)
      thimble_f32_f32_units(base, element + i * stride + k, smaller(256, depth - k), out + i * length + k / UNIT_f32);
}
static const thimble_operand thimble_f32_f32_along = {.across = 0, .direct = 1, .pairs = 0, .elements = 1, .bytes = 4, .plain = 4, .panels = thimble_f32_f32_along_panels, .rows = thimble_f32_f32_along_rows, .values = thimble_f32_f32_values};
#endif



#ifndef THIMBLE_ONCE_epilogue_d3e72369f3387c53
#define THIMBLE_ONCE_epilogue_d3e72369f3387c53
INLINE void epilogue_d3e72369f3387c53(vf sums, int64_t batch, int64_t row, int64_t column, int n, const int64_t* words) {
  (void)sums; (void)batch; (void)row; (void)column; (void)n;
  char* out0 = (char*)(uintptr_t)words[0];
  const int64_t s0 = words[1];
  const int64_t s1 = words[2];
  const vf number_s0 = bitcast_i_to_f(splat_i((int32_t)s0));
  if (n == 16) {
    const vf v1 = sums * number_s0;
    store_f32(out0 + (row * s1 + column) * 4, v1);
  } else {
    const vf v1 = sums * number_s0;
    store_f32_n(out0 + (row * s1 + column) * 4, v1, n);
  }
}

#endif


static void contraction_c20cc46a0bafc7c8_finish(const float* tile, int64_t length, int64_t rows, int64_t columns, int64_t batch, int64_t row, int64_t column, const int64_t* words) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += 16) {
      if (columns - j >= 16) epilogue_d3e72369f3387c53(load_f32(tile + i * length + j), batch, row + i, column + j, 16, words);
      else epilogue_d3e72369f3387c53(load_f32(tile + i * length + j), batch, row + i, column + j, (int)(columns - j), words);
    }
}

static const thimble_contraction contraction_c20cc46a0bafc7c8_parts = {
  .segments = 1, .unit = UNIT_f32, .granule = 64, .depth = 2304,
  .micro = thimble_micro_f32, .finish = contraction_c20cc46a0bafc7c8_finish,
  .a = {&thimble_f32_f32_along}, .b = {&thimble_f32_f32_along},
};
EXPORT void contraction_c20cc46a0bafc7c8(const int64_t* w, Context* context) { thimble_contract(&contraction_c20cc46a0bafc7c8_parts, w, context); }

#endif

#ifndef THIMBLE_ONCE_contraction_16431b586950ff60
#define THIMBLE_ONCE_contraction_16431b586950ff60










#ifndef THIMBLE_ONCE_store_f32_tile
#define THIMBLE_ONCE_store_f32_tile

INLINE void store_f32_tile(vf sums, int64_t batch, int64_t row, int64_t column, int n, const int64_t* words) {
  thimble_float_alias* p = (thimble_float_alias*)words[0] + batch * words[2] + row * words[1] + column;
  store_f32_n(p, sums, n);
}
#endif


static void contraction_16431b586950ff60_finish(const float* tile, int64_t length, int64_t rows, int64_t columns, int64_t batch, int64_t row, int64_t column, const int64_t* words) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += 16) {
      if (columns - j >= 16) store_f32_tile(load_f32(tile + i * length + j), batch, row + i, column + j, 16, words);
      else store_f32_tile(load_f32(tile + i * length + j), batch, row + i, column + j, (int)(columns - j), words);
    }
}

static const thimble_contraction contraction_16431b586950ff60_parts = {
  .segments = 2, .unit = UNIT_f32, .granule = 64, .depth = 2304,
  .micro = thimble_micro_f32, .finish = contraction_16431b586950ff60_finish,
  .a = {&thimble_f32_f32_along, &thimble_f32_f32_along}, .b = {&thimble_f32_f32_along, &thimble_f32_f32_along},
};
EXPORT void contraction_16431b586950ff60(const int64_t* w, Context* context) { thimble_contract(&contraction_16431b586950ff60_parts, w, context); }

#endif

// contraction_c20cc46a0bafc7c8(64, 16, 1, @66560, @0, 96, 0, @55296, 96, 0, 96, @559680, 1073741824, 16)
// contraction_16431b586950ff60(64, 80, 1, @66560, @0, 96, 0, @24576, 96, 0, 96, @559680, 16, 0, @61440, 16, 0, 16, @539200, 80, 5120)
