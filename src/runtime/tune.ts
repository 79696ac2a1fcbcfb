import {
  blockCandidates,
  chooseTuning,
  defaultTuning,
  parseTuning,
  tuningKernel,
  tuningText,
  tuningTrial,
  type ContractionTuning,
} from "../targets/c/contraction-tune.js";
import { prelude } from "../targets/c/prelude.js";
import { compileLibrary } from "./compiler.js";
import { findCompiler } from "./find-compiler.js";
import { KernelCache } from "./kernel-cache.js";
import { cpuFacts } from "./platform.js";
import { createPool, type Pool } from "./pool.js";
import type { Entry } from "./table.js";

const rounds = 5;

/** Whether kernels are fitted to this machine: not with `THIMBLE_TUNE=0`, and in tests only with `THIMBLE_TUNE=1`. */
export function tunes(environment: NodeJS.ProcessEnv = process.env): boolean {
  const asked = environment["THIMBLE_TUNE"];
  return asked === "1" || (asked !== "0" && environment["VITEST"] === undefined);
}

/**
 * The blocking of contractions that was fastest here, measured once for a compiler and a CPU (about a second) and kept
 * in the kernel cache. The default where measuring is not wanted or the cache cannot be written. Results of kernels do
 * not depend on it.
 */
export async function machineTuning(
  environment: NodeJS.ProcessEnv = process.env,
  open: () => KernelCache = () => new KernelCache(),
): Promise<ContractionTuning> {
  if (!tunes(environment)) return defaultTuning;
  try {
    const cache = open();
    const compiler = await findCompiler(environment, (key, make) => cache.remember(key, make));
    const key = JSON.stringify(["contraction-tuning", blockCandidates, compiler, cpuFacts(), tuningKernel().source]);
    const text = await cache.remember(key, async () => tuningText(await measure(cache)));
    return parseTuning(text ?? "") ?? defaultTuning;
  } catch {
    // Whatever is wrong with the compiler or the cache is said when the kernels themselves are compiled.
    return defaultTuning;
  }
}

async function measure(cache: KernelCache): Promise<ContractionTuning> {
  const kernel = tuningKernel();
  const library = await compileLibrary([{ ...kernel, includes: [prelude] }], { cache });
  const pool = await createPool(1, { cache });
  try {
    return chooseTuning(timeCandidates(pool, library.address(kernel.name)));
  } finally {
    pool.close();
  }
}

/** The least seconds of each candidate, measured in turn so that a disturbance meets all. */
function timeCandidates(pool: Pool, address: bigint): number[] {
  const memory = pool.memory(tuningTrial.bytes);
  new Float32Array(memory.buffer(0, tuningTrial.operandBytes)).fill(0.5);
  const entries = Array.from({ length: rounds }, () => blockCandidates).flat();
  const program = pool.program(
    entries.map((block): Entry => ({ kind: "kernel", address, arguments: tuningTrial.words(block, memory.address) })),
    true,
  );
  program.runSync();
  const times = Array.from(program.nanoseconds ?? [], (value) => Number(value) / 1e9);
  program.close();
  memory.release();
  return blockCandidates.map((_, index) =>
    Math.min(...times.filter((_time, entry) => entry % blockCandidates.length === index)),
  );
}
