/** The scalar language in JavaScript: the same bits as on every other target. */
import { invariant, must } from "../errors.js";
import { bitsFromFloat, floatFromBits, fusedMultiplyAdd, multiplyHigh, roundHalfEven } from "./exact.js";
import type { Scalar, ScalarType } from "./scalar.js";
import type { ScalarSyntax } from "./scalar-graph.js";
import { renderSteps } from "./scalar-graph.js";

/** Tables that generated code has asked for, each once. */
const tables: Float32Array[] = [];
const tableNumbers = new Map<string, number>();

function tableNumber(values: readonly number[]): number {
  const key = values.join();
  const number = tableNumbers.get(key) ?? tables.push(Float32Array.from(values)) - 1;
  tableNumbers.set(key, number);
  return number;
}

/**
 * What generated JavaScript calls, under these names. Values: f32 as a number that f32 holds, i32 and u32 as integers
 * in their range, bool as 0 or 1.
 */
export const javascriptHelpers = {
  fround: Math.fround,
  imul: Math.imul,
  fma: fusedMultiplyAdd,
  roundHalfEven,
  multiplyHigh,
  floatFromBits,
  bitsFromFloat,
  tables,
} as const;

/** Code that brings the helpers into scope, given them all as one parameter named `helpers`. */
export const javascriptHelpersPrologue = `const { ${Object.keys(javascriptHelpers).join(", ")} } = helpers;`;

function literal(value: number): string {
  return Object.is(value, -0) ? "-0" : String(value);
}

/** An arithmetic result brought back to its type. */
function wrap(type: ScalarType, code: string): string {
  if (type === "f32") return `fround(${code})`;
  return type === "u32" ? `(${code}) >>> 0` : `(${code}) | 0`;
}

const infix: Readonly<Record<string, string>> = {
  add: "+",
  subtract: "-",
  divide: "/",
  and: "&",
  or: "|",
  xor: "^",
};

const comparison: Readonly<Record<string, string>> = { less: "<", lessEqual: "<=", equal: "===", notEqual: "!==" };

function unary(expression: Scalar, a: string): string {
  const { kind, type } = expression;
  switch (kind) {
    case "negate":
      return type === "f32" ? `-${parenthesised(a)}` : wrap(type, `-${parenthesised(a)}`);
    case "absolute":
      return type === "u32" ? a : type === "f32" ? `Math.abs(${a})` : wrap(type, `Math.abs(${a})`);
    case "floor":
      return type === "f32" ? `Math.floor(${a})` : a;
    case "roundEven":
      return type === "f32" ? `roundHalfEven(${a})` : a;
    case "sqrt":
      return wrap("f32", `Math.sqrt(${a})`);
    case "not":
      return type === "bool" ? `${a} ^ 1` : wrap(type, `~${parenthesised(a)}`);
    default:
      invariant(false, `the scalar operation ${kind} has one operand`);
  }
}

function parenthesised(code: string): string {
  return code.startsWith("-") ? `(${code})` : code;
}

function convert(from: ScalarType, to: ScalarType, a: string): string {
  if (to === "bool") return `${a} !== 0 ? 1 : 0`;
  if (to === "f32") return from === "bool" ? a : `fround(${a})`;
  return from === "f32" ? wrap(to, `Math.trunc(${a})`) : wrap(to, a);
}

function bitcast(from: ScalarType, to: ScalarType, a: string): string {
  if (to === "f32") return `floatFromBits(${a})`;
  if (from === "f32") return to === "u32" ? `bitsFromFloat(${a})` : `bitsFromFloat(${a}) | 0`;
  return wrap(to, a);
}

function binary(expression: Scalar, a: string, b: string): string {
  const { kind, type } = expression;
  const compare = comparison[kind];
  if (compare !== undefined) return `${a} ${compare} ${b} ? 1 : 0`;
  switch (kind) {
    case "multiply":
      return type === "f32" ? `fround(${a} * ${b})` : wrap(type, `imul(${a}, ${b})`);
    // The second operand when either is NaN or both are zeros, as x86's minps and maxps.
    case "minimum":
      return `${a} < ${b} ? ${a} : ${b}`;
    case "maximum":
      return `${a} > ${b} ? ${a} : ${b}`;
    case "multiplyHigh":
      return `multiplyHigh(${a}, ${b})`;
    case "shiftLeft":
      return wrap(type, `${a} << ${b}`);
    case "shiftRight":
      return type === "u32" ? `${a} >>> ${b}` : `${a} >> ${b}`;
    default:
      return wrap(type, `${a} ${must(infix[kind], `the scalar operation ${kind}`)} ${parenthesised(b)}`);
  }
}

function operation(expression: Scalar, [a = "", b = "", c = ""]: readonly string[]): string {
  switch (expression.kind) {
    case "fma":
      return `fma(${a}, ${b}, ${c})`;
    case "select":
      return `${a} ? ${b} : ${c}`;
    case "table":
      return `tables[${tableNumber(expression.values)}][${a}]`;
    case "convert":
      return convert(expression.a.type, expression.type, a);
    case "bitcast":
      return bitcast(expression.a.type, expression.type, a);
    default:
      return "b" in expression ? binary(expression, a, b) : unary(expression, a);
  }
}

/** JavaScript's syntax for scalar code whose arguments have these names; `byte` reads the block being decoded. */
export function javascriptSyntax(argumentNames: readonly string[], byte?: ScalarSyntax["byte"]): ScalarSyntax {
  return {
    constant: (type, value) => literal(type === "f32" ? Math.fround(value) : value),
    argument: (index) => must(argumentNames[index], `name of argument ${index}`),
    byte: (offset, plane) => must(byte, "block to read bytes from")(offset, plane),
    operation,
    declare: (_type, name, value) => `const ${name} = ${value};`,
  };
}

/** A function made from source that uses the helpers by name. */
export function functionFromSource(parameters: readonly string[], body: string): unknown {
  // The source is generated from an expression built by this program; nothing in it comes from a file or a user.
  // eslint-disable-next-line @typescript-eslint/no-implied-eval
  const make = new Function(
    "helpers",
    `"use strict";\n${javascriptHelpersPrologue}\nreturn (${parameters.join(", ")}) => {\n${body}\n};`,
  ) as (helpers: typeof javascriptHelpers) => unknown;
  return make(javascriptHelpers);
}

/**
 * The expression as a function of its arguments (f32 values must be representable in f32; bool is 0 or 1), reading
 * `block` where it reads bytes. Shift amounts are 0..31; converting a float out of the integer's range is unspecified.
 */
export function compileScalar(
  expression: Scalar,
  argumentCount: number,
  block: Uint8Array = new Uint8Array(0),
): (...values: number[]) => number {
  const names = Array.from({ length: argumentCount }, (_, index) => `a${index}`);
  const syntax = javascriptSyntax(names, (offset) => `block[${offset}]`);
  const { statements, results } = renderSteps([expression], syntax, "t");
  const body = [...statements.map((statement) => statement.text), `return ${must(results[0], "result")};`].join("\n");
  const make = functionFromSource(["block"], `return (${names.join(", ")}) => {\n${body}\n};`);
  return (make as (block: Uint8Array) => (...values: number[]) => number)(block);
}
