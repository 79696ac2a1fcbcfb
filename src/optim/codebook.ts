import { invariant } from "../errors.js";
import type { Node } from "../ir/node.js";
import {
  absolute,
  add,
  bitcast,
  cast,
  less,
  maximum,
  minimum,
  select,
  shiftRight,
  subtract,
} from "../ops/arithmetic.js";
import { constant } from "../ops/leaves.js";
import { defineLookup } from "../ops/lookup.js";
import { dynamicLevels, midpoints, unsignedDynamicLevels } from "../storage/dynamic-map.js";

/** An ascending list of at most 256 values in [-1, 1], as graph expressions from codes and to codes. */
export interface Codebook {
  /** The code of 0. */
  readonly zero: number;
  /** f32 values of i32 codes. */
  decode(codes: Node): Node;
  /** i32 codes of the nearest values to f32 numbers in [-1, 1]. */
  encode(values: Node): Node;
}

const bitsOf = (value: number): number => new Int32Array(Float32Array.of(value).buffer)[0] ?? 0;

/**
 * How many of the ascending `bounds` lie below a number in [0, 1]. The leading bits of an f32 number a cell that holds
 * at most one bound; the count at its start and one comparison with the bound that may follow give the answer.
 */
function defineRank(name: string, bounds: readonly number[]): (magnitude: Node) => Node {
  const cellsBy = (shift: number): number[] => bounds.map((bound) => bitsOf(bound) >> shift);
  let shift = 23;
  while (new Set(cellsBy(shift)).size < bounds.length) shift--;
  const cells = cellsBy(shift);
  // The first cell stands for all below it.
  const first = (cells[0] ?? 0) - 1;
  const last = bitsOf(1) >> shift;
  invariant(last - first < 1 << 14, "the cells of a codebook are few");
  const counts = Array.from({ length: last - first + 1 }, (_, cell) => cells.filter((at) => at < first + cell).length);
  const countAt = defineLookup(`${name} counts`, counts);
  const boundAt = defineLookup(`${name} bounds`, [...bounds, Infinity]);
  return (magnitude) => {
    const word = (value: number): Node => constant(magnitude.graph, value, magnitude.shape, "i32");
    const by = constant(magnitude.graph, shift, magnitude.shape, "u32");
    const cell = subtract(bitcast(shiftRight(bitcast(magnitude, "u32"), by), "i32"), word(first));
    const count = cast(countAt(minimum(maximum(cell, word(0)), word(last - first))), "i32");
    return add(count, select(less(boundAt(count), magnitude), word(1), word(0)));
  };
}

function defineUnsigned(name: string, levels: readonly number[]): Codebook {
  const rank = defineRank(name, [...midpoints(levels)]);
  return { zero: 0, decode: defineLookup(`${name} levels`, levels), encode: rank };
}

/**
 * Levels around 0 that are symmetric, but for the largest, which only one sign has. A number that is not 0 never takes a
 * value of the other sign; a negative one does not take 0 either, as bitsandbytes' kernels have it.
 */
function defineSigned(name: string, levels: readonly number[]): Codebook {
  const zero = levels.indexOf(0);
  const rank = defineRank(name, [...midpoints(levels.slice(zero))]);
  return {
    zero,
    decode: defineLookup(`${name} levels`, levels),
    encode: (values) => {
      const steps = rank(absolute(values));
      const down = subtract(zero, minimum(maximum(steps, 1), zero));
      return select(less(values, 0), down, add(steps, zero));
    },
  };
}

/** bitsandbytes' dynamic types. */
export const signedDynamic = defineSigned("dynamic", dynamicLevels);
export const unsignedDynamic = defineUnsigned("unsigned dynamic", unsignedDynamicLevels);
