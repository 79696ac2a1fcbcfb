import { ThimbleError } from "../../errors.js";
import type { Shape } from "../../ir/shape.js";
import { elements } from "../../ir/shape.js";
import type { AdapterTensor, HostTensors } from "../types.js";
import type { LowRankLayer } from "./layer.js";

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
  layer: LowRankLayer,
  tensors: HostTensors,
  visit: (row: number, values: Float64Array) => void,
): void {
  const { rank, scale, spec } = layer;
  const a = valuesOf(layer.a, tensors);
  const b = valuesOf(layer.b, tensors);
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
export function rowLayout(spec: LowRankLayer["spec"], row: number): { start: number; stride: number } {
  return spec.transposed ? { start: row, stride: spec.outputs } : { start: row * spec.inputs, stride: 1 };
}

/** The factors of s (B A - B₀ A₀), by name: [A; A₀] [2r, in] and [B, -B₀] [out, 2r]. */
export function stackFactors(
  { a, b, rank, spec }: LowRankLayer,
  now: HostTensors,
  before: HostTensors,
): Map<string, { readonly shape: Shape; readonly data: Float32Array }> {
  const rows = new Float32Array(2 * rank * spec.inputs);
  rows.set(valuesOf(a, now));
  rows.set(valuesOf(a, before), rank * spec.inputs);
  const [plus, minus] = [valuesOf(b, now), valuesOf(b, before)];
  const columns = new Float32Array(spec.outputs * 2 * rank);
  for (let row = 0; row < spec.outputs; row++) {
    for (let column = 0; column < rank; column++) {
      columns[row * 2 * rank + column] = plus[row * rank + column] ?? 0;
      columns[row * 2 * rank + rank + column] = -(minus[row * rank + column] ?? 0);
    }
  }
  return new Map([
    [a.name, { shape: [2 * rank, spec.inputs], data: rows }],
    [b.name, { shape: [spec.outputs, 2 * rank], data: columns }],
  ]);
}
