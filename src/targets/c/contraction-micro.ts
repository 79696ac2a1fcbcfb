/** Rows of the register tile. */
export const tileRows = 6;

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
type Access = "row" | "strip";

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

/**
 * C[6, vectors] (+)= A[6, k] B[k, vectors] in registers. `row`: row i of A starts at a + i * stride, rows from `rows`
 * on repeat the last; `strip`: the 6 values of one k are neighbours and start at a + k * stride.
 */
function microKernel(kind: Kind, access: Access, vectors: number): string {
  const rows = range(tileRows);
  const columns = range(vectors);
  const unit = kind === "f32" ? "thimble_float_alias" : "thimble_word_alias";
  const splat = kind === "f32" ? "thimble_splat_n" : "thimble_splat_pair";
  const multiply = kind === "f32" ? "thimble_fma_n" : "thimble_dot_n";
  const each = (text: (row: number, column: number) => string): string =>
    rows.map((row) => "    " + columns.map((column) => text(row, column)).join(" ")).join("\n");
  const pointers = rows
    .map((row) => `  const ${unit}* a${row} = (const ${unit}*)a + (rows > ${row} ? ${row} : rows - 1) * as;`)
    .join("\n");
  const value = (row: number): string => (access === "row" ? `a${row}[i]` : `p[${row}]`);
  const step = rows
    .map((row) => {
      const terms = columns.map((column) => `c${row}_${column} = ${multiply}(x, b${column}, c${row}_${column});`);
      return `    x = ${splat}(${value(row)}); ${terms.join(" ")}`;
    })
    .join("\n");
  return `static __attribute__((noinline, unused)) void thimble_micro_${kind}_${access}_${vectors}(
    int64_t k, const void* a, int64_t as, int rows, const void* b, int64_t bs, float* c, int64_t cs, int accumulate) {
${access === "row" ? pointers : `  const ${unit}* p = (const ${unit}*)a;\n  (void)rows;`}
  const ${unit}* q = (const ${unit}*)b;
  vn ${rows.flatMap((row) => columns.map((column) => `c${row}_${column}`)).join(", ")};
  if (accumulate) {
${each((row, column) => `c${row}_${column} = thimble_load_n(c + ${row} * cs + ${column} * NATIVE);`)}
  } else {
${each((row, column) => `c${row}_${column} = (vn){0};`)}
  }
  for (int64_t i = 0; i < k; i++) {
    vn x, ${columns.map((column) => `b${column} = thimble_load_n(q + ${column} * NATIVE)`).join(", ")};
${step}
    q += bs;${access === "strip" ? "\n    p += as;" : ""}
  }
${each((row, column) => `thimble_store_n(c + ${row} * cs + ${column} * NATIVE, c${row}_${column});`)}
}`;
}

function dispatch(kind: Kind, access: Access): string {
  const name = `thimble_micro_${kind}_${access}`;
  const call = (vectors: number): string => `${name}_${vectors}(k, a, as, rows, b, bs, c, cs, accumulate)`;
  return `static __attribute__((noinline, unused)) void ${name}(
    int width, int64_t k, const void* a, int64_t as, int rows, const void* b, int64_t bs, float* c, int64_t cs, int accumulate) {
#if PANEL == NATIVE * 4 && NATIVE == 16
  if (width > 48) ${call(4)};
  else if (width > 32) ${call(3)};
  else if (width > 16) ${call(2)};
  else ${call(1)};
#else
  (void)width;
#if NATIVE == 8
  ${call(2)};
#else
  ${call(4)};
#endif
#endif
}`;
}

function family(kind: Kind): string {
  const accesses: readonly Access[] = ["row", "strip"];
  const kernels = accesses.flatMap((access) => range(4).map((index) => microKernel(kind, access, index + 1)));
  return [...kernels, ...accesses.map((access) => dispatch(kind, access))].join("\n");
}

const signature =
  "typedef void (*thimble_micro)(int, int64_t, const void*, int64_t, int, const void*, int64_t, float*, int64_t, int);";

/** Names for either way of multiplying: a unit is UNIT_f32 or UNIT_bf16 values of neighbouring k. */
const modes = String.raw`
#define UNIT_f32 1
#ifdef HAS_BF16_DOT
#define UNIT_bf16 2
#define thimble_micro_bf16_row thimble_micro_dot_row
#define thimble_micro_bf16_strip thimble_micro_dot_strip
#else
#define UNIT_bf16 1
#define thimble_micro_bf16_row thimble_micro_f32_row
#define thimble_micro_bf16_strip thimble_micro_f32_strip
#endif
`;

/**
 * Register-tiled kernels `thimble_micro_{f32,bf16}_{row,strip}(width, k, a, as, rows, b, bs, c, cs, accumulate)`: a
 * tile of 6 rows and up to PANEL columns stays in registers over all k. B is read as rows of `bs` units, of which
 * `width` (rounded up to 16) are used; a unit is a float, or two bf16 of neighbouring k where those are multiplied as
 * such.
 */
export const microKernels: string = [
  "#ifndef THIMBLE_MICRO\n#define THIMBLE_MICRO",
  native,
  signature,
  modes,
  family("f32"),
  "#ifdef HAS_BF16_DOT",
  family("dot"),
  "#endif\n#endif",
].join("\n");
