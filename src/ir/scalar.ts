/**
 * A tiny language of scalar expressions: the one meaning of every element-wise op and of every storage format's
 * decoder. Targets render it (C vectors, later WGSL and CUDA); {@link compileScalar} runs it in JavaScript.
 * Every operation is exact or correctly rounded, so all targets agree to the bit. `minimum(a, b)` is `a < b ? a : b`
 * and `maximum(a, b)` is `a > b ? a : b`, so of a NaN the second operand is the result.
 */
export type ScalarType = "f32" | "i32" | "u32" | "bool";

export type UnaryKind = "negate" | "absolute" | "floor" | "roundEven" | "sqrt" | "not";
export type ArithmeticKind = "add" | "subtract" | "multiply" | "divide" | "minimum" | "maximum" | "multiplyHigh";
export type BitKind = "and" | "or" | "xor" | "shiftLeft" | "shiftRight";
export type CompareKind = "less" | "lessEqual" | "equal" | "notEqual";

export type Scalar =
  | { readonly kind: "constant"; readonly type: ScalarType; readonly value: number }
  | { readonly kind: "argument"; readonly type: ScalarType; readonly index: number }
  /** The byte at `offset` of the packed block being decoded, in one plane of its tensor, as u32. Only in storage decoders. */
  | { readonly kind: "byte"; readonly type: "u32"; readonly offset: Scalar; readonly plane: number }
  /** `values[index]`, for an i32 index within it. Only in storage decoders. */
  | { readonly kind: "table"; readonly type: "f32"; readonly values: readonly number[]; readonly index: Scalar }
  | { readonly kind: UnaryKind; readonly type: ScalarType; readonly a: Scalar }
  | {
      readonly kind: ArithmeticKind | BitKind | CompareKind;
      readonly type: ScalarType;
      readonly a: Scalar;
      readonly b: Scalar;
    }
  /** a * b + c with one rounding. */
  | { readonly kind: "fma"; readonly type: "f32"; readonly a: Scalar; readonly b: Scalar; readonly c: Scalar }
  | {
      readonly kind: "select";
      readonly type: ScalarType;
      readonly condition: Scalar;
      readonly a: Scalar;
      readonly b: Scalar;
    }
  /** Change of value representation: float to integer truncates. */
  | { readonly kind: "convert"; readonly type: ScalarType; readonly a: Scalar }
  /** The same 32 bits read as another type. */
  | { readonly kind: "bitcast"; readonly type: ScalarType; readonly a: Scalar };

type Operand = Scalar | number;

function lift(value: Operand, type: ScalarType): Scalar {
  return typeof value === "number" ? { kind: "constant", type, value } : value;
}

function binary(kind: ArithmeticKind | BitKind | CompareKind, a: Operand, b: Operand, result?: ScalarType): Scalar {
  const type = typeof a !== "number" ? a.type : typeof b !== "number" ? b.type : "f32";
  return { kind, type: result ?? type, a: lift(a, type), b: lift(b, type) };
}

/** Builders. A plain number takes the type of the other operand. */
export const scalar = {
  constant: (type: ScalarType, value: number): Scalar => ({ kind: "constant", type, value }),
  f32: (value: number): Scalar => ({ kind: "constant", type: "f32", value: Math.fround(value) }),
  i32: (value: number): Scalar => ({ kind: "constant", type: "i32", value }),
  u32: (value: number): Scalar => ({ kind: "constant", type: "u32", value }),
  argument: (index: number, type: ScalarType): Scalar => ({ kind: "argument", type, index }),
  byte: (offset: Operand, plane = 0): Scalar => ({ kind: "byte", type: "u32", offset: lift(offset, "i32"), plane }),
  table: (values: readonly number[], index: Scalar): Scalar => ({ kind: "table", type: "f32", values, index }),
  negate: (a: Scalar): Scalar => ({ kind: "negate", type: a.type, a }),
  absolute: (a: Scalar): Scalar => ({ kind: "absolute", type: a.type, a }),
  floor: (a: Scalar): Scalar => ({ kind: "floor", type: a.type, a }),
  roundEven: (a: Scalar): Scalar => ({ kind: "roundEven", type: a.type, a }),
  sqrt: (a: Scalar): Scalar => ({ kind: "sqrt", type: a.type, a }),
  not: (a: Scalar): Scalar => ({ kind: "not", type: a.type, a }),
  add: (a: Operand, b: Operand): Scalar => binary("add", a, b),
  subtract: (a: Operand, b: Operand): Scalar => binary("subtract", a, b),
  multiply: (a: Operand, b: Operand): Scalar => binary("multiply", a, b),
  divide: (a: Operand, b: Operand): Scalar => binary("divide", a, b),
  minimum: (a: Operand, b: Operand): Scalar => binary("minimum", a, b),
  maximum: (a: Operand, b: Operand): Scalar => binary("maximum", a, b),
  /** High 32 bits of the u32 product. */
  multiplyHigh: (a: Operand, b: Operand): Scalar => binary("multiplyHigh", a, b),
  and: (a: Operand, b: Operand): Scalar => binary("and", a, b),
  or: (a: Operand, b: Operand): Scalar => binary("or", a, b),
  xor: (a: Operand, b: Operand): Scalar => binary("xor", a, b),
  shiftLeft: (a: Operand, b: Operand): Scalar => binary("shiftLeft", a, b),
  /** Logical for u32, arithmetic for i32. */
  shiftRight: (a: Operand, b: Operand): Scalar => binary("shiftRight", a, b),
  less: (a: Operand, b: Operand): Scalar => binary("less", a, b, "bool"),
  lessEqual: (a: Operand, b: Operand): Scalar => binary("lessEqual", a, b, "bool"),
  equal: (a: Operand, b: Operand): Scalar => binary("equal", a, b, "bool"),
  notEqual: (a: Operand, b: Operand): Scalar => binary("notEqual", a, b, "bool"),
  fma: (a: Operand, b: Operand, c: Operand): Scalar => ({
    kind: "fma",
    type: "f32",
    a: lift(a, "f32"),
    b: lift(b, "f32"),
    c: lift(c, "f32"),
  }),
  select: (condition: Scalar, a: Operand, b: Operand): Scalar => {
    const type = typeof a !== "number" ? a.type : typeof b !== "number" ? b.type : "f32";
    return { kind: "select", type, condition, a: lift(a, type), b: lift(b, type) };
  },
  convert: (type: ScalarType, a: Scalar): Scalar => (a.type === type ? a : { kind: "convert", type, a }),
  bitcast: (type: ScalarType, a: Scalar): Scalar => (a.type === type ? a : { kind: "bitcast", type, a }),
} as const;
