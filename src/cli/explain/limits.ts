/** What the machine can do at most, measured: the roofs that the kernels of a profile are held against. */
import { compileLibrary } from "../../runtime/compiler.js";
import { createPool, type Pool } from "../../runtime/pool.js";
import type { Entry } from "../../runtime/table.js";
import { must } from "../../errors.js";
import { prelude } from "../../targets/c/prelude.js";

/** Rates of all the threads of a run together. */
export interface MachineLimits {
  readonly threads: number;
  /** Operations a second of fused multiply-adds in registers, each counting as two. */
  readonly f32: number;
  /** The same of products of bf16: dot instructions where they are faster, else those of f32. */
  readonly bf16: number;
  /** Bytes a second that a = b + s c reads and writes (STREAM's triad), on arrays far beyond the caches. */
  readonly bandwidth: number;
}

/** Long enough that the clock of a core that was idle has risen. */
const iterations = 20_000_000;
const arrayBytes = 64 * 2 ** 20;
const repeats = 5;

/** Independent chains of one operation, from different starts: equal ones would be computed once. It leaves its operations an iteration at words[1], for each thread apart. */
function chains(name: string, operation: string, perLane: string, count: number): string {
  const each = (code: (chain: string) => string): string[] => Array.from({ length: count }, (_, at) => code(`c${at}`));
  return `
EXPORT void ${name}(const int64_t* words, Context* context) {
  vf x = splat_f(0.5f), y = splat_f(0.25f), ${each((chain) => `${chain} = splat_f(${chain.slice(1)}.0f)`).join(", ")};
  for (int64_t k = 0; k < words[0]; k++) {
    __asm__ volatile("" ::: "memory");
    ${each((chain) => `${chain} = ${operation}(x, y, ${chain});`).join(" ")}
  }
  float* out = (float*)(words[1] + 64 * context->thread);
  out[1] = (${each((chain) => chain).join(" + ")})[0];
  out[0] = ${count} * 16 * ${perLane};
}`;
}

const sources = {
  /* As many chains as hide the latency and still fit the registers. */
  thimble_limit_f32: `#ifdef HAS_AVX512${chains("thimble_limit_f32", "fma_f", "2", 12)}
#else${chains("thimble_limit_f32", "fma_f", "2", 5)}
#endif
`,
  thimble_limit_bf16: `
#ifdef HAS_BF16_DOT
INLINE vf thimble_limit_dot(vf a, vf b, vf sum) { return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b); }
${chains("thimble_limit_bf16", "thimble_limit_dot", "4", 12)}
#else
EXPORT void thimble_limit_bf16(const int64_t* words, Context* context) {
  ((float*)(words[1] + 64 * context->thread))[0] = 0;
}
#endif
`,
  thimble_limit_triad: `
EXPORT void thimble_limit_triad(const int64_t* words, Context* context) {
  int64_t begin, end;
  share(words[3] / 4, 16, context->thread, context->threads, &begin, &end);
  const float *b = (const float*)words[1], *c = (const float*)words[2];
  for (int64_t i = begin; i < end; i += 16)
    store_f32((float*)words[0] + i, fma_f(splat_f(3.0f), load_f32(c + i), load_f32(b + i)));
}`,
} as const;

/** Measures a run's machine with so many threads; takes about a second and 192 MiB. */
export async function measureLimits(threads: number): Promise<MachineLimits> {
  const library = await compileLibrary(
    Object.entries(sources).map(([name, source]) => ({ name, source, includes: [prelude] })),
  );
  const pool = await createPool(threads);
  try {
    const run = (name: keyof typeof sources, words: readonly (number | bigint)[]): number =>
      fastest(pool, { kind: "kernel", address: library.address(name), arguments: words });
    const results = pool.memory(64 * threads);
    const rate = (name: keyof typeof sources): number => {
      const seconds = run(name, [iterations, results.address]);
      const [each = 0] = new Float32Array(results.buffer(0, 4));
      return (iterations * threads * each) / seconds;
    };
    const f32 = rate("thimble_limit_f32");
    const bf16 = Math.max(f32, rate("thimble_limit_bf16"));
    results.release();
    const arrays = [0, 1, 2].map(() => pool.memory(arrayBytes));
    const triad = run("thimble_limit_triad", [...arrays.map(({ address }) => address), arrayBytes]);
    for (const array of arrays) array.release();
    return { threads, f32, bf16, bandwidth: (3 * arrayBytes) / triad };
  } finally {
    pool.close();
  }
}

/** Seconds of the fastest of some calls, after one that is not counted. */
function fastest(pool: Pool, entry: Entry): number {
  const program = pool.program([entry], true);
  let best = Infinity;
  for (let repeat = 0; repeat <= repeats; repeat++) {
    program.runSync();
    const [time = 0n] = must(program.nanoseconds, "times of a program");
    if (repeat > 0) best = Math.min(best, Number(time) / 1e9);
  }
  program.close();
  return best;
}
