import { Kernels, Memory } from "../src/testing/c/harness.js";

/** The most that the machine's multipliers do, GFLOP/s. */
export interface Peak {
  readonly threads: number;
  readonly f32: number;
  /** That of the bf16 dot product where the machine has one, else f32's. */
  readonly bf16: number;
}

const sums = Array.from({ length: 24 }, (_, index) => `s${index}`);

/** Independent chains of one operation on registers, enough of them to fill the multipliers. */
function chainKernel(name: string, operation: string): string {
  return `
EXPORT void ${name}(const int64_t* w, Context* context) {
  peak_wide x = peak_splat(0.5f), y = peak_splat(0.25f);
  peak_wide ${sums.map((sum, index) => `${sum} = peak_splat(${index}.0f)`).join(", ")};
  for (int64_t k = 0; k < w[0]; k++) {
    __asm__ volatile("" ::: "memory");
    ${sums.map((sum) => `${sum} = ${operation}(x, y, ${sum});`).join(" ")}
  }
  peak_wide sum = ${sums.join(" + ")};
  *(volatile float*)(w[1] + 64 * context->thread) = sum[0];
}`;
}

const source = `
#if defined(HAS_AVX512)
typedef __m512 peak_wide;
#define PEAK_WIDTH 16
INLINE peak_wide peak_splat(float x) { return _mm512_set1_ps(x); }
INLINE peak_wide peak_fma(peak_wide a, peak_wide b, peak_wide c) { return _mm512_fmadd_ps(a, b, c); }
#elif defined(HAS_AVX2)
typedef __m256 peak_wide;
#define PEAK_WIDTH 8
INLINE peak_wide peak_splat(float x) { return _mm256_set1_ps(x); }
INLINE peak_wide peak_fma(peak_wide a, peak_wide b, peak_wide c) { return _mm256_fmadd_ps(a, b, c); }
#else
typedef float peak_wide __attribute__((vector_size(16)));
#define PEAK_WIDTH 4
INLINE peak_wide peak_splat(float x) { return (peak_wide){x, x, x, x}; }
#ifdef HAS_NEON
INLINE peak_wide peak_fma(peak_wide a, peak_wide b, peak_wide c) {
  return (peak_wide)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
#else
INLINE peak_wide peak_fma(peak_wide a, peak_wide b, peak_wide c) { return a * b + c; }
#endif
#endif
#ifdef HAS_BF16_DOT
#define PEAK_PRODUCTS 2
INLINE peak_wide peak_dot(peak_wide a, peak_wide b, peak_wide c) {
  return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}
#else
#define PEAK_PRODUCTS 1
#define peak_dot peak_fma
#endif
${chainKernel("peak_f32", "peak_fma")}
${chainKernel("peak_bf16", "peak_dot")}
EXPORT void peak_flops(const int64_t* w, Context* context) {
  (void)context;
  ((int64_t*)w[0])[0] = 2 * PEAK_WIDTH;
  ((int64_t*)w[0])[1] = 2 * PEAK_WIDTH * PEAK_PRODUCTS;
}`;

const rounds = 2_000_000;
const repeats = 5;

/** Measures for about a second. */
export function measurePeak(threads: number): Peak {
  const kernels = new Kernels([source]);
  const memory = new Memory(64 * (threads + 1));
  try {
    kernels.run("peak_flops", [memory.address]);
    const [f32 = 0n, bf16 = 0n] = new BigInt64Array(memory.data.buffer, memory.data.byteOffset, 2);
    const rate = (name: string, flops: bigint): number =>
      (threads * rounds * sums.length * Number(flops)) /
      kernels.run(name, [rounds, memory.address], threads, repeats) /
      1e9;
    return { threads, f32: rate("peak_f32", f32), bf16: rate("peak_bf16", bf16) };
  } finally {
    memory.free();
  }
}
