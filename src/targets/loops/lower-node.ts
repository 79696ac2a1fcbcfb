/** Tensor nodes as values at symbolic indices: movement vanishes, common subexpressions are one. */
import { invariant, must } from "../../errors.js";
import type { DType } from "../../ir/dtype.js";
import { isFloat } from "../../ir/dtype.js";
import type { Node } from "../../ir/node.js";
import type { Scalar } from "../../ir/scalar.js";
import { scalar as s } from "../../ir/scalar.js";
import { elements } from "../../ir/shape.js";
import type { Guard, MemoryType, Value, ValueGraph } from "./value.js";
import { laneType } from "./value.js";
import type { Linear, Row, SplitRequest } from "./linear.js";
import { atomIndex, constantIndex, divideIndex, linearKey, rangeOf, variablesOf } from "./linear.js";
import { flatten, paddedIndex, sourceIndex } from "./movement.js";
import type { Refinement } from "./refinement.js";

const memoryTypes: ReadonlySet<string> = new Set<DType>(["f64", "f32", "f16", "bf16", "i32", "u32", "u8", "bool"]);

/** How a materialised node lies in memory. */
export function memoryOf(node: Node): MemoryType {
  const format = node.op.name === "leaf" ? node.attributes["format"] : undefined;
  if (typeof format !== "string") return node.dtype;
  return memoryTypes.has(format) ? (format as DType) : { format };
}

export class NodeLowering {
  readonly #memo = new Map<Node, Map<string, Value>>();
  readonly #request: SplitRequest;

