/** Rows of the register tile, and of the one for at most 16 columns. */
export const tileRows = 6;
export const tallRows = 12;

const native = String.raw`
#if defined(HAS_AVX512)
typedef float vn __attribute__((vector_size(64)));
typedef float thimble_loose_n __attribute__((vector_size(64), aligned(4), may_alias));
#define NATIVE 16
#define PANEL 64
INLINE vn thimble_splat_n(float x) { return (vn)_mm512_set1_ps(x); }
INLINE vn thimble_fma_n(vn a, vn b, vn c) { return (vn)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
#elif defined(HAS_AVX2)
typedef float vn __attribute__((vector_size(32)));
typedef float thimble_loose_n __attribute__((vector_size(32), aligned(4), may_alias));
#define NATIVE 8
#define PANEL 16
INLINE vn thimble_splat_n(float x) { return (vn)_mm256_set1_ps(x); }
INLINE vn thimble_fma_n(vn a, vn b, vn c) { return (vn)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
#else
typedef float vn __attribute__((vector_size(16)));
typedef float thimble_loose_n __attribute__((vector_size(16), aligned(4), may_alias));
#define NATIVE 4
#define PANEL 16
INLINE vn thimble_splat_n(float x) { return (vn){x, x, x, x}; }
#ifdef HAS_NEON
INLINE vn thimble_fma_n(vn a, vn b, vn c) { return (vn)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
/* Without hardware for it, one rounding would cost fifty times as much: this is the one place that rounds twice. */
INLINE vn thimble_fma_n(vn a, vn b, vn c) { return a * b + c; }
#endif
#endif
#ifdef HAS_BF16_DOT
INLINE vn thimble_splat_pair(uint32_t x) { return (vn)_mm512_set1_epi32((int)x); }
INLINE vn thimble_dot_n(vn a, vn b, vn c) { return (vn)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b); }
#endif
INLINE vn thimble_load_n(const void* p) { return *(const thimble_loose_n*)p; }
INLINE void thimble_store_n(void* p, vn v) { *(thimble_loose_n*)p = v; }
`;

type Kind = "f32" | "dot";

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

/**
 * C[rows, vectors] (+)= the sum over parts of A[rows, k] B[k, vectors], in registers from the first part to the last.
 * Rows from `valid` on repeat the last one. `tall` kernels need all their rows, a multiple of 3, so that few registers
 * hold all addresses.
 */
function microKernel(kind: Kind, height: number, vectors: number): string {
  const rows = range(height);
  const columns = range(vectors);
  const tall = height > 6;
  const unit = kind === "f32" ? "thimble_float_alias" : "thimble_word_alias";
  const splat = kind === "f32" ? "thimble_splat_n" : "thimble_splat_pair";
  const multiply = kind === "f32" ? "thimble_fma_n" : "thimble_dot_n";
  const each = (text: (row: number, column: number) => string): string =>
    rows.map((row) => "    " + columns.map((column) => text(row, column)).join(" ")).join("\n");
  const last = (row: number): string => (tall ? String(row) : `(valid > ${row} ? ${row} : valid - 1)`);
  const pointers = rows
    .filter((row) => !tall || row % 3 === 0)
    .map((row) => `    const ${unit}* a${row} = (const ${unit}*)part->left + ${last(row)} * part->apart;`)
    .join("\n");
  const value = (row: number): string => (tall ? `a${row - (row % 3)}[i${row % 3}]` : `a${row}[i]`);
  const step = rows
    .map((row) => {
      const terms = columns.map((column) => `c${row}_${column} = ${multiply}(x, b${column}, c${row}_${column});`);
      return `      x = ${splat}(${value(row)}); ${terms.join(" ")}`;
    })
    .join("\n");
  return `static __attribute__((noinline, unused)) void thimble_micro_${kind}_${height}x${vectors}(
    int valid, int count, const thimble_part* part, float* c, int64_t cs, int accumulate) {
  vn ${rows.flatMap((row) => columns.map((column) => `c${row}_${column}`)).join(", ")};
${tall ? "  (void)valid;\n" : ""}  if (accumulate) {
${each((row, column) => `c${row}_${column} = thimble_load_n(c + ${row} * cs + ${column} * NATIVE);`)}
  } else {
${each((row, column) => `c${row}_${column} = (vn){0};`)}
  }
  for (; count > 0; count--, part++) {
${pointers}
    const ${unit}* q = (const ${unit}*)part->panel;
    const char ${tall ? "*first = part->first" : "*first = part->first, *second = part->second"};
    const int64_t step = part->step, pitch = part->pitch, ahead = part->ahead, end = part->units * step;
${tall ? "    int64_t i0 = 0, i1 = part->apart, i2 = 2 * part->apart;\n    for (; i0 < end; i0 += step, i1 += step, i2 += step) {" : "    for (int64_t i = 0; i < end; i += step) {"}
      vn x, ${columns.map((column) => `b${column} = thimble_load_n(q + ${column} * NATIVE)`).join(", ")};
      __builtin_prefetch(first);
      first += ahead;
${tall ? "" : "      __builtin_prefetch(second);\n      second += ahead;\n"}${step}
      q += pitch;
    }
  }
${each((row, column) => `thimble_store_n(c + ${row} * cs + ${column} * NATIVE, c${row}_${column});`)}
}`;
}

