/** An extension of the instruction set: its name, and whether the processor and the compiler have it. */
export interface Extension {
  readonly name: string;
  /** What Thimble does with it. */
  readonly use: string;
  /** Undefined where the system does not tell. */
  readonly processor: boolean | undefined;
  readonly compiler: boolean;
}

export interface TargetReport {
  readonly name: "c" | "interpret";
  readonly works: boolean;
  readonly fast: boolean;
  /** Why it works, or why not. */
  readonly reason: string;
  readonly fix?: string;
}

export interface MachineReport {
  readonly node: string;
  readonly platform: string;
  readonly processor: string;
  readonly threads: number;
  readonly memoryFree: number;
  readonly memoryTotal: number;
  readonly cache: { readonly folder: string; readonly usable: boolean; readonly reason?: string };
  readonly compiler?: { readonly path: string; readonly version: string };
  readonly extensions: readonly Extension[];
  readonly targets: readonly TargetReport[];
  /** What `--target auto` takes. */
  readonly chosen: "c" | undefined;
  readonly why: string;
  /** What would make it faster, or work at all; a sentence each. */
  readonly advice: readonly string[];
}
