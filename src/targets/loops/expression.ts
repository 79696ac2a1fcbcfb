/** The types of index expressions and values, which contain each other. */
import type { DType } from "../../ir/dtype.js";
import type { Scalar, ScalarType } from "../../ir/scalar.js";

/** A loop's counter, 0..extent-1. */
export interface LoopVariable {
  readonly kind: "loop";
  /** Unique in its kernel. */
  readonly name: string;
  readonly extent: number;
  /** The (part of an) axis that it runs over: what refinements of that axis are recorded by. */
  readonly axis: string;
  /** 0 for the loops over outputs, 1 + nesting for reductions. */
  readonly depth: number;
}

/** Quotient or remainder that did not simplify. */
export interface Divided {
  readonly kind: "quotient" | "remainder";
  readonly name: string;
  readonly extent: number;
  readonly of: Linear;
  readonly by: number;
}

/** A row number that is itself a tensor value; values outside 0..extent-1 stand for 0. */
export interface Row {
  readonly kind: "row";
  readonly name: string;
  readonly extent: number;
  readonly value: Value;
}

export type Atom = LoopVariable | Divided | Row;

export interface Term {
  readonly atom: Atom;
  readonly coefficient: number;
}

/** constant + sum of coefficient * atom; terms have distinct atoms in the order of their names, none is zero. */
export interface Linear {
  readonly constant: number;
  readonly terms: readonly Term[];
}

/** How an element lies in memory: an element type, or the id of a packed storage format. */
export type MemoryType = DType | { readonly format: string };

/** What a load reads from: input number `index` of the kernel, or its workspace. */
export type Source = { readonly kind: "input"; readonly index: number } | { readonly kind: "workspace" };

/** Inside a pad: the index lies in 0..size-1. */
export interface Guard {
  readonly index: Linear;
  readonly size: number;
}

export type Combine = "add" | "maximum";

/** A loop 0..extent-1 that also ends where `start + variable` reaches `total`. */
export interface Loop {
  readonly variable: LoopVariable;
  readonly limit?: { readonly start: Linear; readonly total: number };
}

interface Common {
  /** Operands have smaller ids. */
  readonly id: number;
  /** Type of the lanes that hold it: bf16 and f16 are f32 lanes, u8 are u32 lanes. */
  readonly type: ScalarType;
  readonly depends: ReadonlySet<LoopVariable>;
}

export interface ConstantValue extends Common {
  readonly kind: "constant";
  readonly value: number;
}

export interface LoadValue extends Common {
  readonly kind: "load";
  readonly source: Source;
  readonly memory: MemoryType;
  /** In elements. */
  readonly offset: Linear;
  /** Where one fails, nothing is read and the value is 0. */
  readonly guards: readonly Guard[];
}

/** An index as a number. */
export interface IndexValue extends Common {
  readonly kind: "index";
  readonly index: Linear;
}

export interface InsideValue extends Common {
  readonly kind: "inside";
  readonly guard: Guard;
}

/** A scalar function, `argument(i)` being operand i. */
export interface ApplyValue extends Common {
  readonly kind: "apply";
  readonly name: string;
  readonly expression: Scalar;
  readonly operands: readonly Value[];
}

/** Rounded to the nearest bf16 or f16, still in f32 lanes. */
export interface RoundValue extends Common {
  readonly kind: "round";
  readonly to: "bf16" | "f16";
  readonly operand: Value;
}

export interface ReduceValue extends Common {
  readonly kind: "reduce";
  readonly combine: Combine;
  readonly loops: readonly Loop[];
  readonly body: Value;
}

export type Value = ConstantValue | LoadValue | IndexValue | InsideValue | ApplyValue | RoundValue | ReduceValue;