  constructor(
    readonly graph: ValueGraph,
    readonly inputs: ReadonlyMap<Node, number>,
    readonly refinement: Refinement,
  ) {
    this.#request = (variable, radix) => {
      refinement.split(variable, radix);
    };
  }

  get request(): SplitRequest {
    return this.#request;
  }

  /** The value of a node at an index; loads are made only where the guards hold. */
  value(node: Node, index: readonly Linear[], guards: readonly Guard[]): Value {
    const known = this.#memo.get(node) ?? new Map<string, Value>();
    this.#memo.set(node, known);
    const conditions = guards.map((guard) => `${linearKey(guard.index)}<${guard.size}`);
    const key = [...index.map(linearKey), "if", ...conditions].join("|");
    const made = known.get(key) ?? this.#make(node, index, guards);
    known.set(key, made);
    return made;
  }

  #make(node: Node, index: readonly Linear[], guards: readonly Guard[]): Value {
    const input = this.inputs.get(node);
    if (input !== undefined) return this.#load(node, input, index, guards);
    const { op, attributes } = node;
    const { lowering } = op;
    switch (lowering.kind) {
      case "elementwise": {
        const operands = node.inputs.map((operand) => this.value(operand, index, guards));
        const name = `${op.name}${Object.keys(attributes).length > 0 ? JSON.stringify(attributes) : ""}`;
        const types = operands.map((operand) => operand.type).join();
        return this.graph.apply(`${name} ${types}`, operands, (args) => lowering.expression(args, attributes));
      }
      case "cast":
        return this.#cast(node, this.value(must(node.inputs[0], "operand"), index, guards));
      case "index":
        return this.#index(node, index);
      case "random":
        return this.#random(node, lowering.expression, index);
      case "movement":
        return this.#movement(node, index, guards);
      case "reduce":
        return this.#reduce(node, lowering.combine, index, guards);
      case "gather":
        return this.#gather(node, index, guards);
      default:
        invariant(false, `${op.name} cannot be part of a generated kernel`);
    }
  }

  #load(node: Node, input: number, index: readonly Linear[], guards: readonly Guard[]): Value {
    const memory = memoryOf(node);
    const lanes = typeof memory === "string" ? laneType(memory) : "f32";
    const source = { kind: "input", index: input } as const;
    const load = this.graph.load({ source, memory, offset: flatten(index, node.shape), guards, type: lanes });
    invariant(lanes === laneType(node.dtype), `${node.dtype} cannot be stored as ${JSON.stringify(memory)}`);
    return node.dtype === "bf16" || node.dtype === "f16" ? this.graph.round(node.dtype, load) : load;
  }

  #index(node: Node, index: readonly Linear[]): Value {
    const type = laneType(node.dtype);
    if (node.op.name === "constant") return this.graph.constant(type, node.attributes["value"] as number);
    invariant(node.op.name === "iota" && (type === "i32" || type === "u32"), `unknown index op ${node.op.name}`);
    return this.graph.index(type, must(index[node.attributes["axis"] as number], "index"));
  }

  /** Operands: the node's own inputs, scalars all, its `use`, and the element's number. */
  #random(node: Node, expression: (args: readonly Scalar[]) => Scalar, index: readonly Linear[]): Value {
    const scalars = node.inputs.map((input) => this.value(input, [], []));
    const use = this.graph.constant("u32", node.attributes["use"] as number);
    const place = this.graph.index("u32", flatten(index, node.shape));
    return this.graph.apply(node.op.name, [...scalars, use, place], expression);
  }

  #cast(node: Node, operand: Value): Value {
    const from = must(node.inputs[0], "operand").dtype;
    const to = node.dtype;
    const convert = (value: Value, type: "f32" | "i32" | "u32" | "bool"): Value =>
      value.type === type
        ? value
        : this.graph.apply(`convert ${value.type} ${type}`, [value], ([a]) => s.convert(type, must(a, "operand")));
    if (to === "bf16" || to === "f16") return this.graph.round(to, convert(operand, "f32"));
    if (to !== "u8") return convert(operand, laneType(to));
    if (from === "u8") return operand;
    return this.#lowByte(convert(isFloat(from) ? convert(operand, "i32") : operand, "u32"));
  }

  #movement(node: Node, index: readonly Linear[], guards: readonly Guard[]): Value {
    const input = must(node.inputs[0], "input");
    if (node.op.name !== "pad") return this.value(input, sourceIndex(node, index, this.#request), guards);
    const source = paddedIndex(node, index);
    const zero = this.graph.constant(laneType(node.dtype), 0);
    const own: Guard[] = [];
    for (const [axis, part] of source.entries()) {
      const guard = this.#guard(part, must(input.shape[axis], "size"));
      if (guard === "outside") return zero;
      if (guard !== "inside") own.push(guard);
    }
    const value = this.value(input, source, [...guards, ...own]);
    return own.reduce((inner, guard) => {
      const operands = [this.graph.inside(guard), inner, zero];
      const build = s.select;
      return this.graph.apply(`select bool,${zero.type}`, operands, ([a, b, c]) =>
        build(must(a, "condition"), must(b, "value"), must(c, "zero")),
      );
    }, value);
  }

  /** Whether an index lies in 0..size-1: known, or a question to ask; a loop is cut where that makes it known. */
  #guard(index: Linear, size: number): Guard | "inside" | "outside" {
    const { least, most } = rangeOf(index);
    if (least >= 0 && most < size) return "inside";
    if (most < 0 || least >= size) return "outside";
    const scale = Math.max(...index.terms.map((term) => Math.abs(term.coefficient)));
    const { quotient } = divideIndex(index, scale, () => undefined);
    const [term] = quotient.terms;
    if (size % scale === 0 && term?.atom.kind === "loop" && quotient.terms.length === 1 && term.coefficient === 1) {
      const first = -quotient.constant;
      const edges = [first, first + size / scale].filter((edge) => edge > 0 && edge < term.atom.extent);
      const [edge] = edges;
      if (edge !== undefined) this.refinement.cut(term.atom, edge);
    }
    return { index, size };
  }

  #reduce(node: Node, combine: "add" | "maximum", index: readonly Linear[], guards: readonly Guard[]): Value {
    const input = must(node.inputs[0], "operand");
    invariant(input.dtype !== "bool", "truth values are not summed");
    const axes = (node.attributes["axes"] as readonly number[]).filter((axis) => input.shape[axis] !== 1);
    if (axes.length === 0) return this.value(input, index, guards);
    const kept = index.map((part, axis) => (axes.includes(axis) ? constantIndex(0) : part));
    const depth = 1 + Math.max(0, ...kept.flatMap((part) => [...variablesOf(part)].map((variable) => variable.depth)));
    const extents = axes.map((axis) => must(input.shape[axis], "extent"));
    const { parts } = this.refinement.combinations(`k${depth}.${extents.join("x")}.`, extents, depth);
    const pieces = parts.map(({ indices, variables }) => {
      const at = kept.map((part, axis) => indices[axes.indexOf(axis)] ?? part);
      const body = this.value(input, at, guards);
      const loops = variables.map((variable) => ({ variable }));
      return loops.length === 0 ? body : this.graph.reduce(combine, loops, body);
    });
    const whole = pieces.reduce((sum, piece) => this.combined(combine, sum, piece));
    // A sum is made in full lanes and fits its type only in the end.
    if (node.dtype === "bf16" || node.dtype === "f16") return this.graph.round(node.dtype, whole);
    return node.dtype === "u8" ? this.#lowByte(whole) : whole;
  }

  #lowByte(value: Value): Value {
    return this.graph.apply("low byte", [value], ([a]) => s.and(must(a, "operand"), 255));
  }

  combined(combine: "add" | "maximum", a: Value, b: Value): Value {
    return this.graph.apply(`${combine} ${a.type},${b.type}`, [a, b], ([x, y]) =>
      s[combine](must(x, "left"), must(y, "right")),
    );
  }

  #gather(node: Node, index: readonly Linear[], guards: readonly Guard[]): Value {
    const [table, ids] = [must(node.inputs[0], "table"), must(node.inputs[1], "ids")];
    const extent = must(table.shape[0], "rows");
    const value = this.value(ids, [must(index[0], "place")], guards);
    const row: Row = { kind: "row", name: `row${value.id}.${extent}`, extent, value };
    return this.value(table, [atomIndex(row), must(index[1], "column")], guards);
  }
}

/** The first axes of `shape` that hold as many elements as an output does. */
export function prefixOf(shape: readonly number[], output: Node): number {
  const count = elements(output.shape);
  let product = 1;
  let length = 0;
  while (length < shape.length && product < count) product *= must(shape[length++], "size");
  invariant(product === count, "the outputs of a generated kernel share one shape or are statistics of its rows");
  return length;
}
