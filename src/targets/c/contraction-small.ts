import { tileRows } from "./contraction-micro.js";
import { fewRows, thinDepth, thinRows } from "./contraction-plan.js";

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
 * A thin side of at most 24 against a wide side [K, x]: the wide side is read once, where it lies if its type allows.
 * With `turned` the thin side is `b`, and finished tiles are transposed.
 */
const thin = String.raw`
typedef struct { const void* left; int64_t step, jump; } thimble_left;

static __attribute__((noinline)) void thimble_thin(const thimble_contraction* t, const int64_t* w, int64_t batch, thimble_word_alias* area,
                                                   int64_t thread, int64_t threads, int turned) {
  int64_t thin = w[turned], wide = w[!turned], begin, end;
  const int64_t* words = w + 4 + 7 * t->segments;
  thimble_left lefts[THIMBLE_SEGMENTS];
  share(wide, 16, thread, threads, &begin, &end);
  if (begin >= end) return;
  for (int s = 0; s < t->segments; s++) {
    const int64_t* g = w + 4 + 7 * s + 3 * turned;
    const thimble_operand* operand = turned ? t->b[s] : t->a[s];
    int64_t K = w[4 + 7 * s + 6], units = (K + t->unit - 1) / t->unit, strips = (thin + ${tileRows - 1}) / ${tileRows};
    if (operand->across) {
      int64_t pitch = units * ${tileRows} + 16;
      operand->strips((const char*)g[0], batch * g[2], g[1], 0, thin, K, 0, 1, area, pitch);
      lefts[s] = (thimble_left){area, ${tileRows}, pitch};
      area += strips * pitch;
    } else if (operand->direct) {
      lefts[s] = (thimble_left){(const float*)g[0] + batch * g[2], g[1], g[1] * ${tileRows}};
    } else {
      int64_t length = (units + 15) / 16 * 16;
      operand->rows((const char*)g[0], batch * g[2], g[1], (int)thin, K, area, length);
      lefts[s] = (thimble_left){area, length, length * ${tileRows}};
      area += thin * length;
    }
  }
  for (int64_t c = begin; c < end; c += PANEL) {
    float tile[${thinRows} * PANEL] __attribute__((aligned(64)));
    int64_t valid = smaller(PANEL, end - c), width = (valid + 15) / 16 * 16;
    int more = 0;
    for (int s = 0; s < t->segments; s++) {
      const int64_t* g = w + 4 + 7 * s + 3 * !turned;
      const thimble_operand *operand = turned ? t->a[s] : t->b[s], *other = turned ? t->b[s] : t->a[s];
      int64_t K = w[4 + 7 * s + 6];
      for (int64_t k = 0; k < K; k += ${thinDepth}) {
        int64_t count = smaller(${thinDepth}, K - k), units = (count + t->unit - 1) / t->unit, pitch = width;
        const thimble_word_alias* panel = area;
        if (operand->direct && valid == width) {
          panel = (const thimble_word_alias*)g[0] + batch * g[2] + k * g[1] + c;
          pitch = g[1];
        } else {
          operand->panels((const char*)g[0], batch * g[2], g[1], c, valid, wide, k, k + count, 0, 1, area);
        }
        for (int64_t m = 0; m < thin; m += ${tileRows}) {
          const thimble_word_alias* left = (const thimble_word_alias*)lefts[s].left + m / ${tileRows} * lefts[s].jump
            + k / t->unit * (other->across ? ${tileRows} : 1);
          (other->across ? t->strip : t->row)((int)width, units, left, lefts[s].step, (int)smaller(${tileRows}, thin - m), panel, pitch,
                                              tile + m * PANEL, PANEL, more);
        }
        more = 1;
      }
    }
    if (!more) __builtin_memset(tile, 0, sizeof tile);
    if (!turned) {
      t->finish(tile, PANEL, thin, valid, batch, 0, c, words);
    } else {
      float lines[PANEL * 32] __attribute__((aligned(64)));
      for (int64_t j = 0; j < valid; j++)
        for (int64_t i = 0; i < thin; i++) lines[j * 32 + i] = tile[i * PANEL + j];
      for (int64_t j = 0; j < valid; j++)
        for (int64_t i = thin; i < (thin + 15) / 16 * 16; i++) lines[j * 32 + i] = 0;
      t->finish(lines, 32, valid, thin, batch, c, 0, words);
    }
  }
}`;

export const smallPaths = few + thin;
