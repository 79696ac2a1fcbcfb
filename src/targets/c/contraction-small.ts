import { tileRows } from "./contraction-micro.js";
import { fewRows, thinDepth, thinRows, thinWide } from "./contraction-plan.js";

/**
 * At most 8 rows and both sides [x, K]: dot products straight from the rows of `b`, which is read once, at the speed
 * of memory. Every thread has its own f32 copy of `a`.
 */
const few = String.raw`
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
    area += ${fewRows} * length;
    __builtin_memset(copy[s], 0, (size_t)(${fewRows} * length) * 4);
    for (int64_t m = 0; m < M; m++)
      for (int64_t k = 0; k < K; k += 256)
        t->a[s]->values((const char*)g[0], batch * g[2] + m * g[1] + k, smaller(256, K - k), copy[s] + m * length + k);
  }
  for (int64_t column = begin; column < end; column += 16) {
    float tile[${fewRows}][16] __attribute__((aligned(64)));
    for (int quad = 0; quad < 16; quad += 4) {
      float sums[${fewRows} * 64] __attribute__((aligned(64)));
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
}`;

/**
 * A thin side of at most 24 against a wide side [K, x]: the wide side is read once, where it lies if its type allows,
 * a stretch of k at a time, while the sums stay in cache. With `turned` the thin side is `b`, and sums are transposed.
 */
const thin = String.raw`
/* The thin side as rows that the kernels can use, and what it takes of "area". */
static thimble_word_alias* thimble_thin_left(const thimble_contraction* t, const int64_t* w, int64_t batch, int s, int turned,
                                             thimble_word_alias* area, thimble_part* left) {
  const int64_t* g = w + 4 + 7 * s + 3 * turned;
  const thimble_operand* operand = turned ? t->b[s] : t->a[s];
  int64_t thin = w[turned], K = w[4 + 7 * s + 6], units = (K + t->unit - 1) / t->unit;
  left->step = 1;
  if (operand->across) {
    int64_t pitch = units * ${tileRows} + 16;
    operand->strips((const char*)g[0], batch * g[2], g[1], 0, thin, K, 0, 1, area, pitch);
    *left = (thimble_part){.left = area, .apart = 1, .step = ${tileRows}, .pitch = pitch};
    return area + (thin + ${tileRows - 1}) / ${tileRows} * pitch;
  }
  if (operand->direct) {
    *left = (thimble_part){.left = (const float*)g[0] + batch * g[2], .apart = g[1], .step = 1, .pitch = g[1] * ${tileRows}};
    return area;
  }
  int64_t length = (units + 15) / 16 * 16;
  operand->rows((const char*)g[0], batch * g[2], g[1], (int)thin, K, area, length);
  *left = (thimble_part){.left = area, .apart = length, .step = 1, .pitch = length * ${tileRows}};
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
    for (int64_t m = 0, line = 0; m < thin; m += ${tileRows}, line += 2) {
      part.left = (const thimble_word_alias*)from->left + m / ${tileRows} * from->pitch + k / t->unit * from->step;
      part.first = next + smaller(line, lines - 1) * 64;
      part.second = next + smaller(line + 1, lines - 1) * 64;
      part.ahead = ahead;
      t->micro((int)width, (int)smaller(${tileRows}, thin - m), 1, &part, sums + m * ${thinWide} + p, ${thinWide}, more);
    }
  }
}

static void thimble_thin_finish(const thimble_contraction* t, const int64_t* w, int64_t batch, int turned, const float* sums, int64_t c, int64_t columns) {
  const int64_t* words = w + 4 + 7 * t->segments;
  int64_t thin = w[turned];
  if (!turned) {
    t->finish(sums, ${thinWide}, thin, columns, batch, 0, c, words);
    return;
  }
  for (int64_t p = 0; p < columns; p += 16) {
    thimble_word_alias lines[16 * 32] __attribute__((aligned(64)));
    for (int64_t m = 0; m < thin; m += 16) {
      const thimble_word_alias* rows[16];
      for (int i = 0; i < 16; i++) rows[i] = (const thimble_word_alias*)sums + smaller(m + i, thin - 1) * ${thinWide} + p;
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
  area += ${thinRows * thinWide};
  for (int s = 0; s < t->segments; s++) area = thimble_thin_left(t, w, batch, s, turned, area, left + s);
  for (int64_t c = begin; c < end; c += ${thinWide}) {
    int64_t columns = smaller(${thinWide}, end - c);
    int more = 0;
    for (int s = 0; s < t->segments; s++) {
      int64_t K = w[4 + 7 * s + 6];
      for (int64_t k = 0; k < K; k += ${thinDepth}, more = 1)
        thimble_thin_stretch(t, w, batch, s, turned, left + s, c, columns, k, smaller(${thinDepth}, K - k), area, sums, more);
    }
    if (!more) __builtin_memset(sums, 0, ${thinRows * thinWide * 4});
    thimble_thin_finish(t, w, batch, turned, sums, c, columns);
  }
}`;

export const smallPaths = few + thin;
