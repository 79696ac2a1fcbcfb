import type { Node } from "../ir/node.js";
import type { Kernel } from "./kernels.js";

/** One execution of a kernel. A value made more than once has an instance each time. */
export interface Step {
  readonly kernel: Kernel;
  readonly reads: readonly Instance[];
  readonly writes: readonly Instance[];
  /** Made again for backward. */
  readonly again: boolean;
  readonly forward: boolean;
}

/** A value at one of the times that it is made. Leaves have one instance, their place in memory. */
export interface Instance {
  readonly node: Node;
  readonly turn: number;
}
