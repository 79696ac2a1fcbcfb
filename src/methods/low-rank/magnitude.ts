import type { Node } from "../../ir/node.js";
import type { LinearSpec } from "../../models/types.js";
import { add, cast, divide, maximum, multiply, sqrt } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import { permute, reduceSum, reshape } from "../../ops/layout.js";
import { detach } from "../../ops/reduce.js";
import type { AdaptContext, AdapterTensor, FixedTensor, HostTensors, PrepareContext } from "../types.js";
import type { LowRankLayer } from "./layer.js";
import { tensorDefaults } from "./layer.js";
import type { RowFactor } from "./merge.js";
import { rowLayout, valuesOf } from "./tensors.js";

/** The length of each row of a changed weight, trained on its own (DoRA, Liu et al. 2024). */
export interface Magnitude {
  /** m [out], trained. */
  readonly vector: AdapterTensor;
  /** Squared norm of each row of the frozen weight, [out]: constant, so computed once. */
  readonly rowSquares: FixedTensor;
}

export function magnitudeOf(spec: LinearSpec, rateFactor: number): Magnitude {
  const { path, outputs } = spec;
  return {
    vector: {
      ...tensorDefaults(spec),
      name: `${path}.lora_magnitude_vector`,
      shape: [outputs],
      initial: { kind: "prepared" },
      rateFactor,
      decay: false,
    },
    rowSquares: { name: `${path}.weight_row_squares`, shape: [outputs], dtype: "f32" },
  };
}

/**
 * m = the norm of each row. The graph's sqrt of the same f32 square gives the same bits, so m/n is exactly 1 at the
 * start.
 */
export function setMagnitude(
  context: PrepareContext,
  spec: LinearSpec,
  { vector, rowSquares }: Magnitude,
  weight: Float32Array,
): void {
  const squares = new Float32Array(spec.outputs);
  for (let row = 0; row < spec.outputs; row++) {
    const { start, stride } = rowLayout(spec, row);
    let sum = 0;
    for (let column = 0; column < spec.inputs; column++) sum += (weight[start + column * stride] ?? 0) ** 2;
    squares[row] = sum;
  }
  context.set(rowSquares.name, squares);
  context.set(
    vector.name,
    squares.map((value) => Math.sqrt(value)),
  );
}

/**
 * m / n as [1, out], n the norm of each row of W + s B A taken as a constant in backward (Liu et al. 2024, section
 * 4.3). |W_i + s (BA)_i|² = |W_i|² + 2 s B_i·(W Aᵀ)_i + s² B_i (A Aᵀ) B_iᵀ needs no dense [out, in] temporary.
 */
export function magnitudeFactor(
  context: AdaptContext,
  { spec, scale }: LowRankLayer,
  { vector, rowSquares }: Magnitude,
  a: Node,
  b: Node,
): Node {
  // A Wᵀ [r, out]: the base's own product, with the rows of A as tokens.
  const shared = dot(a, cast(context.weight(spec), "f32"), { transposeB: !spec.transposed });
  const gram = dot(a, a, { transposeB: true });
  const cross = multiply(multiply(b, permute(shared, [1, 0])), 2 * scale);
  const own = multiply(multiply(dot(b, gram), b), scale * scale);
  const added = reshape(reduceSum(add(cross, own), [1]), [spec.outputs]);
  // An all-zero row stays as it is instead of dividing by zero.
  const norm = maximum(sqrt(add(context.fixed(rowSquares), added)), 1e-30);
  return reshape(divide(context.trainable(vector), detach(norm)), [1, spec.outputs]);
}

/** m / n of a merge, n from the merged row itself. */
export function mergedFactor({ vector }: Magnitude, tensors: HostTensors): RowFactor {
  const magnitude = valuesOf(vector, tensors);
  return (row, squares) => (squares === 0 ? 1 : (magnitude[row] ?? 0) / Math.sqrt(squares));
}
