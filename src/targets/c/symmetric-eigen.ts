import type { KernelSource } from "./contraction-types.js";

export interface EigenArguments<Word> {
  readonly matrix: Word;
  readonly values: Word;
  readonly vectors: Word;
  readonly workspace: Word;
  readonly size: Word;
}

/** Words of an eigenvalue kernel, in order. */
export function eigenWords<Word>({ matrix, values, vectors, workspace, size }: EigenArguments<Word>): Word[] {
  return [matrix, values, vectors, workspace, size];
}

/** Rows of f64 are padded to whole vectors. */
const padded = (size: number): number => Math.ceil(size / 8) * 8;

/** Two matrices (the reflections, and the vectors), eight lines, and the rotations of one sweep. */
export function eigenWorkspace(size: number): number {
  return 8 * (2 * size * padded(size) + 10 * padded(size)) + 128;
}

/**
 * Householder's reduction to a tridiagonal matrix (Golub and Van Loan, algorithm 8.3.1) and implicit QL steps with
 * Wilkinson's shift (8.3.3, from the other end), all in f64. The vectors are rows of a transposed matrix, so that a
 * rotation works on two contiguous rows. Threads share the rows of the products and the columns of the rotations; each
 * sum is made by one thread in one order, so results do not depend on their number.
 */
