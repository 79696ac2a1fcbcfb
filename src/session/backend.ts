import type { ProgramPlan } from "../plan/plan.js";
import type { DiskWeights } from "../runtime/disk-weights.js";

/** Where a session's programs run: memory, and a way to run each of them. */
export interface Backend {
  /** Takes the memory; called once. Fails before taking any if it cannot fit. */
  allocate(bytes: number): void;
  /** Takes at least so much memory, with what is in it kept; addresses change. Needed where blocks take turns. */
  grow?(bytes: number): void;
  /** What was really allocated. */
  readonly allocatedBytes: number;
  /** A view of the arena, valid until `close`. */
  bytes(offset: number, length: number): Uint8Array;
  /** Makes the programs ready to run in the arena, in the place of those before. */
  prepare(plans: readonly ProgramPlan[]): Promise<void>;
  /** Says where the tensors are that lie on disk, once they are there. Needed where some do. */
  attach?(disk: DiskWeights): void;
  /** Runs program number `index` once; with a signal, it may stop between two kernels and then answers false. */
  run(index: number, signal?: AbortSignal): Promise<boolean>;
  /** Seconds that each kernel of a program took in its last run; empty unless `timed`. */
  times(index: number): number[];
  /** Seconds for which a program's last run waited for tensors to be read; 0 unless `timed`. */
  waited?(index: number): number;
  close(): void;
}

export interface BackendOptions {
  readonly threads: number;
  /** Fill memory that holds nothing with NaN, before each run and after each buffer's last use (for tests). */
  readonly poison: boolean;
  /** Measure each kernel, where the backend can. */
  readonly timed: boolean;
}
