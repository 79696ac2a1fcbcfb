import { invariant } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { LoopsKernel } from "./kernels.js";
import { isFusible, storageOf } from "./kernels.js";

/** The kernel that computes one stored value from other values in memory. */
export function formLoops(output: Node, isStored: (node: Node) => boolean): LoopsKernel {
  return { kind: "loops", outputs: [output], inputs: boundary([output], isStored) };
}

/** The values in memory that the expressions of `outputs` read. */
export function boundary(outputs: readonly Node[], isStored: (node: Node) => boolean): Node[] {
  const inputs = new Set<Node>();
  const seen = new Set<Node>();
  const visit = (node: Node, top: boolean): void => {
    const base = storageOf(node);
    if (seen.has(base)) return;
    seen.add(base);
    const inside = isFusible(base) && (top || !isStored(base));
    if (!inside) inputs.add(base);
    else
      base.inputs.forEach((input) => {
        visit(input, false);
      });
  };
  for (const output of outputs) {
    invariant(isFusible(output), `${output.op.name} is not generated from loops`);
    seen.delete(output);
    visit(output, true);
  }
  for (const output of outputs) inputs.delete(output);
  return [...inputs];
}
