import type { Node } from "../ir/node.js";
import type { Shape } from "../ir/shape.js";
import { elements } from "../ir/shape.js";
import { add, multiply, multiplyHigh, shiftRight, xor, cast } from "./arithmetic.js";
import { expand, reshape } from "./layout.js";
import { constant, iota } from "./leaves.js";

/** Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): Philox 4x32 with ten rounds. */
const multipliers = [0xd2511f53, 0xcd9e8d57] as const;
const weyl = [0x9e3779b9, 0xbb67ae85] as const;
const rounds = 10;

/**
 * Counter-based random words: a pure function of (key, stream, step, element index), equal on every target and free
 * of order, tiles and threads. `key` is u32 [2], `step` u32 []; `stream` tells apart the uses of one step:
 * a number, or a u32 [] where equal kernels are to serve several uses.
 * Shapes of up to 2^32 elements.
 */
export function randomBits(key: { low: Node; high: Node }, stream: number | Node, step: Node, shape: Shape): Node {
  const { graph } = step;
  const count = elements(shape);
  const word = (value: number): Node => constant(graph, value >>> 0, [count], "u32");
  const use = typeof stream === "number" ? word(stream) : expand(stream, [count]);
  let counter: Node[] = [iota(graph, [count], 0, "u32"), expand(step, [count]), use, word(0)];
  // The round's key stays a scalar until it is used, so that no array of keys is ever made.
  const keyOf = (base: Node, step: number, round: number): Node =>
    expand(add(base, constant(graph, Math.imul(step, round) >>> 0, [], "u32")), [count]);
  for (let round = 0; round < rounds; round++) {
    const keys = [keyOf(key.low, weyl[0], round), keyOf(key.high, weyl[1], round)] as const;
    counter = philoxRound(counter as [Node, Node, Node, Node], keys, word);
  }
  return reshape(counter[0] as Node, shape);
}

function philoxRound(
  counter: readonly [Node, Node, Node, Node],
  key: readonly [Node, Node],
  word: (value: number) => Node,
): Node[] {
  const [c0, c1, c2, c3] = counter;
  const [m0, m1] = [word(multipliers[0]), word(multipliers[1])];
  return [
    xor(xor(multiplyHigh(c2, m1), c1), key[0]),
    multiply(c2, m1),
    xor(xor(multiplyHigh(c0, m0), c3), key[1]),
    multiply(c0, m0),
  ];
}

/** Uniform f32 in [0, 1) from the top 24 bits of each word. */
export function uniformFrom(bits: Node): Node {
  const { graph, shape } = bits;
  return multiply(cast(shiftRight(bits, constant(graph, 8, shape, "u32")), "f32"), 2 ** -24);
}
