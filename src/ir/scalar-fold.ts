import { must } from "../errors.js";
import type { Scalar } from "./scalar.js";
import { operandsOf, withOperands } from "./scalar-graph.js";
import { compileScalar } from "./scalar-javascript.js";

/** `expression` with arguments replaced, and everything that is then known computed. */
export function substituteArguments(expression: Scalar, replacements: ReadonlyMap<number, Scalar>): Scalar {
  const done = new Map<Scalar, Scalar>();
  function visit(part: Scalar): Scalar {
    const known = done.get(part);
    if (known !== undefined) return known;
    const result =
      part.kind === "argument"
        ? (replacements.get(part.index) ?? part)
        : fold(withOperands(part, operandsOf(part).map(visit)));
    done.set(part, result);
    return result;
  }
  return visit(expression);
}

/** The value of an expression of constants, or an integer identity, or the expression itself. */
function fold(expression: Scalar): Scalar {
  const operands = operandsOf(expression);
  if (expression.kind === "constant" || expression.kind === "byte" || operands.length === 0) return expression;
  if (operands.every((operand) => operand.kind === "constant")) {
    return { kind: "constant", type: expression.type, value: compileScalar(expression, 0)() };
  }
  if (expression.kind === "select" && expression.condition.kind === "constant") {
    return expression.condition.value === 0 ? expression.b : expression.a;
  }
  if (expression.type === "f32" || expression.type === "bool") return expression;
  return integerIdentity(expression);
}

function isConstant(expression: Scalar, value: number): boolean {
  return expression.kind === "constant" && expression.value === value;
}

function integerIdentity(expression: Scalar): Scalar {
  switch (expression.kind) {
    case "add":
      if (isConstant(expression.a, 0)) return expression.b;
      return isConstant(expression.b, 0) ? expression.a : expression;
    case "subtract":
    case "shiftLeft":
    case "shiftRight":
      return isConstant(expression.b, 0) ? expression.a : expression;
    case "multiply":
      if (isConstant(expression.a, 1)) return expression.b;
      return isConstant(expression.b, 1) ? expression.a : expression;
    default:
      return expression;
  }
}

/**
 * Splits expressions inside a loop over argument `variable` into what does not change in it and the rest. `bodies` are
 * the expressions with argument `firstNew + i` in the place of `invariants[i]`.
 */
export function hoistInvariants(
  expressions: readonly Scalar[],
  variable: number,
  firstNew: number,
): { invariants: Scalar[]; bodies: Scalar[] } {
  const invariants: Scalar[] = [];
  const replaced = new Map<Scalar, Scalar>();
  const varies = new Map<Scalar, boolean>();

  function dependsOnVariable(part: Scalar): boolean {
    const known = varies.get(part);
    if (known !== undefined) return known;
    const depends = (part.kind === "argument" && part.index === variable) || operandsOf(part).some(dependsOnVariable);
    varies.set(part, depends);
    return depends;
  }
  function visit(part: Scalar): Scalar {
    const known = replaced.get(part);
    if (known !== undefined) return known;
    let result = part;
    if (dependsOnVariable(part)) result = withOperands(part, operandsOf(part).map(visit));
    else if (part.kind !== "constant" && part.kind !== "argument") {
      result = { kind: "argument", type: part.type, index: firstNew + invariants.push(part) - 1 };
    }
    replaced.set(part, result);
    return result;
  }
  return { bodies: expressions.map(visit), invariants };
}

/** Replaces every part for which `replace` gives something, outermost first. */
export function rewriteScalar(expression: Scalar, replace: (part: Scalar) => Scalar | undefined): Scalar {
  const done = new Map<Scalar, Scalar>();
  function visit(part: Scalar): Scalar {
    const known = done.get(part);
    if (known !== undefined) return known;
    const result = replace(part) ?? withOperands(part, operandsOf(part).map(visit));
    done.set(part, result);
    return result;
  }
  return visit(expression);
}

/** What argument 0 of `template` stands for in `expression`, if the expression has the template's form. */
export function matchScalar(template: Scalar, expression: Scalar): Scalar | undefined {
  let found: Scalar | undefined;
  const seen = new Map<Scalar, Scalar>();
  function matches(pattern: Scalar, part: Scalar): boolean {
    if (seen.has(pattern)) return seen.get(pattern) === part;
    seen.set(pattern, part);
    if (pattern.kind === "argument") {
      found = part;
      return part.type === pattern.type;
    }
    if (pattern.kind !== part.kind || pattern.type !== part.type) return false;
    if (pattern.kind === "constant" && part.kind === "constant") return Object.is(pattern.value, part.value);
    if (pattern.kind === "byte" && part.kind === "byte" && pattern.plane !== part.plane) return false;
    if (pattern.kind === "table" && part.kind === "table" && pattern.values !== part.values) return false;
    const parts = operandsOf(part);
    return operandsOf(pattern).every((operand, index) => matches(operand, must(parts[index], "operand")));
  }
  return matches(template, expression) ? found : undefined;
}