export function renderSymmetricEigen(): KernelSource {
  const name = "symmetric_eigen";
  const source = String.raw`
typedef double eigen_line __attribute__((vector_size(64), may_alias));
INLINE double eigen_sum(eigen_line v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }
INLINE double eigen_root(double x) { return __builtin_sqrt(x); }
INLINE double eigen_size(double x) { return __builtin_fabs(x); }
/* Lines are whole vectors, and zero past their ends. */
INLINE double eigen_dot(const double* a, const double* b, int64_t from, int64_t lines) {
  eigen_line sum = {0};
  for (int64_t i = from / 8; i < lines; i++) sum += ((const eigen_line*)a)[i] * ((const eigen_line*)b)[i];
  return eigen_sum(sum);
}
INLINE double eigen_length(double a, double b) {
  double x = eigen_size(a), y = eigen_size(b), most = x > y ? x : y, least = x > y ? y : x;
  if (most == 0) return 0;
  return most * eigen_root(1 + (least / most) * (least / most));
}

/* Rows k + 1.. of A lose row and column k: v, scaled to v.v = 2, is left in row k of "hold"; d and e get the diagonal
   and what is beside it. */
static void eigen_reduce(double* A, double* hold, double* d, double* e, double* p, int64_t n, int64_t pitch, Context* context) {
  const int64_t lines = pitch / 8;
  for (int64_t k = 0; k < n - 1; k++) {
    double* v = hold + k * pitch;
    if (context->thread == 0) {
      const double* row = A + k * pitch;
      for (int64_t i = 0; i < pitch; i++) v[i] = i > k && i < n ? row[i] : 0;
      double size = 0;
      for (int64_t i = k + 1; i < n; i++) size = eigen_size(v[i]) > size ? eigen_size(v[i]) : size;
      d[k] = row[k];
      e[k] = 0;
      if (size > 0) {
        for (int64_t i = k + 1; i < n; i++) v[i] /= size;
        double length = eigen_root(eigen_dot(v, v, k + 1, lines));
        double first = v[k + 1], turned = first > 0 ? -length : length;
        e[k] = turned * size;
        v[k + 1] = first - turned;
        double scale = eigen_root(2 / eigen_dot(v, v, k + 1, lines));
        for (int64_t i = k + 1; i < n; i++) v[i] *= scale;
      }
    }
    barrier(context);
    int64_t begin, end;
    share(n - k - 1, 8, context->thread, context->threads, &begin, &end);
    for (int64_t i = k + 1 + begin; i < k + 1 + end; i++) p[i] = eigen_dot(A + i * pitch, v, k + 1, lines);
    barrier(context);
    /* A - v w' - w v' with w = p - v (p.v) / 2. */
    const double half = eigen_dot(p, v, k + 1, lines) / 2;
    for (int64_t i = k + 1 + begin; i < k + 1 + end; i++) {
      const double vi = v[i], wi = p[i] - vi * half;
      eigen_line* row = (eigen_line*)(A + i * pitch);
      const eigen_line *pv = (const eigen_line*)v, *pp = (const eigen_line*)p;
      for (int64_t j = (k + 1) / 8; j < lines; j++) row[j] -= vi * (pp[j] - pv[j] * half) + wi * pv[j];
    }
    barrier(context);
  }
  if (context->thread == 0) {
    d[n - 1] = A[(n - 1) * pitch + n - 1];
    e[n - 1] = 0;
  }
  barrier(context);
}

/* Of A = Q T Q' with Q = H0 H1 ...: Q' = ... H1 H0, of which the vectors of T make those of A. */
static void eigen_collect(double* Q, const double* hold, int64_t n, int64_t pitch, Context* context) {
  int64_t begin, end;
  const int64_t lines = pitch / 8;
  share(n, 1, context->thread, context->threads, &begin, &end);
  for (int64_t i = begin; i < end; i++) {
    double* row = Q + i * pitch;
    for (int64_t j = 0; j < pitch; j++) row[j] = j == i;
    for (int64_t k = smaller(n - 2, i - 1); k >= 0; k--) {
      const double* v = hold + k * pitch;
      const double dot = eigen_dot(row, v, k + 1, lines);
      for (int64_t j = (k + 1) / 8; j < lines; j++) ((eigen_line*)row)[j] -= dot * ((const eigen_line*)v)[j];
    }
  }
  barrier(context);
}

/* One implicit QL sweep on d[l..m], e[l..m-1]; its rotations, (c, s) each from m - 1 down to l, go to "turns". */
static int64_t eigen_sweep(double* d, double* e, double* turns, int64_t l, int64_t m) {
  double g = (d[l + 1] - d[l]) / (2 * e[l]), r = eigen_length(g, 1);
  g = d[m] - d[l] + e[l] / (g + (g >= 0 ? r : -r));
  double s = 1, c = 1, p = 0;
  for (int64_t i = m - 1; i >= l; i--) {
    double f = s * e[i], b = c * e[i];
    e[i + 1] = r = eigen_length(f, g);
    if (r == 0) {
      d[i + 1] -= p;
      e[m] = 0;
      return m - 1 - i;
    }
    s = f / r;
    c = g / r;
    g = d[i + 1] - p;
    r = (d[i] - g) * s + 2 * c * b;
    p = s * r;
    d[i + 1] = g + p;
    g = c * r - b;
    turns[2 * (m - 1 - i)] = c;
    turns[2 * (m - 1 - i) + 1] = s;
  }
  d[l] -= p;
  e[l] = g;
  e[m] = 0;
  return m - l;
}

static void eigen_iterate(double* Q, double* d, double* e, double* turns, volatile int64_t* shared, int64_t n, int64_t pitch, Context* context) {
  int64_t begin, end;
  share(pitch, 8, context->thread, context->threads, &begin, &end);
  for (int64_t l = 0; l < n; l++) {
    for (int64_t tries = 0; tries < 60; tries++) {
      if (context->thread == 0) {
        int64_t m = l;
        while (m < n - 1) {
          double size = eigen_size(d[m]) + eigen_size(d[m + 1]);
          if (eigen_size(e[m]) <= 2.3e-16 * size) break;
          m++;
        }
        shared[0] = m;
        shared[1] = m > l ? eigen_sweep(d, e, turns, l, m) : 0;
      }
      barrier(context);
      const int64_t m = shared[0], count = shared[1];
      for (int64_t t = 0; t < count; t++) {
        const double c = turns[2 * t], s = turns[2 * t + 1];
        eigen_line *low = (eigen_line*)(Q + (m - 1 - t) * pitch), *high = (eigen_line*)(Q + (m - t) * pitch);
        for (int64_t j = begin / 8; j < end / 8; j++) {
          const eigen_line f = high[j];
          high[j] = s * low[j] + c * f;
          low[j] = c * low[j] - s * f;
        }
      }
      barrier(context);
      if (m == l) break;
    }
  }
}

EXPORT void ${name}(const int64_t* a, Context* context) {
  const float* input = (const float*)a[0];
  float *values = (float*)a[1], *vectors = (float*)a[2];
  const int64_t n = a[4], pitch = (n + 7) / 8 * 8;
  double* A = (double*)((a[3] + 63) / 64 * 64);
  double *Q = A, *hold = A + n * pitch, *d = hold + n * pitch, *e = d + pitch, *p = e + pitch, *turns = p + pitch;
  int64_t* order = (int64_t*)(turns + 2 * pitch);
  volatile int64_t* shared = order + pitch;
  int64_t begin, end;
  share(n, 1, context->thread, context->threads, &begin, &end);
  if (context->thread == 0) {
    shared[2] = 0;
    for (int64_t i = 0; i < pitch; i++) p[i] = 0;
  }
  barrier(context);
  for (int64_t i = begin; i < end; i++) {
    for (int64_t j = 0; j < pitch; j++) {
      const float x = j < n ? input[i > j ? i * n + j : j * n + i] : 0;
      if (!(eigen_size(x) <= 3.4028234663852886e38)) shared[2] = 1;
      A[i * pitch + j] = x;
    }
  }
  barrier(context);
  if (shared[2]) {
    for (int64_t i = begin; i < end; i++) {
      values[i] = __builtin_nanf("");
      for (int64_t j = 0; j < n; j++) vectors[i * n + j] = __builtin_nanf("");
    }
    return;
  }
  eigen_reduce(A, hold, d, e, p, n, pitch, context);
  eigen_collect(Q, hold, n, pitch, context);
  eigen_iterate(Q, d, e, turns, shared, n, pitch, context);
  if (context->thread == 0) {
    for (int64_t i = 0; i < n; i++) order[i] = i;
    for (int64_t i = 1; i < n; i++) {
      const int64_t moved = order[i];
      int64_t j = i;
      for (; j > 0 && d[order[j - 1]] < d[moved]; j--) order[j] = order[j - 1];
      order[j] = moved;
    }
  }
  barrier(context);
  for (int64_t i = begin; i < end; i++) {
    const double* row = Q + order[i] * pitch;
    double largest = 0;
    for (int64_t j = 0; j < n; j++) if (eigen_size(row[j]) > eigen_size(largest)) largest = row[j];
    values[i] = (float)d[order[i]];
    for (int64_t j = 0; j < n; j++) vectors[i * n + j] = (float)(largest < 0 ? -row[j] : row[j]);
  }
}
`;
  return { name, source };
}
