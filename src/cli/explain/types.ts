import type { Kind } from "../../plan/plan.js";

/** A value in memory that a kernel reads or writes. */
export interface ExplainedValue {
  readonly name: string;
  readonly kind: Kind;
  /** As in `f32[1024, 576]`; of a packed weight, its storage format. */
  readonly type: string;
  readonly bytes: number;
}

/** One execution of a kernel. */
export interface ExplainedStep {
  /** Counts from 1 over all programs. */
  readonly line: number;
  readonly program: string;
  /** Where in the model, and what. */
  readonly label: string;
  /** Name of the generated function. */
  readonly kernel: string;
  readonly kind: "loops" | "contraction" | "fixed";
  /** Made again for backward. */
  readonly again: boolean;
  /** Sizes, as in `1024 x 576, sum over 1536`. */
  readonly size: string;
  /** Bytes that must be read and written at least. */
  readonly bytesMoved: number;
  /** Additions and multiplications; a function such as exp counts as one. */
  readonly operations: number;
  readonly inputs: readonly ExplainedValue[];
  readonly outputs: readonly ExplainedValue[];
  readonly workspaceBytes: number;
  /** Loop nest, or the hand-made schedule in words; of the line that was asked for. */
  readonly schedule?: string;
  /** Copies after the kernel, where an output could not be written straight into its place. */
  readonly copies: number;
}

/** A generated function, used by one step or many. */
export interface ExplainedKernel {
  readonly name: string;
  readonly kind: ExplainedStep["kind"];
  /** Lines of the steps that run it. */
  readonly lines: readonly number[];
  readonly operations: number;
  readonly bytesMoved: number;
  /** Loop nest, or the hand-made schedule in words, of its first line. */
  readonly schedule: string;
  readonly source: string;
}

export interface ExplainedProgram {
  readonly name: string;
  readonly steps: readonly ExplainedStep[];
}

/** What a run's programs do, in order, and the code that does it. */
export interface Explanation {
  readonly threads: number;
  readonly programs: readonly ExplainedProgram[];
  readonly kernels: readonly ExplainedKernel[];
}
