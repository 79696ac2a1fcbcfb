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
/** Room for the measured times, before the operands. */
const headerBytes = 4096;

/** Whether kernels are fitted to this machine: not with `THIMBLE_TUNE=0`, nor in tests but with `THIMBLE_TUNE=1`. */
export function tunes(environment: NodeJS.ProcessEnv = process.env): boolean {
  const asked = environment["THIMBLE_TUNE"];
  if (process.platform === "win32") return false;
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
  const order = Array.from({ length: rounds }, () => blockCandidates).flat();
  const memory = pool.memory(headerBytes + tuningTrial.bytes);
  const base = memory.address + BigInt(headerBytes);
  new Float32Array(memory.buffer(headerBytes, tuningTrial.operandBytes)).fill(0.5);
  const program = pool.program(
    order.map((block, entry): Entry => {
      const words = tuningTrial.words(block, memory.address + BigInt(8 * entry), base);
      return { kind: "kernel", address, arguments: words };
    }),
  );
  program.runSync();
  program.close();
  const times = Array.from(new BigInt64Array(memory.buffer(0, 8 * order.length)), (value) => Number(value) / 1e9);
  memory.release();
  return blockCandidates.map((_, index) =>
    Math.min(...times.filter((_time, entry) => entry % blockCandidates.length === index)),
  );
}