/** Chooses a kernel, and names for a single part whose rows (or, `strip`, whose neighbouring values) are rows of A. */
function dispatch(kind: Kind): string {
  const name = `thimble_micro_${kind}`;
  const call = (height: number, vectors: number): string =>
    `${name}_${height}x${vectors}(rows, count, parts, c, cs, accumulate)`;
  const single = (access: string, apart: string, step: string): string =>
    `static __attribute__((noinline, unused)) void ${name}_${access}(
    int width, int64_t k, const void* a, int64_t as, int rows, const void* b, int64_t bs, float* c, int64_t cs, int accumulate) {
  const thimble_part part = {.left = a, .panel = b, .first = (const char*)b, .second = (const char*)b, .units = k, .apart = ${apart}, .step = ${step}, .pitch = bs};
  ${name}(width, rows, 1, &part, c, cs, accumulate);
}`;
  return `static __attribute__((noinline, unused)) void ${name}(
    int width, int rows, int count, const thimble_part* parts, float* c, int64_t cs, int accumulate) {
#if NATIVE == 16
  if (width > 48) {
    if (rows > 4) ${call(6, 4)};
    else ${call(4, 4)};
  } else if (width > 32) ${call(6, 3)};
  else if (width > 16) ${call(6, 2)};
  else if (rows > 6) ${call(tallRows, 1)};
  else ${call(6, 1)};
#elif NATIVE == 8
  (void)width;
  ${call(6, 2)};
#else
  (void)width;
  ${call(6, 4)};
#endif
}
${single("row", "as", "1")}
${single("strip", "1", "as")}`;
}

function family(kind: Kind): string {
  const wide = [...range(4).map((index) => [6, index + 1] as const), [4, 4] as const, [tallRows, 1] as const];
  const render = (shapes: readonly (readonly [number, number])[]): string =>
    shapes.map(([rows, vectors]) => microKernel(kind, rows, vectors)).join("\n");
  return `#if NATIVE == 16
${render(wide)}
#elif NATIVE == 8
${render([[6, 2]])}
#else
${render([[6, 4]])}
#endif
${dispatch(kind)}`;
}

const types = String.raw`
/*
 * One product: value (row, k) of A is at left + row * apart + k * step, B's row k at panel + k * pitch, in units. With
 * each k the lines at first and second are fetched ahead of their use, and both move on by "ahead" bytes.
 */
typedef struct {
  const void *left, *panel;
  const char *first, *second;
  int64_t units, apart, step, pitch, ahead;
} thimble_part;
typedef void (*thimble_micro)(int, int, int, const thimble_part*, float*, int64_t, int);
`;

/** Names for either way of multiplying: a unit is UNIT_f32 or UNIT_bf16 values of neighbouring k. */
const modes = String.raw`
#define UNIT_f32 1
#ifdef HAS_BF16_DOT
#define UNIT_bf16 2
#define thimble_micro_bf16 thimble_micro_dot
#define thimble_micro_bf16_row thimble_micro_dot_row
#define thimble_micro_bf16_strip thimble_micro_dot_strip
#else
#define UNIT_bf16 1
#define thimble_micro_bf16 thimble_micro_f32
#define thimble_micro_bf16_row thimble_micro_f32_row
#define thimble_micro_bf16_strip thimble_micro_f32_strip
#endif
/* Rows that a kernel takes at once where at most 16 columns are wanted. */
#if NATIVE == 16
#define TALL ${tallRows}
#else
#define TALL ${tileRows}
#endif
`;

/**
 * Register-tiled kernels `thimble_micro_{f32,bf16}(width, rows, count, parts, c, cs, accumulate)`: a tile of up to 6
 * rows (12 where width is at most 16) and PANEL columns stays in registers over all k of all parts. Of B's rows
 * `width` units (rounded up to 16) are used; a unit is a float, or two bf16 of neighbouring k where those are
 * multiplied as such. `thimble_micro_{f32,bf16}_{row,strip}` are the same for one product.
 */
export const microKernels: string = [
  "#ifndef THIMBLE_MICRO\n#define THIMBLE_MICRO",
  native,
  types,
  modes,
  family("f32"),
  "#ifdef HAS_BF16_DOT",
  family("dot"),
  "#endif\n#endif",
].join("\n");
