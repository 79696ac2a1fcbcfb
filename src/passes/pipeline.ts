import type { Program } from "../ir/program.js";
import { verifyProgram } from "../ir/verify.js";
import type { KernelTarget } from "./bindings.js";
import { fitsOn, isLimited } from "./bindings.js";
import { dropCustomGradients, dropReversible, dropSavedForms } from "./custom-gradients.js";
import { decomposeWide } from "./decompose.js";
import { fuse } from "./fuse.js";
import type { Kernel } from "./kernels.js";
import type { SavedPolicy, SavedValues } from "./saved.js";
import { planSaved } from "./saved.js";
import type { Schedule } from "./schedule.js";
import { schedule } from "./schedule.js";
import { scatterIntoSums, shareLoss } from "./share-loss.js";

export interface PassOptions {
  readonly saved: SavedPolicy | SavedValues;
  /** What kernels can bind where they will run; no limit if not given. */
  readonly target?: KernelTarget;
}

/** A program as kernels, which no decision about saved values changes. */
export interface FormedProgram {
  readonly program: Program;
  readonly kernels: readonly Kernel[];
}

/** From a program to its kernels. */
export function formKernels(program: Program, target: KernelTarget | undefined): FormedProgram {
  let current = verifyProgram(program);
  for (const pass of [dropCustomGradients, dropReversible, dropSavedForms, shareLoss, scatterIntoSums]) {
    current = verifyProgram(pass(current));
  }
  const fits = fitsOn(target);
  if (isLimited(target)) current = verifyProgram(decomposeWide(current, fits));
  return { program: current, kernels: fuse(current, fits) };
}

/** From kernels to the order in which they run, with what is made again. */
export function orderKernels({ program, kernels }: FormedProgram, saved: PassOptions["saved"]): Schedule {
  return schedule(program, kernels, planSaved(program, kernels, saved));
}

/** The whole way from a program to an order of kernels, on one screen. */
export function compileProgram(
  program: Program,
  options: PassOptions,
): { readonly program: Program; readonly schedule: Schedule } {
  const formed = formKernels(program, options.target);
  return { program: formed.program, schedule: orderKernels(formed, options.saved) };
}
