import type { SessionOptions } from "./types.js";

/** A change of a session that makes it smaller, beside what it recomputes. */
export interface Lever {
  readonly name: string;
  /** What it does, in words for the plan. */
  readonly what: string;
  /** Whether the numbers of the run stay the same to the last bit. */
  readonly exact: boolean;
  apply(options: SessionOptions): SessionOptions;
}
