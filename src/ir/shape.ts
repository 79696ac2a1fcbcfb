import { ThimbleError } from "../errors.js";

/** Sizes of a tensor, outermost first; `[]` is a scalar. Layout is always row-major. */
export type Shape = readonly number[];

export function elements(shape: Shape): number {
  return shape.reduce((product, size) => product * size, 1);
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis]);
}

/** Row-major strides, in elements. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis] ?? 1;
  }
  return strides;
}

/** The shape both operands expand to (NumPy's rule), or an error that names both. */
export function broadcastShapes(a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, axis) => {
    const left = a[axis - rank + a.length] ?? 1;
    const right = b[axis - rank + b.length] ?? 1;
    if (left === right || right === 1) return left;
    if (left === 1) return right;
    throw new ThimbleError("shape", "The shapes do not go together", {
      given: `[${a.join(", ")}] and [${b.join(", ")}]`,
      expected: "sizes that are equal or 1, axis by axis from the last",
    });
  });
}
