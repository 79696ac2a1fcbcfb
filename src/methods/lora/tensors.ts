import { ThimbleError } from "../../errors.js";
import { elements } from "../../ir/shape.js";
import type { AdapterTensor, HostTensors } from "../types.js";
import type { LoraTarget } from "./config.js";

/** The values of one adapter tensor, or an error naming it. */
export function valuesOf(tensor: AdapterTensor, tensors: HostTensors): Float32Array {
  const values = tensors.get(tensor.name);
  const count = elements(tensor.shape);
  if (values?.length === count) return values;
  throw new ThimbleError(
    "adapter-tensor",
    `The adapter's ${tensor.name} is ${values === undefined ? "missing" : "of the wrong size"}`,
    {
      expected: `[${tensor.shape.join(", ")}]`,
      ...(values === undefined ? {} : { given: `${values.length} values` }),
    },
  );
}

/** s B A as [out, in] in f64, row by row: `visit(row, values)` with the row valid during the call only. */
export function eachDeltaRow(
  target: LoraTarget,
  tensors: HostTensors,
  visit: (row: number, values: Float64Array) => void,
): void {
  const { rank, scale, spec } = target;
  const a = valuesOf(target.a, tensors);
  const b = valuesOf(target.b, tensors);
  const values = new Float64Array(spec.inputs);
  for (let row = 0; row < spec.outputs; row++) {
    values.fill(0);
    for (let inner = 0; inner < rank; inner++) {
      const factor = scale * (b[row * rank + inner] ?? 0);
      if (factor === 0) continue;
      const start = inner * spec.inputs;
      for (let column = 0; column < spec.inputs; column++) {
        values[column] = (values[column] ?? 0) + factor * (a[start + column] ?? 0);
      }
    }
    visit(row, values);
  }
}

/** Where element (row, column) of the mathematical weight [out, in] lies: its start for a row, and its stride. */
export function rowLayout(spec: LoraTarget["spec"], row: number): { start: number; stride: number } {
  return spec.transposed ? { start: row, stride: spec.outputs } : { start: row * spec.inputs, stride: 1 };
}
