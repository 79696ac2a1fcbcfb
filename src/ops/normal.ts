import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Scalar } from "../ir/scalar.js";
import { scalar as s } from "../ir/scalar.js";
import { compileScalar } from "../ir/scalar-javascript.js";
import { defineElementwise } from "./elementwise.js";
import { horner } from "./polynomials.js";

/**
 * Names the generator and the transform below: logs that noise is replayed from state it, and a change of either one's
 * bits needs a new name.
 */
export const noiseId = "philox4x32-10/normal-1";

/** log2 t for t in [1, 2], highest power first: within 1.3e-5. */
const log2Coefficients = [
  0.04487359713127889, -0.4165638947663426, 1.631150310734368, -3.5507965767990486, 5.0917144655809,
  -2.8003653689866956,
];

const shift = 0.85;

/** The normal quantile of 1 - 2^-L / 2 as a polynomial in sqrt(L + 0.85), highest power first: within 4e-5 for L <= 32. */
const quantileCoefficients = [
  3.5369317476391038e-6, -0.00014486004997032968, 0.0023662449331196753, -0.020879139643938793, 0.11196903045967255,
  -0.38786726275216943, 2.090616839472061, -1.6719512247173944,
];

/**
 * The normal quantile of a word: the top bit is the sign, the other 31 are h 2^31 - 1/2 with h = 2 (1 - p), and the
 * size is Q(L) with L = -log2 h. Only integer and exactly rounded operations, so that every target gives these bits.
 */
function normalOf(word: Scalar): Scalar {
  const size = s.add(s.convert("f32", s.bitcast("i32", s.and(word, 0x7fffffff))), 0.5);
  const bits = s.bitcast("u32", size);
  const exponent = s.convert("f32", s.bitcast("i32", s.shiftRight(bits, 23)));
  const mantissa = s.bitcast("f32", s.or(s.and(bits, 0x7fffff), 0x3f800000));
  const octaves = s.subtract(s.subtract(s.f32(31 + 127 + shift), exponent), horner(mantissa, log2Coefficients));
  const quantile = horner(s.sqrt(octaves), quantileCoefficients);
  return s.bitcast("f32", s.xor(s.bitcast("u32", quantile), s.and(word, 0x80000000)));
}

const evaluateNormal = compileScalar(normalOf(s.argument(0, "u32")), 1);

export const normalOp = defineElementwise({
  name: "normal",
  arity: 1,
  operands: [["u32"]],
  result: "f32",
  meaning: (word) => evaluateNormal(word),
  expression: (word) => normalOf(must(word, "word")),
});

/** Standard normal f32 from random words, one each: mean 0, variance 1, largest size 6.3. */
export function normalFrom(bits: Node): Node {
  return bits.graph.add(normalOp, [bits]);
}
