import { execFile } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import koffi, { type LibraryHandle } from "koffi";
import { must, ThimbleError } from "../errors.js";
import { findCompiler, type Compiler } from "./find-compiler.js";
import { digestOf, KernelCache } from "./kernel-cache.js";
import { cpuFacts, librarySuffix, linkFlags, nativeFlags, usableCores } from "./platform.js";
import { deal, unitText } from "./units.js";

/**
 * One kernel to compile. `includes` are shared texts (a prelude, a math library) that a unit states once, in order of
 * first use, before its kernels; `source` defines the function `name` and nothing else under a name that another
 * kernel might use.
 */
export interface KernelSource {
  readonly name: string;
  readonly source: string;
  readonly includes?: readonly string[];
}

export interface CompileOptions {
  readonly compiler?: Compiler;
  readonly cache?: KernelCache;
  /** Compiler processes at once; the usable cores if not given. */
  readonly processes?: number;
  /** Flags in place of those that select this machine's instructions. */
  readonly machineFlags?: readonly string[];
}

/** Compiled kernels, loaded. They stay loaded until the process ends. */
export interface Library {
  /** The address of a kernel's function. */
  address(name: string): bigint;
  /** Kernels that were compiled now, not found in the cache. */
  readonly compiled: number;
  /** The koffi handles, for functions that JavaScript calls itself. */
  handle(name: string): LibraryHandle;
}

/** What turns a source into an object: with the CPU, all that its key depends on. */
interface Toolchain {
  readonly compiler: Compiler;
  readonly flags: readonly string[];
}

interface KeyedKernel extends KernelSource {
  readonly key: string;
}

const codeFlags = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-std=gnu11", "-shared", "-fPIC"];
const timeoutMilliseconds = 10 * 60 * 1000;

/** Everything given to the compiler except file names. */
function flagsFor(compiler: Compiler, machineFlags: readonly string[]): string[] {
  const zig = compiler.prefix.length > 0 ? ["-fno-sanitize=undefined"] : [];
  return [...codeFlags, ...machineFlags, ...zig, ...linkFlags()];
}

function keysOf(sources: readonly KernelSource[], toolchain: Toolchain): KeyedKernel[] {
  const machine = JSON.stringify([toolchain, cpuFacts(), process.platform]);
  return sources.map((kernel) => ({
    ...kernel,
    key: digestOf(machine, kernel.name, kernel.source, ...(kernel.includes ?? [])),
  }));
}

/** The compiler's exit and log; its log is what it wrote to both outputs. */
function runCompiler(compiler: Compiler, parameters: readonly string[]): Promise<{ failed: boolean; log: string }> {
  return new Promise((resolve) => {
    const settings = { timeout: timeoutMilliseconds, maxBuffer: 1 << 26 };
    execFile(compiler.path, [...compiler.prefix, ...parameters], settings, (error, stdout, stderr) => {
      const log = `${stderr}${stdout}`;
      resolve({ failed: error !== null, log: log === "" && error !== null ? error.message : log });
    });
  });
}

function compileError(compiler: Compiler, kernels: readonly KeyedKernel[], log: string, kept: string): ThimbleError {
  return new ThimbleError("compile-failed", "The C compiler refused a generated kernel", {
    given: log.split("\n").slice(0, 12).join("\n"),
    where: `${kernels.map((kernel) => kernel.name).join(", ")}, kept in ${kept}`,
    expected: `source that ${compiler.version} accepts`,
    fix: "Report this with the kept file, or try another compiler through the CC environment variable.",
  });
}

/** Compiles one unit and stores it. A unit that fails is compiled again kernel by kernel, to name the culprit. */
async function compileUnit(kernels: readonly KeyedKernel[], toolchain: Toolchain, cache: KernelCache): Promise<void> {
  const { compiler, flags } = toolchain;
  const text = unitText(kernels);
  const unitKey = digestOf(...kernels.map((kernel) => kernel.key));
  const work = cache.workDirectory();
  const source = join(work, "unit.c");
  writeFileSync(source, text, { mode: 0o600 });
  const target = join(work, `unit${librarySuffix()}`);
  const { failed, log } = await runCompiler(compiler, [source, "-o", target, ...flags, "-lm"]);
  if (!failed) {
    cache.store(unitKey, work);
    for (const kernel of kernels) cache.link(kernel.key, unitKey);
    return;
  }
  rmSync(work, { recursive: true, force: true });
  if (kernels.length === 1) throw compileError(compiler, kernels, log, cache.keepFailed(unitKey, text));
  const alone = await Promise.allSettled(kernels.map((kernel) => compileUnit([kernel], toolchain, cache)));
  const failure = alone.find((result) => result.status === "rejected");
  if (failure !== undefined) throw failure.reason;
}

/** Libraries by path; kept for good, since tables hold addresses into them. */
const loaded = new Map<string, LibraryHandle>();

function load(path: string): LibraryHandle {
  const present = loaded.get(path);
  if (present !== undefined) return present;
  const handle = koffi.load(path);
  loaded.set(path, handle);
  return handle;
}

/** The libraries of those kernels that the cache holds in good order, by kernel key. */
function cached(kernels: readonly KeyedKernel[], cache: KernelCache): Map<string, string> {
  const units = new Map<string, string | undefined>();
  const found = new Map<string, string>();
  for (const { key } of kernels) {
    const unit = cache.unitOf(key);
    if (unit === undefined) continue;
    if (!units.has(unit)) units.set(unit, cache.libraryOf(unit));
    const path = units.get(unit);
    if (path !== undefined) found.set(key, path);
  }
  return found;
}

/**
 * Compiles kernels, or finds them in the cache, and loads them. Kernels are dealt to a few units that compile at the
 * same time; each kernel is cached on its own by its text, the compiler, its flags and the CPU.
 */
export async function compileLibrary(sources: readonly KernelSource[], options: CompileOptions = {}): Promise<Library> {
  const cache = options.cache ?? new KernelCache();
  const compiler = options.compiler ?? (await findCompiler(process.env, (key, make) => cache.remember(key, make)));
  const toolchain = { compiler, flags: flagsFor(compiler, options.machineFlags ?? nativeFlags()) };
  const kernels = keysOf(sources, toolchain);
  const before = cached(kernels, cache);
  const missing = [
    ...new Map(kernels.filter(({ key }) => !before.has(key)).map((kernel) => [kernel.key, kernel])).values(),
  ];
  const units = deal(missing, options.processes ?? usableCores());
  await Promise.all(units.map((unit) => compileUnit(unit, toolchain, cache)));
  const paths = missing.length === 0 ? before : cached(kernels, cache);
  const handles = new Map(
    kernels.map((kernel) => [kernel.name, load(must(paths.get(kernel.key), `the library of ${kernel.name}`))]),
  );
  const handle = (name: string): LibraryHandle => must(handles.get(name), `the kernel ${name}`);
  return {
    handle,
    address: (name) => handle(name).symbol(name) as bigint,
    compiled: missing.length,
  };
}
