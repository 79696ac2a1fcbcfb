import { readFileSync } from "node:fs";
import os from "node:os";
import envPaths from "env-paths";
import { cgroupCores, cgroupMemoryLeft, type ReadText } from "./cgroup.js";

/**
 * Everything of the TypeScript side that depends on the operating system. The native side has its own section at the
 * head of the runner's source.
 */

/** A file's text, or undefined where there is none (other systems, restricted containers). */
export const readText: ReadText = (path) => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
};

/** Where compiled kernels are kept: `THIMBLE_CACHE`, or the user's cache directory of this system. */
export function cacheDirectory(): string {
  const chosen = process.env["THIMBLE_CACHE"];
  return chosen !== undefined && chosen !== "" ? chosen : envPaths("thimble", { suffix: "" }).cache;
}

/** The file-name suffix of shared libraries, with the dot. */
export function librarySuffix(): string {
  if (process.platform === "win32") return ".dll";
  return process.platform === "darwin" ? ".dylib" : ".so";
}

/** Cores this process may use at once: CPU affinity and cgroup quotas counted, at least 1. */
export function usableCores(read: ReadText = readText): number {
  return Math.max(1, Math.min(os.availableParallelism(), Math.ceil(cgroupCores(read))));
}

export interface CpuFacts {
  readonly architecture: string;
  readonly model: string;
  /** Instruction-set extensions by the names the system gives them, sorted; empty where it does not tell. */
  readonly flags: readonly string[];
}

/** What kind of CPU this is; `cpuinfo` is the text of /proc/cpuinfo where the system has it. */
export function cpuFacts(cpuinfo: string | undefined = readText("/proc/cpuinfo")): CpuFacts {
  const line = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(cpuinfo ?? "")?.[1] ?? "";
  const model = os.cpus()[0]?.model.trim() ?? "unknown";
  const identifier = process.env["PROCESSOR_IDENTIFIER"];
  return {
    architecture: process.arch,
    model: identifier === undefined ? model : `${model} (${identifier})`,
    flags: [...new Set(line.split(/\s+/).filter((flag) => flag !== ""))].sort(),
  };
}

/** Compiler flags that select this machine's instructions. */
export function nativeFlags(): readonly string[] {
  return process.arch === "arm64" ? ["-mcpu=native"] : ["-march=native"];
}

/** Linker flags for a library of kernels: never unmapped, since worker threads may still stand in its code at exit. */
export function linkFlags(): readonly string[] {
  if (process.platform === "win32") return ["-lsynchronization"];
  return process.platform === "darwin" ? [] : ["-Wl,-z,nodelete", "-pthread"];
}

/** How to get a C compiler here, as a sentence for an error. */
export function compilerAdvice(): string {
  const zig = "or, without administrator rights, `pip install ziglang`";
  if (process.platform === "darwin") return `Run \`xcode-select --install\`, ${zig}.`;
  if (process.platform === "win32") return `Run \`winget install zig.zig\` or install LLVM (clang), ${zig}.`;
  return `Install gcc (Debian, Ubuntu: \`apt install gcc libc6-dev\`; Fedora: \`dnf install gcc\`; Alpine: \`apk add gcc musl-dev\`), ${zig}.`;
}

/** Bytes that can be allocated now without swapping: the system's free memory within this process's cgroup limits. */
export function availableMemory(read: ReadText = readText): number {
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(read("/proc/meminfo") ?? "")?.[1];
  const system = kibibytes === undefined ? os.freemem() : Number(kibibytes) * 1024;
  return Math.min(system, cgroupMemoryLeft(read));
}
