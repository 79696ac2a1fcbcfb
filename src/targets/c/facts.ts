import { must } from "../../errors.js";
import type { TargetFacts } from "../../plan/types.js";
import { unlimited } from "../../plan/types.js";
import { lowerKernel } from "./lower.js";

/** What the planner must know of generated C: cache lines, exact scratch, and where values may be overwritten. */
export function cFacts(threads: number): TargetFacts {
  return {
    alignment: 64,
    limits: unlimited,
    workspaceBytes: (kernel) => lowerKernel(kernel, threads).workspaceBytes,
    inPlace: (kernel, output) => {
      const places = lowerKernel(kernel, threads).inPlace[kernel.outputs.indexOf(output)] ?? [];
      return places.map((place) => must(kernel.inputs[place], "input"));
    },
  };
}
