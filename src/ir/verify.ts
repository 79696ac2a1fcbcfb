import { invariant } from "../errors.js";
import { leafOp } from "../ops/leaves.js";
import type { Program } from "./program.js";
import { nodesOf } from "./program.js";
import { sameShape } from "./shape.js";

/**
 * What holds for every program between passes: inputs come before their readers, node types are what the op's shape
 * rule says, effects go to leaves of the same type, no leaf is assigned twice in a phase, the loss is a scalar.
 */
export function verifyProgram(program: Program): Program {
  for (const node of nodesOf(program)) {
    const place = `${program.name}: ${node.op.name} #${node.id} in ${node.scope}`;
    invariant(
      node.inputs.every((input) => input.id < node.id),
      `${place} comes before its input`,
    );
    invariant(node.graph === program.graph, `${place} belongs to another graph`);
    const types = node.op.infer(
      node.inputs.map((input) => ({ shape: input.shape, dtype: input.dtype })),
      node.attributes,
    );
    const agrees = types.every((type, index) => {
      const own = node.types[index];
      return own !== undefined && own.dtype === type.dtype && sameShape(own.shape, type.shape);
    });
    invariant(agrees, `${place} does not have the type its op infers`);
  }
  for (const phase of program.phases) {
    const targets = new Set<number>();
    for (const { target, value } of phase.assignments) {
      const place = `${program.name}: assignment to ${String(target.attributes["name"])}`;
      invariant(target.op === leafOp, `${place}: not a leaf`);
      invariant(!targets.has(target.id), `${place}: twice in one phase`);
      invariant(sameShape(target.shape, value.shape) && target.dtype === value.dtype, `${place}: of another type`);
      targets.add(target.id);
    }
  }
  invariant(
    program.loss === undefined || program.loss.shape.every((size) => size === 1),
    `${program.name}: loss is no scalar`,
  );
  return program;
}
