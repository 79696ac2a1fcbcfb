/** Rebuilds values with other loop variables or other operands. */
import type { Linear, LoopVariable } from "./linear.js";
import { atomIndex, substitute } from "./linear.js";
import type { Loop, ReduceValue, Value, ValueGraph } from "./value.js";

export interface RewriteRules {
  /** The index that stands for a loop variable from now on. */
  readonly variable?: (variable: LoopVariable) => Linear | undefined;
  readonly loops?: (loops: readonly Loop[]) => readonly Loop[];
  /** Another value for a reduction. */
  readonly reduce?: (value: ReduceValue) => Value | undefined;
}

export class Rewriter {
  readonly #done = new Map<Value, Value>();

  constructor(
    readonly graph: ValueGraph,
    readonly rules: RewriteRules,
  ) {}

  value(value: Value): Value {
    const known = this.#done.get(value);
    if (known !== undefined) return known;
    const made = this.#rebuild(value);
    this.#done.set(value, made);
    return made;
  }

  index(index: Linear): Linear {
    return substitute(index, (atom) => {
      if (atom.kind === "loop") return this.rules.variable?.(atom);
      if (atom.kind !== "row") return undefined;
      const value = this.value(atom.value);
      return atomIndex({ ...atom, name: `row${value.id}.${atom.extent}`, value });
    });
  }

  #rebuild(value: Value): Value {
    switch (value.kind) {
      case "constant":
        return this.graph.constant(value.type, value.value);
      case "load": {
        const guards = value.guards.map((guard) => ({ ...guard, index: this.index(guard.index) }));
        const { source, memory, type } = value;
        return this.graph.load({ source, memory, type, offset: this.index(value.offset), guards });
      }
      case "index":
        return this.graph.index(value.type === "u32" ? "u32" : "i32", this.index(value.index));
      case "inside":
        return this.graph.inside({ ...value.guard, index: this.index(value.guard.index) });
      case "apply": {
        const operands = value.operands.map((operand) => this.value(operand));
        return this.graph.apply(value.name, operands, () => value.expression);
      }
      case "round":
        return this.graph.round(value.to, this.value(value.operand));
      case "reduce": {
        const replaced = this.rules.reduce?.(value);
        if (replaced !== undefined) return replaced;
        const loops = this.rules.loops?.(value.loops) ?? value.loops;
        return this.graph.reduce(value.combine, loops, this.value(value.body));
      }
    }
  }
}
