import { must } from "../errors.js";
import type { Program } from "../ir/program.js";
import { nodesOf, rebuilt, rewriteProgram } from "../ir/program.js";
import { customGradientOp } from "../ops/custom-gradient.js";
import { keptBy, savedAsOp, savedRowsOp } from "../ops/saved.js";

/** After differentiation a value with a derivative rule of its own is just the value. */
export function dropCustomGradients(program: Program): Program {
  return rewriteProgram(program, (node, inputs) =>
    node.op === customGradientOp ? must(inputs[0], "value") : rebuilt(node, inputs),
  );
}

/** After differentiation a value of which backward reads something else is just the value; what that is, is noted. */
export function dropSavedForms(program: Program): Program {
  const kept = new Set(nodesOf(program).flatMap(keptBy));
  if (kept.size === 0) return program;
  const plain = rewriteProgram({ ...program, saved: [...kept] }, (node, inputs) =>
    node.op === savedAsOp || node.op === savedRowsOp ? must(inputs[0], "value") : rebuilt(node, inputs),
  );
  const read = new Set(nodesOf(plain));
  return { ...plain, saved: (plain.saved ?? []).filter((node) => read.has(node)) };
}
