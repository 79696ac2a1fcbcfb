import { measureLimits } from "../src/cli/explain/limits.js";

/** The most that the machine's multipliers do, GFLOP/s. */
export interface Peak {
  readonly threads: number;
  readonly f32: number;
  /** That of the bf16 dot product where it is faster, else f32's. */
  readonly bf16: number;
}

/** What `explain --profile` holds kernels against, as the tables state it. */
export async function measurePeak(threads: number): Promise<Peak> {
  const { f32, bf16 } = await measureLimits(threads);
  return { threads, f32: f32 / 1e9, bf16: bf16 / 1e9 };
}
