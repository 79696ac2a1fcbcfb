import { must } from "../errors.js";
import type { Program } from "../ir/program.js";
import { rebuilt, rewriteProgram } from "../ir/program.js";
import { customGradientOp } from "../ops/custom-gradient.js";

/** After differentiation a value with a derivative rule of its own is just the value. */
export function dropCustomGradients(program: Program): Program {
  return rewriteProgram(program, (node, inputs) =>
    node.op === customGradientOp ? must(inputs[0], "value") : rebuilt(node, inputs),
  );
}
