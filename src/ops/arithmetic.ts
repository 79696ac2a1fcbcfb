import { must } from "../errors.js";
import type { DType } from "../ir/dtype.js";
import { isFloat } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import { scalar as s } from "../ir/scalar.js";
import { broadcastShapes } from "../ir/shape.js";
import { allocate } from "../ir/tensor.js";
import { defineElementwise } from "./elementwise.js";
import { expand } from "./layout.js";
import { constant, constantValue } from "./leaves.js";
import { cosine, exponential, hyperbolicTangent, logarithm, logistic, sine } from "./polynomials.js";

const real: readonly DType[] = ["f32"];
const number: readonly DType[] = ["f32", "i32", "u32"];
const integer: readonly DType[] = ["i32", "u32"];
const anyType: readonly DType[] = ["f32", "i32", "u32", "bool"];
const truth: readonly DType[] = ["bool"];
const both = (types: readonly DType[]): readonly (readonly DType[])[] => [types, types];

function operand(node: Node, index: number): Node {
  return must(node.inputs[index], `operand ${index}`);
}

export const addOp = defineElementwise({
  name: "add",
  arity: 2,
  operands: both(number),
  result: 0,
  meaning: (a, b) => a + b,
  expression: (a, b) => s.add(must(a, "a"), must(b, "b")),
  gradient: (_node, dy) => [dy, dy],
});

export const subtractOp = defineElementwise({
  name: "subtract",
  arity: 2,
  operands: both(number),
  result: 0,
  meaning: (a, b) => a - b,
  expression: (a, b) => s.subtract(must(a, "a"), must(b, "b")),
  gradient: (_node, dy) => [dy, negate(dy)],
});

export const multiplyOp = defineElementwise({
  name: "multiply",
  arity: 2,
  operands: both(number),
  result: 0,
  meaning: (a, b) => a * b,
  // Integer products wrap to 32 bits; f64 would lose the low bits of large ones.
  integerMeaning: Math.imul,
  expression: (a, b) => s.multiply(must(a, "a"), must(b, "b")),
  gradient: (node, dy) => [multiply(dy, operand(node, 1)), multiply(dy, operand(node, 0))],
});

export const divideOp = defineElementwise({
  name: "divide",
  arity: 2,
  operands: both(real),
  result: 0,
  meaning: (a, b) => a / b,
  expression: (a, b) => s.divide(must(a, "a"), must(b, "b")),
  gradient: (node, dy) => {
    const share = divide(dy, operand(node, 1));
    return [share, negate(multiply(share, node))];
  },
});

export const minimumOp = defineElementwise({
  name: "minimum",
  arity: 2,
  operands: both(number),
  result: 0,
  meaning: (a, b) => (a < b ? a : b),
  expression: (a, b) => s.minimum(must(a, "a"), must(b, "b")),
  gradient: (node, dy) => {
    const first = lessEqual(operand(node, 0), operand(node, 1));
    return [select(first, dy, 0), select(first, 0, dy)];
  },
});

export const maximumOp = defineElementwise({
  name: "maximum",
  arity: 2,
  operands: both(number),
  result: 0,
  meaning: (a, b) => (a > b ? a : b),
  expression: (a, b) => s.maximum(must(a, "a"), must(b, "b")),
  gradient: (node, dy) => {
    const first = lessEqual(operand(node, 1), operand(node, 0));
    return [select(first, dy, 0), select(first, 0, dy)];
  },
});

interface UnaryRule {
  readonly name: string;
  readonly operands?: readonly DType[];
  readonly meaning: (a: number) => number;
  readonly expression: Parameters<typeof defineElementwise>[0]["expression"];
  readonly derivative?: (node: Node, x: Node) => Node;
}

function defineUnary(rule: UnaryRule): OpDefinition {
  const { derivative } = rule;
  return defineElementwise({
    name: rule.name,
    arity: 1,
    operands: [rule.operands ?? real],
    result: 0,
    meaning: rule.meaning,
    expression: rule.expression,
    ...(derivative === undefined
      ? {}
      : { gradient: (node: Node, dy: Node) => [multiply(dy, derivative(node, operand(node, 0)))] }),
  });
}

export const negateOp = defineUnary({
  name: "negate",
  operands: number,
  meaning: (a) => -a,
  expression: (a) => s.negate(must(a, "a")),
  derivative: (node) => constant(node.graph, -1, node.shape),
});

export const absoluteOp = defineUnary({
  name: "absolute",
  operands: ["f32", "i32"],
  meaning: Math.abs,
  expression: (a) => s.absolute(must(a, "a")),
  derivative: (_node, x) => select(less(x, 0), fill(x, -1), select(less(0, x), fill(x, 1), fill(x, 0))),
});

export const sqrtOp = defineUnary({
  name: "sqrt",
  meaning: Math.sqrt,
  expression: (a) => s.sqrt(must(a, "a")),
  derivative: (node) => divide(0.5, node),
});

