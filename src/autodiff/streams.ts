import type { Node } from "../ir/node.js";
import { elements } from "../ir/shape.js";
import {
  add,
  and,
  bitcast,
  cast,
  divide,
  floor,
  maximum,
  minimum,
  multiply,
  or,
  shiftLeft,
  shiftRight,
  subtract,
  xor,
} from "../ops/arithmetic.js";
import { expand, pad, reduceSum, reshape, slice } from "../ops/layout.js";
import { constant, iota } from "../ops/leaves.js";
import { alone } from "../ops/reduce.js";

/** y = factor x + f, with what its inverse needs beside y and f. */
export interface Coupled {
  readonly y: Node;
  readonly dropped?: Node;
}

/** How the streams of a reversible network are held, and how a function's value is added to one and taken off again. */
export interface StreamArithmetic {
  /** A stream that starts as `x`, f32. */
  enter(x: Node): Node;
  /** A stream's value, f32. */
  read(stream: Node): Node;
  couple(x: Node, factor: number, f: Node): Coupled;
  /** x again. */
  uncouple(y: Node, factor: number, f: Node, dropped: Node | undefined): Node;
}

/** f32: the inverse loses digits, more of them the smaller the factor. */
export const floating: StreamArithmetic = {
  enter: (x) => x,
  read: (stream) => stream,
  couple: (x, factor, f) => ({ y: add(multiply(x, factor), f) }),
  uncouple: (y, factor, f) => divide(subtract(y, f), factor),
};

/** The b for which 2^-b is `factor`, or undefined where there is none that leaves bits of a stream. */
export function shiftOf(factor: number): number | undefined {
  const bits = -Math.log2(factor);
  return Number.isInteger(bits) && bits >= 0 && bits <= 16 ? bits : undefined;
}

/**
 * Fixed point of 32 bits (two's complement, as u32), `fraction` of them behind the point: sums wrap, and so are undone
 * without loss. A factor is 2^-b, and the b bits that it drops from each element are kept (MacKay et al. 2018,
 * "Reversible recurrent neural networks"). Derivatives are those of the real numbers. A function's value counts up to
 * 2^(30 - fraction) in size. What functions read and give stands alone: they must
 * give the same bits again.
 */
export function fixedPoint(fraction: number): StreamArithmetic {
  const unit = 2 ** fraction;
  const fixed = (value: Node): Node => {
    const bounded = minimum(maximum(multiply(alone(value), unit), -(2 ** 30)), 2 ** 30);
    return bitcast(cast(floor(add(bounded, 0.5)), "i32"), "u32");
  };
  return {
    enter: fixed,
    read: (stream) => alone(multiply(cast(bitcast(stream, "i32"), "f32"), 1 / unit)),
    couple: (x, factor, f) => {
      const bits = shiftOf(factor) ?? 0;
      if (bits === 0) return { y: alone(add(x, fixed(f))) };
      // Counted from -2^31 on, so that a shift of bits rounds down as that of a signed number does.
      const counted = xor(x, 2 ** 31);
      const kept = subtract(shiftRight(counted, bits), 2 ** (31 - bits));
      return { y: alone(add(kept, fixed(f))), dropped: packBits(x, bits) };
    },
    uncouple: (y, factor, f, dropped) => {
      const bits = shiftOf(factor) ?? 0;
      const kept = subtract(y, fixed(f));
      if (bits === 0 || dropped === undefined) return kept;
      return or(shiftLeft(kept, bits), unpackBits(dropped, kept, bits));
    },
  };
}

const wordBits = 32;

/** The lowest `bits` bits of each element, as planes of words: u32 [ceil(elements / 32), 1, bits]. */
export function packBits(x: Node, bits: number): Node {
  const { graph, shape } = x;
  const count = elements(shape);
  const words = Math.ceil(count / wordBits);
  const box = [words, wordBits, bits];
  const line = pad(reshape(x, [count]), [0], [words * wordBits - count]);
  const wide = expand(reshape(line, [words, wordBits, 1]), box);
  const single = and(shiftRight(wide, iota(graph, box, 2, "u32")), constant(graph, 1, box, "u32"));
  return reduceSum(shiftLeft(single, iota(graph, box, 1, "u32")), [1]);
}

/** The packed bits of as many elements as `like` has, in its shape. */
export function unpackBits(packed: Node, like: Node, bits: number): Node {
  const { graph } = packed;
  const count = elements(like.shape);
  const [words = 0] = packed.shape;
  const box = [words, wordBits, bits];
  const single = and(shiftRight(expand(packed, box), iota(graph, box, 1, "u32")), constant(graph, 1, box, "u32"));
  const line = reshape(reduceSum(shiftLeft(single, iota(graph, box, 2, "u32")), [2]), [words * wordBits]);
  return reshape(slice(line, [0], [count]), like.shape);
}
