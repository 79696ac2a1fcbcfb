import { must } from "../../errors.js";
import type { TargetFacts } from "../../plan/plan.js";
import { lowerKernel } from "./lower.js";

/** What the planner must know of generated C: cache lines, exact scratch, and where values may be overwritten. */
export function cFacts(threads: number): TargetFacts {
  return {
    alignment: 64,
    workspaceBytes: (kernel) => lowerKernel(kernel, threads).workspaceBytes,
    inPlace: (kernel, output) => {
      const places = lowerKernel(kernel, threads).inPlace[kernel.outputs.indexOf(output)] ?? [];
      return places.map((place) => must(kernel.inputs[place], "input"));
    },
  };
}
