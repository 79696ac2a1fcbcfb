/** A change of a run's settings, and what it is called. */
export interface Case {
  readonly name: string;
  readonly settings: Readonly<Record<string, unknown>>;
}

/** What one case took in a process where those before it have run. */
export interface CaseResult {
  readonly name: string;
  /** From the model's config to the place of every buffer. */
  readonly planSeconds: number;
  /** From the plan to C and the arguments of its calls. */
  readonly lowerSeconds: number;
  /** Until all kernels are loaded: the compiler, where it was needed. */
  readonly compileSeconds: number;
  readonly kernels: number;
  /** Kernels that the cache did not hold; 0 means that the compiler was not called. */
  readonly compiled: number;
  readonly planBytes: number;
}
