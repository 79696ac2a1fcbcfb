import { must, ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import { elements } from "../ir/shape.js";
import { allocate } from "../ir/tensor.js";
import { flip } from "./layout.js";

/**
 * Sums of each row of x, f32 [..., n], up to and including each element. Added up in f64 from the first element on, and
 * rounded to f32 each: one order on every target, and of values that are not negative the sums never fall.
 */
export const cumulativeSumOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "cumulativeSum",
  cost: "memory",
  infer: (inputs) => {
    const { shape, dtype } = must(inputs[0], "operand");
    if (dtype !== "f32" || shape.length === 0 || elements(shape) === 0) {
      throw new ThimbleError("shape", "cumulativeSum takes rows of f32 that are not empty", {
        given: `${dtype} [${shape.join(", ")}]`,
      });
    }
    return [{ shape, dtype }];
  },
  lowering: { kind: "kernel" },
  evaluate: (inputs, _attributes, types) => {
    const type = must(types[0], "type");
    const { data: values } = must(inputs[0], "operand");
    const length = must(type.shape.at(-1), "row");
    const data = allocate("f32", values.length);
    let sum = 0;
    for (let index = 0; index < values.length; index++) {
      sum = (index % length === 0 ? 0 : sum) + (values[index] ?? 0);
      data[index] = sum;
    }
    return [{ ...type, data }];
  },
  // Each element is in the sums from its own place on.
  gradient: ({ node, outputs }) => {
    const last = node.shape.length - 1;
    return [flip(cumulativeSum(flip(must(outputs[0], "output gradient"), last)), last)];
  },
});

/** See {@link cumulativeSumOp}. */
export function cumulativeSum(x: Node): Node {
  return x.graph.add(cumulativeSumOp, [x]);
}
