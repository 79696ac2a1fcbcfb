import { describe, expect, it } from "vitest";
import { cgroupCores, cgroupMemoryLeft, type ReadText } from "./cgroup.js";
import { availableMemory, usableCores } from "./platform.js";

function reader(files: Readonly<Record<string, string>>): ReadText {
  return (path) => files[path];
}

const root = "/sys/fs/cgroup";

describe("cgroup v2", () => {
  const own = { "/proc/self/cgroup": "0::/user.slice/job\n" };

  it("takes the tightest level and does not count file cache as used", () => {
    const read = reader({
      ...own,
      [`${root}/user.slice/memory.max`]: "8000000\n",
      [`${root}/user.slice/memory.current`]: "7000000\n",
      [`${root}/user.slice/memory.stat`]: "anon 100\ninactive_file 2500000\nactive_file 9\n",
      [`${root}/user.slice/job/memory.max`]: "max\n",
      [`${root}/user.slice/job/memory.current`]: "6000000\n",
    });
    expect(cgroupMemoryLeft(read)).toBe(3500000);
  });

  it("reads quotas of time", () => {
    expect(cgroupCores(reader({ ...own, [`${root}/user.slice/cpu.max`]: "150000 100000\n" }))).toBe(1.5);
    expect(cgroupCores(reader({ ...own, [`${root}/user.slice/cpu.max`]: "max 100000\n" }))).toBe(Infinity);
  });

  it("finds the root group where the own path does not exist inside a container", () => {
    const read = reader({ ...own, [`${root}/memory.max`]: "1000", [`${root}/memory.current`]: "1500" });
    expect(cgroupMemoryLeft(read)).toBe(0);
  });
});

describe("cgroup v1", () => {
  const own = { "/proc/self/cgroup": "9:name=systemd:/\n4:memory:/docker/x\n1:cpu,cpuacct:/docker/x\n0::/\n" };

  it("reads limits and usage", () => {
    const read = reader({
      ...own,
      [`${root}/memory/memory.limit_in_bytes`]: "9223372036854771712\n",
      [`${root}/memory/docker/x/memory.limit_in_bytes`]: "5000\n",
      [`${root}/memory/docker/x/memory.usage_in_bytes`]: "3000\n",
      [`${root}/memory/docker/x/memory.stat`]: "inactive_file 10\ntotal_inactive_file 500\n",
    });
    expect(cgroupMemoryLeft(read)).toBe(2500);
  });

  it("reads quotas, where -1 is none", () => {
    const at = `${root}/cpu,cpuacct/docker/x`;
    const period = { [`${at}/cpu.cfs_period_us`]: "100000\n" };
    expect(cgroupCores(reader({ ...own, ...period, [`${at}/cpu.cfs_quota_us`]: "250000\n" }))).toBe(2.5);
    expect(cgroupCores(reader({ ...own, ...period, [`${at}/cpu.cfs_quota_us`]: "-1\n" }))).toBe(Infinity);
  });
});

describe("what the platform makes of it", () => {
  it("survives missing and senseless files", () => {
    const none = reader({});
    expect(cgroupMemoryLeft(none)).toBe(Infinity);
    expect(cgroupCores(none)).toBe(Infinity);
    expect(availableMemory(none)).toBeGreaterThan(0);
    const odd = reader({
      "/proc/self/cgroup": "::::\n0::\nx",
      [`${root}/memory.max`]: "many",
      [`${root}/cpu.max`]: "0 0",
    });
    expect(cgroupMemoryLeft(odd)).toBe(Infinity);
    expect(cgroupCores(odd)).toBe(Infinity);
  });

  it("takes the least of the system's memory and the group's", () => {
    const meminfo = "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable:     800 kB\n";
    expect(availableMemory(reader({ "/proc/meminfo": meminfo }))).toBe(800 * 1024);
    const limited = { "/proc/meminfo": meminfo, [`${root}/memory.max`]: "5000", [`${root}/memory.current`]: "1000" };
    expect(availableMemory(reader(limited))).toBe(4000);
  });

  it("counts a fraction of a core as one", () => {
    expect(usableCores(reader({ [`${root}/cpu.max`]: "20000 100000" }))).toBe(1);
  });
});
