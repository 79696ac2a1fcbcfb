/** Conversion of read values to a type of the tensor graph. */
import { ThimbleError } from "../errors.js";
import type { DType } from "../ir/dtype.js";
import { bf16Bits, f16Bits, isFloat, sizeOf } from "../ir/dtype.js";
import type { ElementType, Values } from "./element-types.js";

/** Elements of a type as they lie in memory; f16 and bf16 as their bits. */
export type TypedValues = Float64Array | Float32Array | Uint16Array | Int32Array | Uint32Array | Uint8Array;

/** A typed array over memory of exactly `dtype`'s elements. */
export function typedArray(dtype: DType, memory: number | ArrayBuffer): TypedValues {
  const buffer = typeof memory === "number" ? new ArrayBuffer(memory * sizeOf(dtype)) : memory;
  switch (dtype) {
    case "f64":
      return new Float64Array(buffer);
    case "f32":
      return new Float32Array(buffer);
    case "f16":
    case "bf16":
      return new Uint16Array(buffer);
    case "i32":
      return new Int32Array(buffer);
    case "u32":
      return new Uint32Array(buffer);
    case "u8":
    case "bool":
      return new Uint8Array(buffer);
  }
}

/** Refuses conversions that would lose what the numbers mean: float to integer, anything but bool to bool. */
export function checkConversion(from: ElementType, to: DType, tensor: string): void {
  const possible = to === "bool" ? from.kind === "bool" : isFloat(to) || from.kind !== "float";
  if (possible) return;
  throw new ThimbleError("tensor-type", `Tensor ${tensor} cannot be read as ${to}`, {
    given: `type ${from.id}`,
    expected: to === "bool" ? "bool" : "an integer type",
  });
}

const limits: Readonly<Partial<Record<DType, readonly [number, number]>>> = {
  i32: [-0x80000000, 0x7fffffff],
  u32: [0, 0xffffffff],
  u8: [0, 255],
};

/** `values` rounded to a float type, or checked to fit an integer type. */
export function convertValues(values: Values, dtype: DType, tensor: string): TypedValues {
  const numbers =
    values instanceof BigInt64Array || values instanceof BigUint64Array ? Float64Array.from(values, Number) : values;
  const limit = limits[dtype];
  if (limit !== undefined) checkRange(numbers, limit, dtype, tensor);
  const out = typedArray(dtype, numbers.length);
  if (dtype === "bf16" && numbers instanceof Float32Array) {
    roundToBf16(new Uint32Array(numbers.buffer, numbers.byteOffset, numbers.length), out);
  } else if (dtype === "f16" || dtype === "bf16") {
    const bits = dtype === "f16" ? f16Bits : bf16Bits;
    for (let index = 0; index < out.length; index++) out[index] = bits(numbers[index] ?? 0);
  } else {
    out.set(numbers);
  }
  return out;
}

/** {@link bf16Bits} on the bits of f32 values: whole models pass through here. */
function roundToBf16(bits: Uint32Array, out: TypedValues): void {
  for (let index = 0; index < bits.length; index++) {
    const word = bits[index] ?? 0;
    const isNaN = (word & 0x7fffffff) > 0x7f800000;
    out[index] = isNaN ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
}

function checkRange(
  values: ArrayLike<number>,
  [least, most]: readonly [number, number],
  dtype: DType,
  tensor: string,
): void {
  for (let index = 0; index < values.length; index++) {
    const value = values[index] ?? 0;
    if (value >= least && value <= most) continue;
    throw new ThimbleError("tensor-range", `A value of tensor ${tensor} does not fit ${dtype}`, {
      given: String(value),
      expected: `${least} to ${most}`,
    });
  }
}
