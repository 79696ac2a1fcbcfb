/**
 * Optimizer states in 8 bits with a scale for each block of 256 elements (Dettmers et al., 8-bit Optimizers via
 * Block-wise Quantization, arXiv 2110.02861): codes of a codebook, u8, and the largest magnitude of each block, f32.
 */
import type { Node } from "../ir/node.js";
import type { Shape } from "../ir/shape.js";
import { elements } from "../ir/shape.js";
import {
  absolute,
  add,
  and,
  bitcast,
  cast,
  divide,
  lessEqual,
  maximum,
  multiply,
  subtract,
} from "../ops/arithmetic.js";
import { reshape } from "../ops/layout.js";
import { constant } from "../ops/leaves.js";
import { reduceMaximum } from "../ops/reduce.js";
import type { Codebook } from "./codebook.js";
import { signedDynamic, unsignedDynamic } from "./codebook.js";
import type { CodedStates, RuleState } from "./groups.js";
import { Groups } from "./groups.js";
import type { StateSpec } from "./types.js";

const block = 256;
/** Tensors below this size keep f32 states, as in bitsandbytes. */
const fewest = 4096;
const smallestNormal = 2 ** -126;

export function takesEightBits(shape: Shape): boolean {
  return elements(shape) >= fewest;
}

const scaleName = (name: string): string => `${name}_scale`;

export function eightBitStates({ name }: RuleState, shape: Shape): StateSpec[] {
  const count = elements(shape);
  return [
    { name, shape: [count], dtype: "u8", initial: 0 },
    { name: scaleName(name), shape: [Math.ceil(count / block)], dtype: "f32", initial: 0 },
  ];
}

/** A tensor as its blocks, [blocks, 256], the last one filled up with zeros, and what is stored of them. */
export class Blocks extends Groups implements CodedStates {
  constructor(shape: Shape) {
    super(shape, block);
  }

  specs(state: RuleState): StateSpec[] {
    return eightBitStates(state, this.shape);
  }

  /** The f32 values of a stored state. */
  decode(state: RuleState, states: Readonly<Record<string, Node>>): Node {
    const book = codebookOf(state);
    const { zero } = book;
    const codes = cast(this.stored(states, state.name), "i32");
    // Counted from the code of 0, so that what fills up the last block is 0.
    const levels = book.decode(add(this.of(subtract(codes, zero)), zero));
    return multiply(levels, this.spread(this.stored(states, scaleName(state.name))));
  }

  /** What is stored of f32 values [blocks, 256]. */
  encode(state: RuleState, computed: Node): Record<string, Node> {
    const values = this.inMemory(computed);
    const scales = reduceMaximum(absolute(values), [1]);
    // A block of zeros has codes of 0, whatever it is divided by.
    const codes = codebookOf(state).encode(divide(values, this.spread(maximum(scales, smallestNormal))));
    return {
      [state.name]: this.back(cast(codes, "u8"), [this.count]),
      [scaleName(state.name)]: reshape(scales, [this.groups]),
    };
  }
}

function codebookOf({ signed }: RuleState): Codebook {
  return signed ? signedDynamic : unsignedDynamic;
}

/** Whether f32 elements are numbers, not infinity or NaN. */
export function isFinite(values: Node): Node {
  const word = (value: number): Node => constant(values.graph, value, values.shape, "u32");
  return lessEqual(and(bitcast(values, "u32"), word(0x7fffffff)), word(0x7f7fffff));
}
