/** The loop IR: what a generated kernel does, independent of the target's language. */
import type { Node } from "../../ir/node.js";
import type { Linear, LoopVariable } from "./linear.js";
import type { Combine, Loop, MemoryType, ReduceValue, Value } from "./value.js";

/** A kernel to generate: every node between `outputs` and `inputs` is fused; inputs and outputs lie in memory. */
export interface LoopKernel {
  readonly outputs: readonly Node[];
  readonly inputs: readonly Node[];
}

export interface Store {
  readonly target: { readonly kind: "output"; readonly index: number } | { readonly kind: "workspace" };
  readonly memory: MemoryType;
  /** In elements. */
  readonly offset: Linear;
  readonly value: Value;
  /** Combined with what is there already, instead of replacing it. */
  readonly combine?: Combine;
}

/** Loops around each other, with the stores that happen inside. */
export interface Piece {
  readonly loops: readonly Loop[];
  /** The innermost loop runs over lanes. */
  readonly lanes: boolean;
  readonly stores: readonly Store[];
}

/** Pieces inside common outer loops. All threads meet before a section that has a barrier. */
export interface Section {
  readonly barrier: boolean;
  readonly shared: readonly Loop[];
  readonly pieces: readonly Piece[];
}

/** Reductions with common loops, made in one pass. Lanes of the pass, if any, run over the innermost loop. */
export interface Pass {
  readonly kind: "pass";
  readonly reduces: readonly ReduceValue[];
  readonly loops: readonly Loop[];
  readonly lanes: boolean;
  readonly body: readonly Statement[];
}

export type Statement =
  | { readonly kind: "compute"; readonly value: Value }
  | { readonly kind: "store"; readonly store: Store }
  /** A scalar loop, or one over lanes of the innermost axis. */
  | { readonly kind: "loop"; readonly loop: Loop; readonly lanes: boolean; readonly body: readonly Statement[] }
  | Pass
  /** Where each reduction's value is taken from its loops: ends the innermost body of a pass. */
  | { readonly kind: "accumulate"; readonly reduce: ReduceValue };

/** One stretch of a kernel between barriers. */
export interface Stage {
  readonly barrier: boolean;
  /** What does not depend on the parallel loops. */
  readonly prologue: readonly Statement[];
  /** Loops whose iterations are dealt to threads as one; none: the first thread works alone, or lanes are dealt. */
  readonly parallel: readonly LoopVariable[];
  /** The body is one loop over lanes, which is dealt too. */
  readonly splitLanes: boolean;
  readonly body: readonly Statement[];
}

/** A lowered kernel. Renderers turn it into source; `printLoopNest` shows it. */
export interface LoopNest {
  readonly kernel: LoopKernel;
  readonly sections: readonly Section[];
  readonly stages: readonly Stage[];
  readonly workspaceBytes: number;
}
