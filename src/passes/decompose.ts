import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { nodesOf, rebuilt, rewriteProgram } from "../ir/program.js";
import { dotOp } from "../ops/dot.js";
import { resultOp } from "../ops/leaves.js";
import type { Fits } from "./bindings.js";
import { fixedKernel } from "./fuse.js";

/** Replaces fused ops that a target cannot bind by what they mean, in smaller ops. */
export function decomposeWide(program: Program, fits: Fits): Program {
  const isWide = (node: Node): boolean =>
    node.op.lowering.kind === "kernel" &&
    node.op !== dotOp &&
    node.op.decompose !== undefined &&
    !fits(fixedKernel(node));
  if (!nodesOf(program).some(isWide)) return program;
  const parts = new Map<Node, readonly Node[]>();
  const replaced = rewriteProgram(program, (node, inputs) => {
    const source = node.inputs[0];
    const made = node.op === resultOp && source !== undefined ? parts.get(source) : undefined;
    if (made !== undefined) return must(made[node.attributes["index"] as number], "output of a tuple");
    if (!isWide(node)) return rebuilt(node, inputs);
    const outputs = node.graph.inScope(node.scope, () => must(node.op.decompose, "meaning")(inputs, node.attributes));
    parts.set(node, outputs);
    return node.types.length === 1 ? must(outputs[0], "output") : rebuilt(node, inputs);
  });
  return decomposeWide(replaced, fits);
}
