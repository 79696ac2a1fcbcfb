/** What a generated kernel computes: a hash-consed graph of values at symbolic indices. */
import { invariant } from "../../errors.js";
import type { DType } from "../../ir/dtype.js";
import type { Scalar, ScalarType } from "../../ir/scalar.js";
import { scalar as s } from "../../ir/scalar.js";
import type { Combine, Guard, Linear, LoadValue, Loop, LoopVariable, Value } from "./expression.js";
import { linearKey, rowsOf, variablesOf } from "./linear.js";

export type {
  ApplyValue,
  Combine,
  ConstantValue,
  Guard,
  IndexValue,
  InsideValue,
  LoadValue,
  Loop,
  MemoryType,
  ReduceValue,
  RoundValue,
  Source,
  Value,
} from "./expression.js";

/** The values that must be there before this one; a reduction's body is one of them. */
export function operandsOf(value: Value): Value[] {
  switch (value.kind) {
    case "constant":
      return [];
    case "load":
      return [...rowsOf(value.offset), ...value.guards.flatMap((guard) => rowsOf(guard.index))];
    case "index":
      return rowsOf(value.index);
    case "inside":
      return rowsOf(value.guard.index);
    case "apply":
      return [...value.operands];
    case "round":
      return [value.operand];
    case "reduce":
      return [value.body];
  }
}

/** The indices in a value itself, not in its operands. */
export function indicesOf(value: Value): Linear[] {
  switch (value.kind) {
    case "load":
      return [value.offset, ...value.guards.map((guard) => guard.index)];
    case "index":
      return [value.index];
    case "inside":
      return [value.guard.index];
    default:
      return [];
  }
}

/** `roots` and all they are made of, by id. `stop` keeps a value but not what it is made of. */
export function valuesBelow(roots: Iterable<Value>, stop: (value: Value) => boolean = () => false): Value[] {
  const seen = new Set<Value>();
  const stack = [...roots];
  for (let value = stack.pop(); value !== undefined; value = stack.pop()) {
    if (seen.has(value)) continue;
    seen.add(value);
    if (!stop(value)) stack.push(...operandsOf(value));
  }
  return [...seen].sort((a, b) => a.id - b.id);
}

/** The type of the lanes that hold an element type. */
export function laneType(dtype: DType): ScalarType {
  invariant(dtype !== "f64", "compiled targets have no f64");
  if (dtype === "bf16" || dtype === "f16") return "f32";
  return dtype === "u8" ? "u32" : dtype;
}

const guardKey = (guard: Guard): string => `${linearKey(guard.index)}<${guard.size}`;

/** Makes values; equal ones are the same object. */
export class ValueGraph {
  readonly #known = new Map<string, Value>();

  readonly #variables = new Map<string, LoopVariable>();

  /** The loop variable of this name; equal names are one object. */
  variable(name: string, extent: number, depth: number): LoopVariable {
    const known = this.#variables.get(name);
    const variable = known ?? { kind: "loop", name, extent, axis: name, depth };
    invariant(variable.extent === extent, `the loop ${name} has one extent`);
    this.#variables.set(name, variable);
    return variable;
  }

  #intern<T extends Value>(key: string, make: (id: number) => T): T {
    const known = this.#known.get(key);
    if (known !== undefined) return known as T;
    const value = make(this.#known.size);
    this.#known.set(key, value);
    return value;
  }

  constant(type: ScalarType, value: number): Value {
    const key = Object.is(value, -0) ? "-0" : String(value);
    return this.#intern(`${type} ${key}`, (id) => ({ id, kind: "constant", type, value, depends: new Set() }));
  }

  load(load: Pick<LoadValue, "source" | "memory" | "offset" | "guards" | "type">): Value {
    const { source, memory, offset, guards } = load;
    const place = source.kind === "input" ? `input ${source.index}` : "workspace";
    const key = `load ${place} ${JSON.stringify(memory)} ${linearKey(offset)} if ${guards.map(guardKey).join()}`;
    const depends = union([offset, ...guards.map((guard) => guard.index)].map(variablesOf));
    return this.#intern(key, (id) => ({ id, kind: "load", ...load, depends }));
  }

  index(type: "i32" | "u32", index: Linear): Value {
    if (index.terms.length === 0) return this.constant(type, index.constant);
    const key = `index ${type} ${linearKey(index)}`;
    return this.#intern(key, (id) => ({ id, kind: "index", type, index, depends: variablesOf(index) }));
  }

  inside(guard: Guard): Value {
    const depends = variablesOf(guard.index);
    return this.#intern(`inside ${guardKey(guard)}`, (id) => ({ id, kind: "inside", type: "bool", guard, depends }));
  }

  /** `name` must determine the function; `build` is called with the operands as scalar arguments. */
  apply(name: string, operands: readonly Value[], build: (args: readonly Scalar[]) => Scalar): Value {
    const key = `apply ${name}(${operands.map((operand) => operand.id).join()})`;
    return this.#intern(key, (id) => {
      const expression = build(operands.map((operand, index) => s.argument(index, operand.type)));
      const depends = union(operands.map((operand) => operand.depends));
      return { id, kind: "apply", type: expression.type, name, expression, operands, depends };
    });
  }

  round(to: "bf16" | "f16", operand: Value): Value {
    if (isExact(operand, to)) return operand;
    const { depends } = operand;
    return this.#intern(`round ${to} ${operand.id}`, (id) => ({
      id,
      kind: "round",
      type: "f32",
      to,
      operand,
      depends,
    }));
  }

  reduce(combine: Combine, loops: readonly Loop[], body: Value): Value {
    const key = `reduce ${combine} ${loops.map(loopKey).join()} ${body.id}`;
    return this.#intern(key, (id) => {
      const own = new Set(loops.map((loop) => loop.variable));
      const limits = loops.flatMap((loop) => (loop.limit === undefined ? [] : [variablesOf(loop.limit.start)]));
      const depends = new Set([...union([body.depends, ...limits])].filter((variable) => !own.has(variable)));
      return { id, kind: "reduce", type: body.type, combine, loops, body, depends };
    });
  }
}

export function loopKey({ variable, limit }: Loop): string {
  return limit === undefined ? variable.name : `${variable.name}<${limit.total}-${linearKey(limit.start)}`;
}

/** Whether the value is known to be representable in a 16-bit type. */
function isExact(value: Value, to: "bf16" | "f16"): boolean {
  if (value.kind === "load") return value.memory === to;
  return value.kind === "round" && value.to === to;
}

function union(sets: readonly ReadonlySet<LoopVariable>[]): Set<LoopVariable> {
  return new Set(sets.flatMap((set) => [...set]));
}
