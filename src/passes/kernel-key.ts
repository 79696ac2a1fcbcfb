import type { Node } from "../ir/node.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import type { Kernel } from "./kernels.js";

/**
 * What a kernel computes, without which values it computes it of: equal keys mean equal code, sizes included. The
 * repeated blocks of a model have equal kernels, so lowering is done once for all of them.
 */
export function kernelKey(kernel: Kernel): string {
  const numbers = new Map<Node, number>();
  const lines: string[] = [kernel.kind];
  kernel.inputs.forEach((input, index) => {
    numbers.set(input, index);
    const format = input.op === leafOp ? leafAttributes(input).format : input.dtype;
    lines.push(`${index}:${format}/${input.dtype}[${input.shape.join()}]`);
  });
  const describe = (node: Node): number => {
    const known = numbers.get(node);
    if (known !== undefined) return known;
    const inputs = node.inputs.map(describe);
    const number = numbers.size;
    numbers.set(node, number);
    const types = node.types.map(({ dtype, shape }) => `${dtype}[${shape.join()}]`).join("+");
    lines.push(`${number}=${node.op.name}(${inputs.join()})${JSON.stringify(node.attributes)}${types}`);
    return number;
  };
  const outputs = kernel.outputs.map(describe);
  if (kernel.kind === "contraction")
    lines.push(`sum ${describe(kernel.accumulator)} ${describe(kernel.epilogue)} ${kernel.compute}`);
  if (kernel.kind === "contraction") lines.push(kernel.epilogueInputs.map(describe).join());
  return `${lines.join(";")};out ${outputs.join()}`;
}
