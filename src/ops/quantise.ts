import { ThimbleError } from "../errors.js";
import type { DType } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import { elements } from "../ir/shape.js";
import type { Float8Id } from "../storage/float8.js";
import { float8Formats } from "../storage/float8.js";
import { absolute, add, cast, divide, maximum, multiply } from "./arithmetic.js";
import { defineGradient } from "./custom-gradient.js";
import { fromFloat8, toFloat8 } from "./float8.js";
import { expand, reshape } from "./layout.js";
import { reduceMaximum } from "./reduce.js";
import { savedAs } from "./saved.js";

/** A value in FP8: `decode(codes) * scale`. */
export interface Quantised {
  /** u8 [rows, n]: rows of the last axis, or groups. */
  readonly codes: Node;
  /** f32 [1, 1] of the whole tensor; or bf16 [groups, 1]. */
  readonly scales: Node;
  /** f32, of the value's shape. */
  readonly value: Node;
}

/** A scale of nothing but zeros must not be 0. */
const tiny = 1e-30;
/** What the reference adds to the largest magnitude of a group. */
const groupFloor = 1e-10;

/** `x` as rows [n, row] in f32. */
function rowsOf(x: Node, row: number): Node {
  return reshape(cast(x, "f32"), [elements(x.shape) / row, row]);
}

function coded(x: Node, rows: Node, scales: Node, format: Float8Id): Quantised {
  const spread = expand(cast(scales, "f32"), rows.shape);
  const codes = cast(toFloat8(format, divide(rows, spread)), "u8");
  const value = multiply(fromFloat8(format, cast(codes, "i32")), spread);
  return { codes, scales, value: reshape(value, x.shape) };
}

/** One scale of `rows`: their largest magnitude, found row by row and then over rows, over the format's largest number. */
function scaleOf(rows: Node, format: Float8Id): Node {
  const largest = reduceMaximum(reduceMaximum(absolute(rows), [1]), [0]);
  return divide(maximum(largest, tiny), float8Formats[format].largest);
}

/** A tensor with one scale. */
export function quantiseTensor(x: Node, format: Float8Id): Quantised {
  const rows = rowsOf(x, x.shape.at(-1) ?? 1);
  return coded(x, rows, scaleOf(rows, format), format);
}

/** The values that {@link quantiseTensor} gives, where no codes shall lie in memory: made anew wherever they are read. */
export function roundTensor(x: Node, format: Float8Id): Node {
  const rows = rowsOf(x, x.shape.at(-1) ?? 1);
  const scale = expand(scaleOf(rows, format), rows.shape);
  return reshape(multiply(fromFloat8(format, toFloat8(format, divide(rows, scale))), scale), x.shape);
}

/** A tensor with a bf16 scale for each `group` neighbours on its last axis; values are divided by the stored scale. */
export function quantiseGroups(x: Node, format: Float8Id, group: number): Quantised {
  const width = x.shape.at(-1) ?? 1;
  if (width % group !== 0) {
    throw new ThimbleError("quantise-groups", "The rows of a value are not whole groups", {
      given: `[${x.shape.join(", ")}]`,
      expected: `a last axis that is a multiple of ${group}`,
      fix: "Leave this model's values as they are.",
    });
  }
  const rows = rowsOf(x, group);
  const largest = add(reduceMaximum(absolute(rows), [1]), groupFloor);
  return coded(x, rows, cast(divide(largest, float8Formats[format].largest), "bf16"), format);
}

/** A value through which the gradient passes to `x`, of its shape, as it is. */
export const straightThrough = defineGradient("straight through", ({ gradient }) => [gradient]);

/** What stands for `x`, in a type that its readers take: its quantised form, of which backward keeps codes and scales. */
export function keptQuantised(x: Node, { codes, scales, value }: Quantised, dtype: DType): Node {
  const through = cast(straightThrough(value, [x]), dtype);
  return savedAs(through, through, [codes, scales]);
}

/**
 * What stands for `x`, in its type: its form with one scale, of which backward keeps the scale alone. It makes the codes
 * again from `x`, which it has anyway.
 */
export function remadeQuantised(x: Node, format: Float8Id): Node {
  const { value, scales } = quantiseTensor(x, format);
  // As one row: in the graph another value, though it is the same in numbers.
  const again = coded(x, rowsOf(x, elements(x.shape)), scales, format).value;
  const through = (made: Node): Node => cast(straightThrough(made, [x]), x.dtype);
  return savedAs(through(value), through(again), [scales]);
}

function narrow(format: Float8Id): (x: Node) => Node {
  const rule = defineGradient(`gradient in ${format}`, ({ gradient }) => [quantiseTensor(gradient, format).value]);
  return (x) => rule(x, [x]);
}

const narrowed: Readonly<Record<Float8Id, (x: Node) => Node>> = { e4m3: narrow("e4m3"), e5m2: narrow("e5m2") };

/** `x` itself, whose gradient is quantised with one scale. */
export function gradientIn(format: Float8Id, x: Node): Node {
  return narrowed[format](x);
}
