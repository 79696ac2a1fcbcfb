import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import type { Float8Format, Float8Id } from "../storage/float8.js";
import { decodeFloat8, encodeFloat8, float8Code, float8Formats, float8Value } from "../storage/float8.js";
import { defineElementwise } from "./elementwise.js";

/** The nearest codes (i32) of f32 values, element by element. No gradient flows. */
function encodeOp(format: Float8Format): OpDefinition {
  return defineElementwise({
    name: `encode ${format.id}`,
    arity: 1,
    operands: [["f32"]],
    result: "i32",
    meaning: (value) => float8Code(format, must(value, "value")),
    integerMeaning: (value) => float8Code(format, must(value, "value")),
    expression: (value) => encodeFloat8(format, must(value, "value")),
  });
}

/** The f32 values of codes (i32), element by element. */
function decodeOp(format: Float8Format): OpDefinition {
  return defineElementwise({
    name: `decode ${format.id}`,
    arity: 1,
    operands: [["i32"]],
    result: "f32",
    meaning: (code) => float8Value(format, must(code, "code")),
    expression: (code) => decodeFloat8(format, must(code, "code")),
  });
}

const ops = {
  e4m3: { encode: encodeOp(float8Formats.e4m3), decode: decodeOp(float8Formats.e4m3) },
  e5m2: { encode: encodeOp(float8Formats.e5m2), decode: decodeOp(float8Formats.e5m2) },
};

/** Codes, i32 in 0..255, of f32 values of any shape. */
export function toFloat8(format: Float8Id, values: Node): Node {
  return values.graph.add(ops[format].encode, [values]);
}

/** f32 values of i32 codes of any shape. */
export function fromFloat8(format: Float8Id, codes: Node): Node {
  return codes.graph.add(ops[format].decode, [codes]);
}
