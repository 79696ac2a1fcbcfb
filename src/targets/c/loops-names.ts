/** Names and sizes of a kernel's source, numbered in order of first use so that equal kernels have equal source. */
import { must } from "../../errors.js";
import type { Scalar, ScalarType } from "../../ir/scalar.js";
import { scalarSteps } from "../../ir/scalar-graph.js";
import type { Atom, Linear, LoopVariable } from "../loops/linear.js";
import { coefficientOf, linearKey, variablesOf } from "../loops/linear.js";
import type { Loop, Value } from "../loops/value.js";
import { cSyntax, renderScalar, scalarTypes, tableSources } from "./scalar.js";

/** How an index varies over the lanes of a vector. */
export type LaneAccess =
  { readonly kind: "uniform" } | { readonly kind: "irregular" } | { readonly kind: "affine"; readonly step: number };

export function laneAccess(index: Linear, lane: LoopVariable | undefined): LaneAccess {
  if (lane === undefined || !variablesOf(index).has(lane)) return { kind: "uniform" };
  const irregular = index.terms.some(({ atom }) => atom.kind !== "loop" && variablesOf(indexOf(atom)).has(lane));
  return irregular ? { kind: "irregular" } : { kind: "affine", step: coefficientOf(index, lane) };
}

function indexOf(atom: Atom): Linear {
  return { constant: 0, terms: [{ atom, coefficient: 1 }] };
}

/** A short hash (64 bits of two FNV-1a streams) as 16 hexadecimal digits. */
export function contentHash(text: string): string {
  let [low, high] = [0x811c9dc5, 0x9747b28c];
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    low = Math.imul(low ^ code, 0x01000193);
    high = Math.imul(high ^ code ^ (low >>> 15), 0x85ebca6b);
    high ^= high >>> 13;
  }
  const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, "0");
  return hex(low) + hex(high);
}

const single = new Float32Array(1);
const singleBits = new Int32Array(single.buffer);

/** The bits of the nearest f32, as a signed number. */
function floatBits(value: number): number {
  single[0] = value;
  return singleBits[0] ?? 0;
}

/** Expressions of more operations than this become functions of their own. */
const longExpression = 6;

export class Names {
  readonly sizes: number[] = [];
  readonly functions = new Map<string, string>();
  /** Declarations that stand before a kernel's loops. */
  readonly locals: string[] = [];
  readonly #sizeNames = new Map<string, string>();
  readonly #values: Map<Value, string>;
  readonly #variables: Map<LoopVariable, string>;

  /** What has C names already. */
  constructor(
    variables: ReadonlyMap<LoopVariable, string> = new Map(),
    values: ReadonlyMap<Value, string> = new Map(),
  ) {
    this.#variables = new Map(variables);
    this.#values = new Map(values);
  }

  /** The variable that holds a size; `role` tells apart sizes that are equal only by chance. */
  size(value: number, role: string): string {
    const known = this.#sizeNames.get(role);
    if (known !== undefined) return known;
    const name = `s${this.sizes.push(value) - 1}`;
    this.#sizeNames.set(role, name);
    return name;
  }

  variable(variable: LoopVariable): string {
    const name = this.#variables.get(variable) ?? `i${this.#variables.size}`;
    this.#variables.set(variable, name);
    return name;
  }

  extent(variable: LoopVariable): string {
    return this.size(variable.extent, `extent of ${variable.name}`);
  }

  /** Where a loop ends. */
  end({ variable, limit }: Loop): string {
    const extent = this.extent(variable);
    if (limit === undefined) return extent;
    const total = this.size(limit.total, `total of ${variable.name}`);
    return `smaller(${extent}, ${total} - (${this.index(limit.start)}))`;
  }

  value(value: Value): string {
    if (value.kind === "constant") return this.#constant(value.type, value.value);
    const name = this.#values.get(value) ?? `v${this.#values.size}`;
    this.#values.set(value, name);
    return name;
  }

