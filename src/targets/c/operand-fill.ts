/** Operands that are computed where they are packed: element-wise expressions of one weight, rendered as readers. */
import { invariant, must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { Graph } from "../../ir/node.js";
import { elements } from "../../ir/shape.js";
import { castOp } from "../../ops/arithmetic.js";
import { expand, expandOp } from "../../ops/layout.js";
import { constant, constantOp, leaf, leafAttributes, leafOp } from "../../ops/leaves.js";
import type { OperandExpression } from "../../passes/kernels.js";
import { storageOf } from "../../passes/kernels.js";
import { NodeLowering } from "../loops/lower-node.js";
import { Refinement } from "../loops/refinement.js";
import { ValueGraph, valuesBelow } from "../loops/value.js";
import type { Decoder } from "./contraction-types.js";
import { contentHash, Names } from "./loops-names.js";
import { loopsSupport } from "./loops-support.js";
import { ValueRenderer } from "./loops-values.js";

/** A word that a reader takes: the address of what it reads, or a number. */
export type FillWord = number | { readonly node: Node };

export interface RenderedFill {
  readonly decoder: Decoder;
  readonly words: readonly FillWord[];
}

/** The expression over one axis, so that tensors of all shapes share a reader; inputs are leaves, in their order. */
function flattened({ value, base, scalars }: OperandExpression): { value: Node; inputs: Node[] } {
  const graph = new Graph();
  const shape = [elements(base.shape)];
  const made = new Map<Node, Node>();
  const inputs = [base, ...scalars].map((node, index) => {
    const format = node.op === leafOp ? { format: leafAttributes(node).format } : {};
    const own = index === 0 ? shape : [];
    const input = leaf(graph, { name: `in${index}`, role: "input", shape: own, dtype: node.dtype, ...format });
    made.set(node, input);
    return input;
  });
  const visit = (node: Node): Node => {
    const source = storageOf(node);
    const known = made.get(source);
    if (known !== undefined) return known;
    const result = rebuild(source);
    made.set(source, result);
    return result;
  };
  const rebuild = (node: Node): Node => {
    const number = node.attributes["value"];
    if (node.op === constantOp)
      return constant(graph, number as number, node.shape.length === 0 ? [] : shape, node.dtype);
    if (node.op === expandOp) return expand(visit(must(node.inputs[0], "input")), shape);
    const { kind } = node.op.lowering;
    invariant(kind === "elementwise" || kind === "cast" || kind === "random", `${node.op.name} is no operand`);
    const attributes = kind === "random" ? { ...node.attributes, shape } : node.attributes;
    return graph.add(node.op, node.inputs.map(visit), attributes);
  };
  return { value: visit(value), inputs };
}

/** Values in f32 that a bf16 product rounds anyway need not be rounded before. */
function withoutRounding(value: Node): Node {
  return value.op === castOp && value.dtype === "bf16" ? must(value.inputs[0], "operand") : value;
}

/**
 * The reader of an operand: `NAME_fill(const char* base, int64_t element, int64_t count, float* out)`, where `base` is
 * the address of its words. Equal expressions give equal names, whatever the sizes.
 */
export function renderFill(expression: OperandExpression, compute: "f32" | "bf16"): RenderedFill {
  const flat = flattened(expression);
  const refinement = new Refinement();
  const { parts } = refinement.combinations("a", flat.value.shape, 0);
  const { indices, variables } = must(parts[0], "part");
  const lane = must(variables[0], "axis");
  const lowering = new NodeLowering(
    new ValueGraph(),
    new Map(flat.inputs.map((node, index) => [node, index])),
    refinement,
  );
  const rounded = lowering.value(compute === "bf16" ? withoutRounding(flat.value) : flat.value, indices, []);
  const names = new Names(new Map([[lane, "at"]]));
  const values = new ValueRenderer(names);
  const needed = valuesBelow([rounded]);
  const fixed = needed.filter((value) => value.depends.size === 0).flatMap((value) => values.compute(value, undefined));
  const body = (partial: boolean): string[] =>
    needed
      .filter(({ depends }) => depends.size > 0)
      .flatMap((value) => values.compute(value, { variable: lane, partial }));
  const [whole, rest] = [body(false), body(true)];
  const result = names.value(rounded);
  const addresses = flat.inputs.map(
    (_, index) => `const char* in${index} = (const char*)(uintptr_t)words[${index}]; (void)in${index};`,
  );
  const sizes = names.sizes.map((_, index) => `const int64_t s${index} = words[${addresses.length + index}];`);
  const lines = [
    "const int64_t* words = (const int64_t*)(uintptr_t)base;",
    ...[...addresses, ...sizes, ...names.locals, ...fixed],
    "const int64_t end = element + count;",
    "int64_t at = element;",
    "for (; at + 16 <= end; at += 16, out += 16) {",
    ...[...whole, `store_f32(out, ${result});`].map(indent),
    "}",
    "if (at < end) {",
    ...["const int n = (int)(end - at);", ...rest, `store_f32_n(out, ${result}, n);`].map(indent),
    "}",
  ];
  const text = `(const char* base, int64_t element, int64_t count, float* out) {\n${lines.map(indent).join("\n")}\n}\n`;
  const helpers = [loopsSupport, ...names.functions.values()].join("");
  const name = `fill_${contentHash(helpers + text)}`;
  const source = `${helpers}static __attribute__((noinline, unused)) void ${name}_fill${text}`;
  const words = [expression.base, ...expression.scalars].map((node): FillWord => ({ node }));
  const all = [...words, ...names.sizes];
  const decoder = { name, source, elements: 1, bytes: 0, planes: { halves: false }, words: all.length };
  return { decoder, words: all };
}

function indent(line: string): string {
  return `  ${line}`;
}
