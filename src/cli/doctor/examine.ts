/** What this machine has for Thimble: compiler, processor, memory, cache. */
import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { devNull, totalmem } from "node:os";
import { ThimbleError } from "../../errors.js";
import type { Compiler } from "../../runtime/find-compiler.js";
import { findCompiler } from "../../runtime/find-compiler.js";
import { KernelCache } from "../../runtime/kernel-cache.js";
import { availableMemory, cacheDirectory, cpuFacts, nativeFlags, usableCores } from "../../runtime/platform.js";
import { createPool } from "../../runtime/pool.js";
import { adviseMachine } from "./advice.js";
import type { MachineReport, TargetReport } from "./types.js";

interface KnownExtension {
  readonly name: string;
  readonly architecture: string;
  readonly use: string;
  /** In the system's list of the processor's flags, and among the compiler's predefined macros. */
  readonly flag: string;
  readonly macro: string;
}

const known: readonly KnownExtension[] = [
  { name: "AVX2", architecture: "x64", flag: "avx2", macro: "__AVX2__", use: "8 values at once" },
  { name: "FMA", architecture: "x64", flag: "fma", macro: "__FMA__", use: "multiply and add in one" },
  { name: "F16C", architecture: "x64", flag: "f16c", macro: "__F16C__", use: "f16 weights" },
  { name: "AVX-512", architecture: "x64", flag: "avx512f", macro: "__AVX512F__", use: "16 values at once" },
  { name: "AVX-512 BF16", architecture: "x64", flag: "avx512_bf16", macro: "__AVX512BF16__", use: "bf16 products" },
  { name: "NEON", architecture: "arm64", flag: "asimd", macro: "__ARM_NEON", use: "4 values at once" },
  { name: "BF16", architecture: "arm64", flag: "bf16", macro: "__ARM_FEATURE_BF16", use: "bf16 products" },
];

type Environment = Readonly<Record<string, string | undefined>>;

/** Looks at this machine and tries its compiler. */
export async function examineMachine(environment: Environment = process.env): Promise<MachineReport> {
  const { architecture, model, flags } = cpuFacts();
  const cache = await examineCache();
  const compiler = await tried(() => findCompiler(environment));
  const macros = compiler instanceof ThimbleError ? undefined : await macrosOf(compiler);
  const extensions = known
    .filter((one) => one.architecture === architecture)
    .map(({ name, use, flag, macro }) => ({
      name,
      use,
      processor: flags.length === 0 ? undefined : flags.includes(flag),
      compiler: macros?.has(macro) === true,
    }));
  const c = await examineTarget(compiler, cache.usable);
  const targets: TargetReport[] = [
    c,
    { name: "interpret", works: true, fast: false, reason: "plain TypeScript: right, everywhere, and very slow" },
  ];
  const facts = {
    node: process.version,
    platform: `${process.platform} ${architecture}`,
    processor: model,
    threads: usableCores(),
    memoryFree: availableMemory(),
    memoryTotal: totalmem(),
    cache,
    ...(compiler instanceof ThimbleError
      ? {}
      : { compiler: { path: [compiler.path, ...compiler.prefix].join(" "), version: compiler.version } }),
    extensions,
    targets,
    chosen: c.works ? ("c" as const) : undefined,
    why: c.works
      ? "c is the only compiled target, and it works here"
      : "c is the only compiled target, and it does not work here; the interpreter runs only if asked for: --target interpret",
  };
  return { ...facts, advice: adviseMachine(facts) };
}

async function tried<T>(action: () => T | Promise<T>): Promise<T | ThimbleError> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof ThimbleError) return error;
    const message = error instanceof Error ? error.message : String(error);
    return new ThimbleError("doctor", message, { cause: error });
  }
}

async function examineCache(): Promise<MachineReport["cache"]> {
  const folder = cacheDirectory();
  const made = await tried(async () => {
    const { directory } = new KernelCache(folder);
    await access(directory, constants.W_OK);
  });
  return made instanceof ThimbleError ? { folder, usable: false, reason: made.message } : { folder, usable: true };
}

/** The macros that the compiler defines for this machine: what it will make use of. */
function macrosOf({ path, prefix }: Compiler): Promise<Set<string>> {
  const parameters = [...prefix, ...nativeFlags(), "-dM", "-E", "-x", "c", devNull];
  return new Promise((resolve) => {
    execFile(path, parameters, { timeout: 60_000, maxBuffer: 1 << 24 }, (_error, stdout) => {
      resolve(new Set([...stdout.matchAll(/^#define (\w+)/gm)].map(([, name = ""]) => name)));
    });
  });
}

async function examineTarget(compiler: Compiler | ThimbleError, cacheUsable: boolean): Promise<TargetReport> {
  const report = { name: "c", works: false, fast: false } as const;
  if (compiler instanceof ThimbleError) {
    const { message, fix } = compiler;
    return { ...report, reason: message, ...(fix === undefined ? {} : { fix }) };
  }
  if (!cacheUsable)
    return { ...report, reason: "compiled kernels cannot be stored", fix: "Set THIMBLE_CACHE to a folder of yours." };
  const pool = await tried(() => createPool(1, { compiler }));
  if (pool instanceof ThimbleError) {
    return { ...report, reason: pool.describe(), ...(pool.fix === undefined ? {} : { fix: pool.fix }) };
  }
  pool.close();
  return { name: "c", works: true, fast: true, reason: `compiled, loaded and ran code with ${compiler.version}` };
}
