import { posix } from "node:path";

/** Reads a small text file; undefined where it does not exist or may not be read. Tests pass samples instead. */
export type ReadText = (path: string) => string | undefined;

type Controller = "memory" | "cpu";

const mountRoot = "/sys/fs/cgroup";

/** The directory and every parent of it down to `mount`: a limit at any level binds. */
function withParents(mount: string, path: string): string[] {
  const levels = [mount];
  let directory = mount;
  for (const part of path.split("/")) {
    if (part === "" || part === "." || part === "..") continue;
    directory = posix.join(directory, part);
    levels.push(directory);
  }
  return levels;
}

/** Directories whose limits bind this process, for one controller, in cgroup v1 and v2 layouts. */
function levelsOf(controller: Controller, read: ReadText): string[] {
  const levels: string[] = [mountRoot];
  for (const line of (read("/proc/self/cgroup") ?? "").split("\n")) {
    const match = /^(\d+):([^:]*):(\/.*)$/.exec(line.trim());
    if (match === null) continue;
    const [, id = "", names = "", path = "/"] = match;
    if (id === "0" && names === "") {
      levels.push(...withParents(mountRoot, path), ...withParents(`${mountRoot}/unified`, path));
    } else if (names.split(",").includes(controller)) {
      levels.push(...withParents(`${mountRoot}/${names}`, path), ...withParents(`${mountRoot}/${controller}`, path));
    }
  }
  return [...new Set(levels)];
}

function numberIn(text: string | undefined): number | undefined {
  const trimmed = text?.trim() ?? "";
  return /^\d+$/.test(trimmed) ? Number(trimmed) : undefined;
}

function fieldOf(text: string | undefined, name: string): number {
  return Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text ?? "")?.[1] ?? 0);
}

/** Bytes of one level that may still be taken; file cache that the kernel can drop does not count as used. */
function memoryLeftAt(directory: string, read: ReadText): number {
  const limit = numberIn(read(`${directory}/memory.max`)) ?? numberIn(read(`${directory}/memory.limit_in_bytes`));
  if (limit === undefined || limit >= Number.MAX_SAFE_INTEGER) return Infinity;
  const used = numberIn(read(`${directory}/memory.current`)) ?? numberIn(read(`${directory}/memory.usage_in_bytes`));
  const statistics = read(`${directory}/memory.stat`);
  const cache = fieldOf(statistics, "total_inactive_file") || fieldOf(statistics, "inactive_file");
  return Math.max(0, limit - Math.max(0, (used ?? 0) - cache));
}

/** Bytes this process may still take under its cgroups (v1 and v2); Infinity where no limit is set. */
export function cgroupMemoryLeft(read: ReadText): number {
  return Math.min(Infinity, ...levelsOf("memory", read).map((directory) => memoryLeftAt(directory, read)));
}

function coresAt(directory: string, read: ReadText): number {
  const [quotaText, periodText] = (read(`${directory}/cpu.max`) ?? "").trim().split(/\s+/);
  const quota = numberIn(quotaText) ?? numberIn(read(`${directory}/cpu.cfs_quota_us`));
  const period = numberIn(periodText) ?? numberIn(read(`${directory}/cpu.cfs_period_us`));
  if (quota === undefined || period === undefined || quota === 0 || period === 0) return Infinity;
  return quota / period;
}

/** Cores' worth of time this process may use under its cgroups, possibly a fraction; Infinity where no quota is set. */
export function cgroupCores(read: ReadText): number {
  return Math.min(Infinity, ...levelsOf("cpu", read).map((directory) => coresAt(directory, read)));
}
