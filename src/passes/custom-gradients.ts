import { droppedBy, reversibleOp } from "../autodiff/reversible.js";
import { must } from "../errors.js";
import type { Program } from "../ir/program.js";
import { nodesOf, rebuilt, rewriteProgram } from "../ir/program.js";
import { customGradientOp } from "../ops/custom-gradient.js";
import { resultOp } from "../ops/leaves.js";
import { keptBy, savedAsOp, savedRowsOp } from "../ops/saved.js";

/** After differentiation a value with a derivative rule of its own is just the value. */
export function dropCustomGradients(program: Program): Program {
  return rewriteProgram(program, (node, inputs) =>
    node.op === customGradientOp ? must(inputs[0], "value") : rebuilt(node, inputs),
  );
}

/** After differentiation reversible layers are the two streams at their end, beside what backward needs of those between. */
export function dropReversible(program: Program): Program {
  const chains = nodesOf(program).filter((node) => node.op === reversibleOp);
  if (chains.length === 0) return program;
  const saved = [...(program.saved ?? []), ...chains.flatMap(droppedBy)];
  const plain = rewriteProgram({ ...program, saved }, (node, inputs) => {
    const [source] = inputs;
    if (node.op !== resultOp || source?.op !== reversibleOp) return rebuilt(node, inputs);
    return must(source.inputs[node.attributes["index"] as number], "end of a stream");
  });
  return onlyRead(plain);
}

/** After differentiation a value of which backward reads something else is just the value; what that is, is noted. */
export function dropSavedForms(program: Program): Program {
  const kept = new Set(nodesOf(program).flatMap(keptBy));
  if (kept.size === 0) return program;
  const plain = rewriteProgram({ ...program, saved: [...(program.saved ?? []), ...kept] }, (node, inputs) =>
    node.op === savedAsOp || node.op === savedRowsOp ? must(inputs[0], "value") : rebuilt(node, inputs),
  );
  return onlyRead(plain);
}

/** Of what the forward pass makes for backward, what is read there. */
function onlyRead(program: Program): Program {
  const { saved = [] } = program;
  if (saved.length === 0) return program;
  const read = new Set(nodesOf(program));
  return { ...program, saved: saved.filter((node) => read.has(node)) };
}
