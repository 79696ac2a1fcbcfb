import type { DType } from "./dtype.js";
import { roundTo } from "./dtype.js";
import type { Shape } from "./shape.js";
import { elements } from "./shape.js";

export type TensorData = Float64Array | Float32Array | Int32Array | Uint32Array | Uint8Array;

/** A dense row-major host tensor: what the interpreter computes with and what goes in and out of programs. */
export interface Tensor {
  readonly shape: Shape;
  readonly dtype: DType;
  readonly data: TensorData;
}

/** An array for `count` values of a type; every float type is held in `float`-width numbers. */
export function allocate(dtype: DType, count: number, float: "f32" | "f64" = "f64"): TensorData {
  switch (dtype) {
    case "i32":
      return new Int32Array(count);
    case "u32":
      return new Uint32Array(count);
    case "u8":
    case "bool":
      return new Uint8Array(count);
    default:
      return float === "f64" || dtype === "f64" ? new Float64Array(count) : new Float32Array(count);
  }
}

/** A tensor from numbers, rounded to `dtype`. */
export function tensor(shape: Shape, values: ArrayLike<number>, dtype: DType = "f32"): Tensor {
  const data = allocate(dtype, elements(shape), "f64");
  for (let index = 0; index < data.length; index++) data[index] = roundTo(dtype, values[index] ?? 0);
  return { shape, dtype, data };
}
