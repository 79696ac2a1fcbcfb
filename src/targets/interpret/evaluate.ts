import { must, ThimbleError } from "../../errors.js";
import { isFloat, roundTo } from "../../ir/dtype.js";
import type { Node } from "../../ir/node.js";
import type { Tensor } from "../../ir/tensor.js";
import { leafOp, resultOp } from "../../ops/leaves.js";

/** `exact` rounds every value to its type; `f64` rounds floats not at all (for finite differences). */
export type Precision = "exact" | "f64";

export type Bindings = ReadonlyMap<Node, Tensor>;

/**
 * The meaning of a graph: the value of each of `outputs` given its leaves (or any inner nodes) in `bindings`.
 * Fused ops are evaluated through their decomposition. This is the oracle that every kernel is tested against.
 */
export function evaluate(outputs: readonly Node[], bindings: Bindings, precision: Precision = "exact"): Tensor[] {
  const values = new Map<Node, readonly Tensor[]>();
  for (const [node, tensor] of bindings) values.set(node, [tensor]);
  for (const output of outputs) evaluateInto(values, output, precision);
  return outputs.map((node) => must(must(values.get(node), "value")[0], "output"));
}

function evaluateInto(values: Map<Node, readonly Tensor[]>, root: Node, precision: Precision): void {
  for (const node of neededFor(root, values)) values.set(node, evaluateNode(node, values, precision));
}

/** What must be computed for `root`, in order, not looking below values that are known. */
function neededFor(root: Node, values: ReadonlyMap<Node, unknown>): Node[] {
  const seen = new Set<Node>();
  const stack = [root];
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    if (seen.has(node) || values.has(node)) continue;
    seen.add(node);
    stack.push(...node.inputs);
  }
  return [...seen].sort((a, b) => a.id - b.id);
}

function evaluateNode(node: Node, values: Map<Node, readonly Tensor[]>, precision: Precision): readonly Tensor[] {
  const inputs = node.inputs.map((input) => must(values.get(input), `value of ${input.op.name}`));
  if (node.op === leafOp) {
    throw new ThimbleError("unbound-leaf", "A leaf of the graph has no value", {
      given: String(node.attributes["name"]),
    });
  }
  if (node.op === resultOp) return [must(must(inputs[0], "tuple")[node.attributes["index"] as number], "tuple output")];
  const first = inputs.map((outputs) => must(outputs[0], "input"));
  if (node.op.evaluate !== undefined) {
    return node.op.evaluate(first, node.attributes, node.types).map((value) => rounded(value, precision));
  }
  const decompose = must(node.op.decompose, `meaning of ${node.op.name}`);
  const made = decompose(node.inputs, node.attributes);
  for (const output of made) evaluateInto(values, output, precision);
  return made.map((output) => must(must(values.get(output), "value")[0], "output"));
}

function rounded(value: Tensor, precision: Precision): Tensor {
  if (precision === "f64" || !isFloat(value.dtype)) return value;
  const { data, dtype } = value;
  if (dtype === "f64") return value;
  const copy = Float64Array.from(data);
  for (let index = 0; index < copy.length; index++) copy[index] = roundTo(dtype, copy[index] ?? 0);
  return { ...value, data: copy };
}
