import type { Node } from "../ir/node.js";
import type { Kernel } from "../passes/kernels.js";
import type { Step } from "../passes/schedule.js";

/** What a byte of the plan is for. */
export type Kind = "weights" | "gradients" | "states" | "saved" | "workspace";

/** Which memory an address is in. */
export type Tier = "device" | "host" | "disk";

/** What a target can allocate and bind, in bytes; Infinity where there is no limit. */
export interface TargetLimits {
  /** One allocation. An arena that needs more is several of them, and no buffer crosses from one into the next. */
  readonly largestShard: number;
  /** One range that a kernel binds. */
  readonly largestBinding: number;
  /** Ranges that a kernel binds, scratch included. */
  readonly bindings: number;
}

export const unlimited: TargetLimits = { largestShard: Infinity, largestBinding: Infinity, bindings: Infinity };

/** What the planner must know of a target. */
export interface TargetFacts {
  /** Every address is a multiple of this many bytes, but those of single numbers that the host sets. */
  readonly alignment: number;
  readonly limits: TargetLimits;
  /** Scratch memory of one kernel, all threads together. */
  workspaceBytes(kernel: Kernel): number;
  /** Inputs whose memory an output may take over while the kernel runs. */
  inPlace(kernel: Kernel, output: Node): readonly Node[];
}

/** Where a buffer lies. */
export interface Address {
  readonly tier: Tier;
  /** Which allocation of the tier; a target without a limit has one. */
  readonly shard: number;
  /** Bytes from the start of the shard. */
  readonly offset: number;
}

export interface Buffer extends Address {
  readonly name: string;
  readonly kind: Kind;
  readonly bytes: number;
  /** Steps at which it is alive, inclusive; a persistent buffer is always. */
  readonly start: number;
  readonly end: number;
}

export interface PlannedStep {
  readonly step: Step;
  /** Memory of each read and write, in the order of the kernel's inputs and outputs. */
  readonly inputs: readonly Buffer[];
  readonly outputs: readonly Buffer[];
  readonly workspace: Buffer | undefined;
  /** Copies to make after the kernel: [from, to]. */
  readonly copies: readonly (readonly [Buffer, Buffer])[];
}

/** Bytes that move between disk and memory while a program runs; transfers are made in the order of the plan. */
export interface PlannedTransfer {
  readonly direction: "read" | "write";
  /** In tier `disk`. */
  readonly stored: Buffer;
  readonly memory: Buffer;
  /** It is asked for just before this step, */
  readonly start: number;
  /** and made before this one; the number of steps if the program's end is early enough. */
  readonly done: number;
}

/** What outlives a program: weights, states, accumulators, inputs. */
export interface PersistentLayout {
  readonly buffers: ReadonlyMap<string, Buffer>;
  /** Bytes in memory. */
  readonly bytes: number;
  /** Bytes on disk. */
  readonly diskBytes: number;
  /** Bytes used of each shard. */
  readonly shards: readonly number[];
}

export interface ProgramPlan {
  readonly name: string;
  readonly steps: readonly PlannedStep[];
  readonly buffers: readonly Buffer[];
  readonly transfers: readonly PlannedTransfer[];
  /** Host-read outputs. */
  readonly outputs: ReadonlyMap<string, { readonly buffer: Buffer; readonly node: Node }>;
  /** Bytes after the persistent ones. */
  readonly extent: number;
  /** Bytes of each shard, persistent ones included. */
  readonly shards: readonly number[];
  /** The most bytes alive at one step: what no placement can go below. */
  readonly bound: number;
}
