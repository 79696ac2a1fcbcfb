import { must } from "../../errors.js";
import { kernelKey } from "../../passes/kernel-key.js";
import type { Kernel } from "../../passes/kernels.js";
import type { Buffer, PlannedStep, ProgramPlan } from "../../plan/plan.js";
import type { GeneratedKernel, PlannedEntry, PlannedWord } from "./entries.js";
import { lowerContraction } from "./lower-contraction.js";
import type { LoweredKernel, SymbolicWord } from "./lower-fixed.js";
import { lowerFixed } from "./lower-fixed.js";
import { lowerGenerated } from "./lower-loops.js";

const lowered = new Map<string, LoweredKernel>();

/** C and arguments of one kernel; kernels of equal structure are lowered once. */
export function lowerKernel(kernel: Kernel, threads: number): LoweredKernel {
  const key = `${threads} ${kernelKey(kernel)}`;
  const known = lowered.get(key);
  if (known !== undefined) return known;
  const made = lowerNew(kernel, threads);
  lowered.set(key, made);
  return made;
}

function lowerNew(kernel: Kernel, threads: number): LoweredKernel {
  switch (kernel.kind) {
    case "loops":
      return lowerGenerated(kernel);
    case "contraction":
      return lowerContraction(kernel, threads);
    case "fixed":
      return lowerFixed(kernel, threads);
  }
}

export interface LoweredStep {
  readonly entries: readonly PlannedEntry[];
  readonly copies: PlannedStep["copies"];
}

export interface LoweredProgram {
  readonly kernels: readonly GeneratedKernel[];
  readonly steps: readonly LoweredStep[];
}

/** A planned program as C kernels and the calls of them. */
export function lowerProgram(plan: ProgramPlan, threads: number): LoweredProgram {
  const kernels = new Map<string, GeneratedKernel>();
  const steps = plan.steps.map((planned) => {
    const kernel = lowerKernel(planned.step.kernel, threads);
    kernels.set(kernel.generated.name, kernel.generated);
    const words = kernel.words.map((word) => resolve(word, planned));
    return { entries: [{ kernel: kernel.generated.name, words }], copies: planned.copies };
  });
  return { kernels: [...kernels.values()], steps };
}

function resolve(word: SymbolicWord, { inputs, outputs, workspace }: PlannedStep): PlannedWord {
  if (typeof word === "number") return word;
  if ("workspace" in word) return workspace === undefined ? 0 : { buffer: workspace };
  const buffer: Buffer | undefined = "input" in word ? inputs[word.input] : outputs[word.output];
  return { buffer: must(buffer, "buffer of a kernel") };
}