  /**
   * A number of the graph. Those that belong to a structure are written out; any other (a scale, a rate, one over a
   * size) is an argument, so that a kernel serves whatever rank, width or decay it was chosen for.
   */
  #constant(type: ScalarType, value: number): string {
    if (type !== "f32" || !Number.isFinite(value) || value === 0 || Math.abs(value) === 1) {
      return cSyntax([], "vector").constant(type, value);
    }
    const size = this.size(floatBits(value), `number ${value}`);
    const name = `number_${size}`;
    const declaration = `const vf ${name} = bitcast_i_to_f(splat_i((int32_t)${size}));`;
    if (!this.locals.includes(declaration)) this.locals.push(declaration);
    return name;
  }

  /** Code of an index. In a loop over single lanes, `lane` is that lane's variable and is written `laneName`. */
  index(index: Linear, lane?: { variable: LoopVariable; name: string; number: string }): string {
    const key = linearKey(index);
    const parts = index.terms.map(({ atom, coefficient }, place) => {
      const code = this.#atom(atom, lane);
      if (coefficient === 1) return `+ ${code}`;
      if (coefficient === -1) return `- ${code}`;
      return `+ ${code} * ${this.size(coefficient, `${key} term ${place}`)}`;
    });
    if (index.constant !== 0) parts.push(`+ ${this.size(index.constant, `${key} constant`)}`);
    const code = parts.join(" ");
    if (code === "") return "0";
    return code.startsWith("+ ") ? code.slice(2) : code.replace(/^- /, "-");
  }

  #atom(atom: Atom, lane?: { variable: LoopVariable; name: string; number: string }): string {
    if (atom.kind === "loop") return atom === lane?.variable ? lane.name : this.variable(atom);
    if (atom.kind === "row") {
      const number = lane !== undefined && atom.value.depends.has(lane.variable) ? lane.number : "0";
      const id = atom.value.kind === "constant" ? String(atom.value.value) : `${this.value(atom.value)}[${number}]`;
      return `row_of(${id}, ${this.size(atom.extent, `rows of ${atom.name}`)})`;
    }
    const by = this.size(atom.by, `divisor of ${atom.name}`);
    return `(${this.index(atom.of, lane)}) ${atom.kind === "quotient" ? "/" : "%"} ${by}`;
  }

  /** Statements that compute a scalar expression lane by lane, and its result's name. */
  expression(expression: Scalar, operands: readonly string[], name: string): { statements: string[]; result: string } {
    const tables = tableSources([expression]);
    if (tables !== "") this.functions.set(tables, tables);
    if (scalarSteps([expression]).steps.length <= longExpression + operands.length) {
      const { statements, result } = renderScalar(expression, operands, "vector", { prefix: `${name}_` });
      if (!result.startsWith(`${name}_`)) return { statements, result };
      const last = must(statements.pop(), "last statement").replace(` ${result} = `, ` ${name} = `);
      return { statements: [...statements, last], result: name };
    }
    const used = operands.map((_, index) => index);
    return {
      statements: [
        `const ${scalarTypes.vector[expression.type]} ${name} = ${this.#function(expression, used)}(${operands.join(", ")});`,
      ],
      result: name,
    };
  }

  #function(expression: Scalar, parameters: readonly number[]): string {
    const names = parameters.map((index) => `a${index}`);
    const types = argumentTypes(expression);
    const { statements, result } = renderScalar(expression, names, "vector");
    const body = [...statements, `return ${result};`].map((line) => `  ${line}`).join("\n");
    const list = names.map((name, index) => `${scalarTypes.vector[types.get(index) ?? "f32"]} ${name}`).join(", ");
    const head = `${scalarTypes.vector[expression.type]} NAME(${list})`;
    const unused = names.filter((_, index) => !types.has(index)).map((name) => `  (void)${name};\n`);
    const text = `${head} {\n${unused.join("")}${body}\n}`;
    const name = `op_${contentHash(text)}`;
    const guard = name.toUpperCase();
    this.functions.set(name, `#ifndef ${guard}\n#define ${guard}\nINLINE ${text.replace("NAME", name)}\n#endif\n`);
    return name;
  }
}

function argumentTypes(expression: Scalar): Map<number, ScalarType> {
  const { steps } = scalarSteps([expression]);
  return new Map(
    steps.flatMap((step) =>
      step.expression.kind === "argument" ? [[step.expression.index, step.expression.type] as const] : [],
    ),
  );
}

export function vectorType(value: Value): string {
  return must(scalarTypes.vector[value.type], "vector type");
}
