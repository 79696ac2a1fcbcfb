/** Renders the scalar language to C: plain scalars, or the 16-lane vectors of the prelude. */
import { invariant, must } from "../../errors.js";
import type { Scalar, ScalarType } from "../../ir/scalar.js";
import type { ScalarSyntax } from "../../ir/scalar-graph.js";
import { renderSteps, scalarSteps } from "../../ir/scalar-graph.js";
import { contentHash, once } from "./contraction-name.js";

/** `vector`: types `vf`, `vi`, `vu`; a bool is a `vi` mask of -1 and 0. `scalar`: `float`, `int32_t`, `uint32_t`, `int`. */
export type ScalarMode = "scalar" | "vector";

export interface ScalarOptions {
  /** Names of the temporaries: `${prefix}0`, `${prefix}1`, ... "t" if not given. */
  readonly prefix?: string;
  /** Code for the byte at an offset, as `uint32_t`; only storage decoders read bytes. */
  readonly byte?: ScalarSyntax["byte"];
  /** The caller knows that no i32 operation overflows, so that the compiler may see loop indices as affine. */
  readonly withoutOverflow?: boolean;
}

export const scalarTypes: Readonly<Record<ScalarMode, Readonly<Record<ScalarType, string>>>> = {
  scalar: { f32: "float", i32: "int32_t", u32: "uint32_t", bool: "int" },
  vector: { f32: "vf", i32: "vi", u32: "vu", bool: "vi" },
};

/**
 * C statements that compute `expression`, each distinct subexpression once, and the name (or constant) of the result.
 * Argument `i` is the C variable `argumentNames[i]`, of the type that `scalarTypes` gives.
 */
export function renderScalar(
  expression: Scalar,
  argumentNames: readonly string[],
  mode: ScalarMode,
  options: ScalarOptions = {},
): { statements: string[]; result: string } {
  const { statements, results } = renderSteps(
    [expression],
    cSyntax(argumentNames, mode, options),
    options.prefix ?? "t",
  );
  return { statements: statements.map((statement) => statement.text), result: must(results[0], "result") };
}

/** The syntax alone, for a caller that places the statements itself (see {@link renderSteps}). */
export function cSyntax(argumentNames: readonly string[], mode: ScalarMode, options: ScalarOptions = {}): ScalarSyntax {
  const wraps = options.withoutOverflow !== true;
  const types = scalarTypes[mode];
  return {
    constant: (type, value) => (mode === "scalar" ? literal(type, value) : splat(type, value)),
    argument: (index) => must(argumentNames[index], `name of argument ${index}`),
    byte: (offset, plane) => must(options.byte, "block to read bytes from")(offset, plane),
    operation: (expression, operands) =>
      mode === "scalar" ? scalarOperation(expression, operands, wraps) : vectorOperation(expression, operands),
    declare: (type, name, value) => `const ${types[type]} ${name} = ${value};`,
  };
}

const tableNames = new WeakMap<readonly number[], string>();

/** The C array that holds a table; {@link tableSources} defines it. */
function tableName(values: readonly number[]): string {
  const known = tableNames.get(values);
  if (known !== undefined) return known;
  const name = `thimble_table_${contentHash(values.join())}`;
  tableNames.set(values, name);
  return name;
}

/** Definitions of the tables that code of these expressions reads. */
export function tableSources(expressions: readonly Scalar[]): string {
  const found = new Map<string, string>();
  for (const { expression } of scalarSteps(expressions).steps) {
    if (expression.kind !== "table") continue;
    const name = tableName(expression.values);
    const list = expression.values.map((value) => literal("f32", value)).join(", ");
    const place = "__attribute__((unused, aligned(64)))";
    found.set(name, once(name, `static const float ${name}[${expression.values.length}] ${place} = {${list}};`));
  }
  return [...found.values()].join("");
}

/** A constant in C that is exactly this value. */
export function literal(type: ScalarType, value: number): string {
  if (type === "f32") return floatLiteral(Math.fround(value));
  if (type === "u32") return `${value >>> 0}u`;
  if (type === "bool") return value === 0 ? "0" : "1";
  return value === -2147483648 ? "(-2147483647 - 1)" : value < 0 ? `(${value})` : String(value);
}

function floatLiteral(value: number): string {
  if (Number.isNaN(value)) return `__builtin_nanf("")`;
  if (!Number.isFinite(value)) return value > 0 ? "__builtin_inff()" : "(-__builtin_inff())";
  // The shortest decimal that gives this double gives the same f32, because the double is an f32.
  const digits = Object.is(value, -0) ? "-0.0" : String(value);
  const code = `${/[.e]/.test(digits) ? digits : `${digits}.0`}f`;
  return code.startsWith("-") ? `(${code})` : code;
}

const suffixes: Readonly<Record<ScalarType, string>> = { f32: "f", i32: "i", u32: "u", bool: "i" };

function splat(type: ScalarType, value: number): string {
  if (type === "bool") return value === 0 ? "splat_i(0)" : "splat_i(-1)";
  return `splat_${suffixes[type]}(${literal(type, value)})`;
}

