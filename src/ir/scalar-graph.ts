/** Tools on scalar expressions that every renderer shares: one statement a distinct subexpression. */
import { must } from "../errors.js";
import type { Scalar, ScalarType } from "./scalar.js";

/** The operands of an expression, in order. */
export function operandsOf(expression: Scalar): Scalar[] {
  switch (expression.kind) {
    case "constant":
    case "argument":
      return [];
    case "byte":
      return [expression.offset];
    case "table":
      return [expression.index];
    case "fma":
      return [expression.a, expression.b, expression.c];
    case "select":
      return [expression.condition, expression.a, expression.b];
    default:
      return "b" in expression ? [expression.a, expression.b] : [expression.a];
  }
}

/** The same expression with other operands; itself if they are the ones it has. */
export function withOperands(expression: Scalar, operands: readonly Scalar[]): Scalar {
  if (operandsOf(expression).every((operand, index) => operand === operands[index])) return expression;
  const operand = (index: number): Scalar => must(operands[index], "operand");
  switch (expression.kind) {
    case "constant":
    case "argument":
      return expression;
    case "byte":
      return { ...expression, offset: operand(0) };
    case "table":
      return { ...expression, index: operand(0) };
    case "fma":
      return { ...expression, a: operand(0), b: operand(1), c: operand(2) };
    case "select":
      return { ...expression, condition: operand(0), a: operand(1), b: operand(2) };
    default:
      return "b" in expression ? { ...expression, a: operand(0), b: operand(1) } : { ...expression, a: operand(0) };
  }
}

/** A distinct subexpression. */
export interface ScalarStep {
  readonly expression: Scalar;
  /** Positions of its operands in the list of steps. */
  readonly operands: readonly number[];
  /** Indices of the arguments it depends on. */
  readonly arguments: ReadonlySet<number>;
}

/** The distinct subexpressions of `roots`, operands before users; equal ones, by identity or by structure, are one. */
export function scalarSteps(roots: readonly Scalar[]): { steps: ScalarStep[]; roots: number[] } {
  const steps: ScalarStep[] = [];
  const byIdentity = new Map<Scalar, number>();
  const byStructure = new Map<string, number>();

  function visit(expression: Scalar): number {
    const known = byIdentity.get(expression);
    if (known !== undefined) return known;
    const operands = operandsOf(expression).map(visit);
    const key = structureKey(expression, operands);
    const position =
      byStructure.get(key) ?? steps.push({ expression, operands, arguments: argumentsOf(expression, operands) }) - 1;
    byStructure.set(key, position);
    byIdentity.set(expression, position);
    return position;
  }

  function argumentsOf(expression: Scalar, operands: readonly number[]): Set<number> {
    if (expression.kind === "argument") return new Set([expression.index]);
    return new Set(operands.flatMap((operand) => [...must(steps[operand], "step").arguments]));
  }

  return { roots: roots.map(visit), steps };
}

function structureKey(expression: Scalar, operands: readonly number[]): string {
  return `${expression.kind}:${expression.type}:${ownKey(expression)}(${operands.join(",")})`;
}

/** What an expression is beside its kind, type and operands. */
function ownKey(expression: Scalar): string {
  switch (expression.kind) {
    case "constant":
      return Object.is(expression.value, -0) ? "-0" : String(expression.value);
    case "argument":
      return String(expression.index);
    case "byte":
      return String(expression.plane);
    case "table":
      return expression.values.join();
    default:
      return "";
  }
}

/** How a language writes scalar code. */
export interface ScalarSyntax {
  readonly constant: (type: ScalarType, value: number) => string;
  readonly argument: (index: number, type: ScalarType) => string;
  /** The byte at an offset, given as code, of the packed block in a plane. */
  readonly byte: (offset: string, plane: number) => string;
  /** Any other expression over operands that are names or constants. */
  readonly operation: (expression: Scalar, operands: readonly string[]) => string;
  readonly declare: (type: ScalarType, name: string, value: string) => string;
}

export interface ScalarStatement {
  readonly text: string;
  /** Indices of the arguments it depends on: what does not depend on a loop's variable can stand before the loop. */
  readonly arguments: ReadonlySet<number>;
}

/** One statement a distinct operation, names `${prefix}0`, `${prefix}1`, ...; `results` name the roots. */
export function renderSteps(
  expressions: readonly Scalar[],
  syntax: ScalarSyntax,
  prefix: string,
): { statements: ScalarStatement[]; results: string[] } {
  const { steps, roots } = scalarSteps(expressions);
  const statements: ScalarStatement[] = [];
  const names: string[] = [];
  for (const { expression, operands, arguments: depends } of steps) {
    const inputs = operands.map((operand) => must(names[operand], "operand's name"));
    if (expression.kind === "constant") names.push(syntax.constant(expression.type, expression.value));
    else if (expression.kind === "argument") names.push(syntax.argument(expression.index, expression.type));
    else {
      const value =
        expression.kind === "byte"
          ? syntax.byte(must(inputs[0], "offset"), expression.plane)
          : syntax.operation(expression, inputs);
      const name = `${prefix}${statements.length}`;
      statements.push({ text: syntax.declare(expression.type, name, value), arguments: depends });
      names.push(name);
    }
  }
  return { statements, results: roots.map((root) => must(names[root], "result's name")) };
}
