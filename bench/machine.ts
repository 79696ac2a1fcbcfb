import { cpus, totalmem } from "node:os";
import { cpuFacts, usableCores } from "../src/runtime/platform.js";

/** What a measured number was measured on. */
export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly node: string;
  readonly flags: readonly string[];
}

const notable = ["avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16"];

export function describeMachine(): Machine {
  const { flags } = cpuFacts();
  return {
    processor: cpus()[0]?.model ?? "unknown",
    cores: usableCores(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    flags: notable.filter((flag) => flags.includes(flag)),
  };
}