const operators: Readonly<Partial<Record<Scalar["kind"], string>>> = {
  add: "+",
  subtract: "-",
  multiply: "*",
  divide: "/",
  and: "&",
  or: "|",
  xor: "^",
  shiftLeft: "<<",
  shiftRight: ">>",
  less: "<",
  lessEqual: "<=",
  equal: "==",
  notEqual: "!=",
};

/** Operations on i32 that can overflow, which C leaves undefined for signed integers. */
const overflowing: ReadonlySet<Scalar["kind"]> = new Set(["add", "subtract", "multiply", "shiftLeft", "negate"]);

function operator(expression: Scalar): string {
  return must(operators[expression.kind], `C operator for ${expression.kind}`);
}

function scalarOperation(expression: Scalar, [a = "", b = "", c = ""]: readonly string[], wraps: boolean): string {
  const { kind, type } = expression;
  switch (kind) {
    case "negate":
      return type === "i32" && wraps ? `(int32_t)(0u - (uint32_t)${a})` : `-${a}`;
    case "absolute":
      if (type === "f32") return `__builtin_fabsf(${a})`;
      return type === "u32" ? a : `${a} < 0 ? (int32_t)(0u - (uint32_t)${a}) : ${a}`;
    case "floor":
      return type === "f32" ? `__builtin_floorf(${a})` : a;
    case "roundEven":
      return type === "f32" ? `__builtin_rintf(${a})` : a;
    case "sqrt":
      return `__builtin_sqrtf(${a})`;
    case "not":
      return type === "bool" ? `!${a}` : `~${a}`;
    case "minimum":
      return `${a} < ${b} ? ${a} : ${b}`;
    case "maximum":
      return `${a} > ${b} ? ${a} : ${b}`;
    case "multiplyHigh":
      return `(uint32_t)(((uint64_t)${a} * ${b}) >> 32)`;
    case "fma":
      return `__builtin_fmaf(${a}, ${b}, ${c})`;
    case "table":
      return `${tableName(expression.values)}[${a}]`;
    case "select":
      return `${a} ? ${b} : ${c}`;
    case "convert":
      return type === "bool" ? `${a} != 0` : `(${scalarTypes.scalar[type]})${a}`;
    case "bitcast":
      return scalarBitcast(expression.a.type, type, a);
    default:
      if (type === "i32" && wraps && overflowing.has(kind)) {
        return `(int32_t)((uint32_t)${a} ${operator(expression)} (uint32_t)${b})`;
      }
      return `${a} ${operator(expression)} ${b}`;
  }
}

function scalarBitcast(from: ScalarType, to: ScalarType, a: string): string {
  if (from !== "f32" && to !== "f32") return `(${scalarTypes.scalar[to]})${a}`;
  return `(union { ${scalarTypes.scalar[from]} from; ${scalarTypes.scalar[to]} to; }){.from = ${a}}.to`;
}

function vectorOperation(expression: Scalar, [a = "", b = "", c = ""]: readonly string[]): string {
  const { kind, type } = expression;
  const suffix = suffixes[type];
  switch (kind) {
    case "negate":
      return type === "f32" ? `-${a}` : `(${scalarTypes.vector[type]})-(vu)${a}`;
    case "absolute":
      if (type === "f32") return `abs_f(${a})`;
      return type === "u32" ? a : `select_i(${a} < 0, (vi)-(vu)${a}, ${a})`;
    case "floor":
      return type === "f32" ? `floor_f(${a})` : a;
    case "roundEven":
      return type === "f32" ? `round_even_f(${a})` : a;
    case "sqrt":
      return `sqrt_f(${a})`;
    case "not":
      return `~${a}`;
    case "minimum":
      return type === "f32" ? `min_f(${a}, ${b})` : `select_${suffix}(${a} < ${b}, ${a}, ${b})`;
    case "maximum":
      return type === "f32" ? `max_f(${a}, ${b})` : `select_${suffix}(${a} > ${b}, ${a}, ${b})`;
    case "multiplyHigh":
      return `mulhi_u(${a}, ${b})`;
    case "fma":
      return `fma_f(${a}, ${b}, ${c})`;
    case "table":
      return `gather_f(${tableName(expression.values)}, ${a})`;
    case "select":
      return `select_${suffix}(${a}, ${b}, ${c})`;
    case "convert":
      return vectorConvert(expression.a.type, type, a);
    case "bitcast":
      return `(${scalarTypes.vector[type]})${a}`;
    default:
      return vectorInfix(expression, a, b);
  }
}

function vectorInfix(expression: Scalar, a: string, b: string): string {
  if (expression.type === "i32" && overflowing.has(expression.kind)) {
    return `(vi)((vu)${a} ${operator(expression)} (vu)${b})`;
  }
  return `${a} ${operator(expression)} ${b}`;
}

function vectorConvert(from: ScalarType, to: ScalarType, a: string): string {
  invariant(from !== to, "a conversion changes the type");
  if (to === "bool") return `${a} != ${splat(from, 0)}`;
  if (from === "bool") return `select_${suffixes[to]}(${a}, ${splat(to, 1)}, ${splat(to, 0)})`;
  if (from !== "f32" && to !== "f32") return `(${scalarTypes.vector[to]})${a}`;
  return `convert_${suffixes[from]}_to_${suffixes[to]}(${a})`;
}