export const expOp = defineUnary({
  name: "exp",
  meaning: Math.exp,
  expression: (a) => exponential(must(a, "a")),
  derivative: (node) => node,
});

export const logOp = defineUnary({
  name: "log",
  meaning: Math.log,
  expression: (a) => logarithm(must(a, "a")),
  derivative: (_node, x) => divide(1, x),
});

export const sinOp = defineUnary({
  name: "sin",
  meaning: Math.sin,
  expression: (a) => sine(must(a, "a")),
  derivative: (_node, x) => cos(x),
});

export const cosOp = defineUnary({
  name: "cos",
  meaning: Math.cos,
  expression: (a) => cosine(must(a, "a")),
  derivative: (_node, x) => negate(sin(x)),
});

export const tanhOp = defineUnary({
  name: "tanh",
  meaning: Math.tanh,
  expression: (a) => hyperbolicTangent(must(a, "a")),
  derivative: (node) => subtract(1, multiply(node, node)),
});

export const sigmoidOp = defineUnary({
  name: "sigmoid",
  meaning: (a) => 1 / (1 + Math.exp(-a)),
  expression: (a) => logistic(must(a, "a")),
  derivative: (node) => multiply(node, subtract(1, node)),
});

export const floorOp = defineUnary({
  name: "floor",
  meaning: Math.floor,
  expression: (a) => s.floor(must(a, "a")),
  derivative: (node) => constant(node.graph, 0, node.shape),
});

function defineComparison(
  name: "less" | "lessEqual" | "equal",
  meaning: (a: number, b: number) => boolean,
): OpDefinition {
  return defineElementwise({
    name,
    arity: 2,
    operands: both(number),
    result: "bool",
    meaning: (a, b) => (meaning(a, b) ? 1 : 0),
    expression: (a, b) => s[name](must(a, "a"), must(b, "b")),
  });
}

export const lessOp = defineComparison("less", (a, b) => a < b);
export const lessEqualOp = defineComparison("lessEqual", (a, b) => a <= b);
export const equalOp = defineComparison("equal", (a, b) => a === b);

function defineBits(
  name: "and" | "or" | "xor" | "shiftLeft" | "shiftRight",
  types: readonly DType[],
  meaning: (a: number, b: number) => number,
): OpDefinition {
  return defineElementwise({
    name,
    arity: 2,
    operands: both(types),
    result: 0,
    meaning,
    expression: (a, b) => s[name](must(a, "a"), must(b, "b")),
  });
}

export const andOp = defineBits("and", ["bool", ...integer], (a, b) => a & b);
export const orOp = defineBits("or", ["bool", ...integer], (a, b) => a | b);
export const xorOp = defineBits("xor", integer, (a, b) => a ^ b);
export const shiftLeftOp = defineBits("shiftLeft", ["u32"], (a, b) => a << b);
export const shiftRightOp = defineBits("shiftRight", ["u32"], (a, b) => a >>> b);

/** High 32 bits of the product of two u32. */
export const multiplyHighOp = defineElementwise({
  name: "multiplyHigh",
  arity: 2,
  operands: both(["u32"]),
  result: 0,
  meaning: (a, b) => Number((BigInt(a >>> 0) * BigInt(b >>> 0)) >> 32n),
  expression: (a, b) => s.multiplyHigh(must(a, "a"), must(b, "b")),
});

export const selectOp = defineElementwise({
  name: "select",
  arity: 3,
  operands: [truth, anyType, anyType],
  result: 1,
  meaning: (condition, a, b) => (condition === 0 ? b : a),
  expression: (condition, a, b) => s.select(must(condition, "condition"), must(a, "a"), must(b, "b")),
  gradient: (node, dy) => [undefined, select(operand(node, 0), dy, 0), select(operand(node, 0), 0, dy)],
});

/** Change of element type. Gradients are f32 whatever the type, so the derivative between floats is the identity. */
export const castOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "cast",
  cost: "memory",
  infer: (inputs, attributes) => [{ shape: must(inputs[0], "operand").shape, dtype: attributes["dtype"] as DType }],
  lowering: { kind: "cast" },
  evaluate: (inputs, _attributes, types) => {
    const type = must(types[0], "type");
    const source = must(inputs[0], "operand").data;
    const data = allocate(type.dtype, source.length);
    const truncate = !isFloat(type.dtype);
    for (let index = 0; index < data.length; index++) {
      const value = source[index] ?? 0;
      data[index] = truncate ? Math.trunc(value) : value;
    }
    return [{ ...type, data }];
  },
  gradient: ({ node, outputs }) => {
    const floats = isFloat(node.dtype) && isFloat(operand(node, 0).dtype);
    return [floats ? must(outputs[0], "output gradient") : undefined];
  },
});

