import { must, ThimbleError } from "../errors.js";
import type { DType } from "../ir/dtype.js";
import { isFloat } from "../ir/dtype.js";
import type { Node, TensorType } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import type { Scalar } from "../ir/scalar.js";
import { elements, sameShape } from "../ir/shape.js";
import type { Tensor } from "../ir/tensor.js";
import { allocate } from "../ir/tensor.js";

interface ElementwiseRule {
  readonly name: string;
  readonly arity: number;
  /** Element types each operand may have; bf16 and f16 must be cast to f32 first. */
  readonly operands: readonly (readonly DType[])[];
  /** Output type: that of operand `n`, or a fixed one. */
  readonly result: number | DType;
  readonly meaning: (...values: number[]) => number;
  /** Where it is another one for integers. */
  readonly integerMeaning?: (...values: number[]) => number;
  readonly expression: (...args: Scalar[]) => Scalar;
  readonly gradient?: (node: Node, dy: Node) => readonly (Node | undefined)[];
}

/** Defines an op applied element by element to operands of one shape. */
export function defineElementwise(rule: ElementwiseRule): OpDefinition {
  const { gradient } = rule;
  return Object.freeze<OpDefinition>({
    name: rule.name,
    cost: "memory",
    infer: (inputs) => [inferElementwise(rule, inputs)],
    lowering: { kind: "elementwise", expression: (args) => rule.expression(...args) },
    evaluate: (inputs, _attributes, types) => [evaluateElementwise(rule, inputs, must(types[0], "type"))],
    ...(gradient === undefined
      ? {}
      : { gradient: ({ node, outputs }) => gradient(node, must(outputs[0], "output gradient")) }),
  });
}

function inferElementwise(rule: ElementwiseRule, inputs: readonly TensorType[]): TensorType {
  const first = must(inputs[0], "operand");
  inputs.forEach((input, index) => {
    if (!sameShape(input.shape, first.shape)) {
      throw new ThimbleError("shape", `${rule.name} needs operands of one shape`, {
        expected: "equal shapes; expand first",
      });
    }
    const allowed = must(rule.operands[index], "operand types");
    const dtype = input.dtype === "f64" ? "f32" : input.dtype;
    if (!allowed.includes(dtype) || (isFloat(dtype) && isFloat(first.dtype) && input.dtype !== first.dtype)) {
      throw new ThimbleError("dtype", `${rule.name} does not take ${input.dtype} as operand ${index}`, {
        expected: allowed.join(" or "),
      });
    }
  });
  const dtype = typeof rule.result === "number" ? must(inputs[rule.result], "operand").dtype : rule.result;
  return { shape: first.shape, dtype };
}

function evaluateElementwise(rule: ElementwiseRule, inputs: readonly Tensor[], type: TensorType): Tensor {
  const count = elements(type.shape);
  const data = allocate(type.dtype, count);
  const args = new Array<number>(rule.arity).fill(0);
  const meaning = isFloat(type.dtype) ? rule.meaning : (rule.integerMeaning ?? rule.meaning);
  for (let index = 0; index < count; index++) {
    for (let operand = 0; operand < rule.arity; operand++) args[operand] = inputs[operand]?.data[index] ?? 0;
    data[index] = meaning(...args);
  }
  return { ...type, data };
}
