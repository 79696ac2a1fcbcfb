import type { Program } from "../ir/program.js";
import { verifyProgram } from "../ir/verify.js";
import type { KernelTarget } from "./bindings.js";
import { fitsOn, isLimited } from "./bindings.js";
import { decomposeWide } from "./decompose.js";
import { fuse } from "./fuse.js";
import type { SavedPolicy } from "./saved.js";
import { planSaved } from "./saved.js";
import type { Schedule } from "./schedule.js";
import { schedule } from "./schedule.js";
import { scatterIntoSums, shareLoss } from "./share-loss.js";

export interface PassOptions {
  readonly saved: SavedPolicy;
  /** What kernels can bind where they will run; no limit if not given. */
  readonly target?: KernelTarget;
}

/** The whole way from a program to an order of kernels, on one screen. */
export function compileProgram(
  program: Program,
  options: PassOptions,
): { readonly program: Program; readonly schedule: Schedule } {
  let current = verifyProgram(program);
  for (const pass of [shareLoss, scatterIntoSums]) current = verifyProgram(pass(current));
  const fits = fitsOn(options.target);
  if (isLimited(options.target)) current = verifyProgram(decomposeWide(current, fits));
  const kernels = fuse(current, fits);
  const split = planSaved(current, kernels, options.saved);
  return { program: current, schedule: schedule(current, kernels, split) };
}