/** Reads the 32 bits of each element as another type. */
export const bitcastOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "bitcast",
  cost: "memory",
  infer: (inputs, attributes) => [{ shape: must(inputs[0], "operand").shape, dtype: attributes["dtype"] as DType }],
  lowering: {
    kind: "elementwise",
    expression: (args, attributes) => s.bitcast(attributes["dtype"] as "f32" | "i32" | "u32", must(args[0], "a")),
  },
  evaluate: (inputs, _attributes, types) => {
    const type = must(types[0], "type");
    const input = must(inputs[0], "operand");
    const bits = input.dtype === "f32" ? new Float32Array(input.data) : input.data;
    const words = bits instanceof Float64Array ? new Float32Array(bits).buffer : bits.slice().buffer;
    const raw =
      type.dtype === "f32"
        ? new Float32Array(words)
        : type.dtype === "i32"
          ? new Int32Array(words)
          : new Uint32Array(words);
    const data = allocate(type.dtype, raw.length);
    data.set(raw);
    return [{ ...type, data }];
  },
});

type Operand = Node | number;

function graphOf(...operands: Operand[]): Node {
  return must(
    operands.find((value): value is Node => typeof value !== "number"),
    "a node operand",
  );
}

/** Both operands as nodes of one shape; numbers become constants of the other's type. */
function align(a: Operand, b: Operand): [Node, Node] {
  const model = graphOf(a, b);
  const lift = (value: Operand): Node =>
    typeof value === "number" ? constant(model.graph, value, [], model.dtype) : value;
  const left = lift(a);
  const right = lift(b);
  const shape = broadcastShapes(left.shape, right.shape);
  return [expand(left, shape), expand(right, shape)];
}

function binary(op: OpDefinition, a: Operand, b: Operand): Node {
  const [left, right] = align(a, b);
  return left.graph.add(op, [left, right]);
}

function fill(like: Node, value: number): Node {
  return constant(like.graph, value, like.shape, like.dtype);
}

/** Element-wise functions: operands broadcast, numbers are constants, identities (x+0, x*1, x*0) disappear. */
export function add(a: Operand, b: Operand): Node {
  const [left, right] = align(a, b);
  if (constantValue(right) === 0) return left;
  return constantValue(left) === 0 ? right : left.graph.add(addOp, [left, right]);
}

export function subtract(a: Operand, b: Operand): Node {
  const [left, right] = align(a, b);
  return constantValue(right) === 0 ? left : left.graph.add(subtractOp, [left, right]);
}

export function multiply(a: Operand, b: Operand): Node {
  const [left, right] = align(a, b);
  const x = constantValue(left);
  const y = constantValue(right);
  if (x !== undefined && y !== undefined) return fill(left, x * y);
  if (y === 1 || x === 0) return left;
  return x === 1 || y === 0 ? right : left.graph.add(multiplyOp, [left, right]);
}

export function divide(a: Operand, b: Operand): Node {
  const [left, right] = align(a, b);
  return constantValue(right) === 1 ? left : left.graph.add(divideOp, [left, right]);
}

export const minimum = (a: Operand, b: Operand): Node => binary(minimumOp, a, b);
export const maximum = (a: Operand, b: Operand): Node => binary(maximumOp, a, b);
export const less = (a: Operand, b: Operand): Node => binary(lessOp, a, b);
export const lessEqual = (a: Operand, b: Operand): Node => binary(lessEqualOp, a, b);
export const equal = (a: Operand, b: Operand): Node => binary(equalOp, a, b);
export const and = (a: Operand, b: Operand): Node => binary(andOp, a, b);
export const or = (a: Operand, b: Operand): Node => binary(orOp, a, b);
export const xor = (a: Operand, b: Operand): Node => binary(xorOp, a, b);
export const shiftLeft = (a: Operand, b: Operand): Node => binary(shiftLeftOp, a, b);
export const shiftRight = (a: Operand, b: Operand): Node => binary(shiftRightOp, a, b);
export const multiplyHigh = (a: Operand, b: Operand): Node => binary(multiplyHighOp, a, b);

const unary =
  (op: OpDefinition) =>
  (x: Node): Node =>
    x.graph.add(op, [x]);

export const absolute = unary(absoluteOp);
export const sqrt = unary(sqrtOp);
export const exp = unary(expOp);
export const log = unary(logOp);
export const sin = unary(sinOp);
export const cos = unary(cosOp);
export const tanh = unary(tanhOp);
export const sigmoid = unary(sigmoidOp);
export const floor = unary(floorOp);

export function negate(x: Node): Node {
  const value = constantValue(x);
  return value === undefined ? x.graph.add(negateOp, [x]) : fill(x, -value);
}

/** `a` where the condition holds, else `b`. */
export function select(condition: Node, a: Operand, b: Operand): Node {
  const [left, right] = align(a, b);
  const shape = broadcastShapes(condition.shape, left.shape);
  return condition.graph.add(selectOp, [expand(condition, shape), expand(left, shape), expand(right, shape)]);
}

export function cast(x: Node, dtype: DType): Node {
  return x.dtype === dtype ? x : x.graph.add(castOp, [x], { dtype });
}

export function bitcast(x: Node, dtype: "f32" | "i32" | "u32"): Node {
  return x.dtype === dtype ? x : x.graph.add(bitcastOp, [x], { dtype });
}
