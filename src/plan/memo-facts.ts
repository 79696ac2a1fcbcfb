import type { Node } from "../ir/node.js";
import type { Kernel } from "../passes/kernels.js";
import type { TargetFacts } from "./types.js";

/** The same facts, found once for each kernel: a search asks for them again and again. */
export function memoFacts(facts: TargetFacts): TargetFacts {
  const scratch = new WeakMap<Kernel, number>();
  const places = new WeakMap<Kernel, Map<Node, readonly Node[]>>();
  return {
    ...facts,
    workspaceBytes: (kernel) => {
      const known = scratch.get(kernel) ?? facts.workspaceBytes(kernel);
      scratch.set(kernel, known);
      return known;
    },
    inPlace: (kernel, output) => {
      const byOutput = places.get(kernel) ?? new Map<Node, readonly Node[]>();
      places.set(kernel, byOutput);
      const known = byOutput.get(output) ?? facts.inPlace(kernel, output);
      byOutput.set(output, known);
      return known;
    },
  };
}
