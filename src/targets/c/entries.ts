import type { Buffer } from "../../plan/plan.js";

/** One argument of a kernel: a number, or the address of a buffer plus some bytes, known when the arena is. */
export type PlannedWord = number | { readonly buffer: Buffer };

/** A kernel of a program as the native runner will call it. */
export interface PlannedEntry {
  readonly kernel: string;
  readonly words: readonly PlannedWord[];
}

/** C text of a kernel. `includes` are shared texts that a unit states once. */
export interface GeneratedKernel {
  readonly name: string;
  readonly source: string;
}
