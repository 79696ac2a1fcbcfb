import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Shape } from "../ir/shape.js";
import { elements } from "../ir/shape.js";
import { expand, pad, reshape, slice } from "../ops/layout.js";
import { reduceMaximum } from "../ops/reduce.js";
import type { StateSpec } from "./types.js";

/** A state of an update rule. */
export interface RuleState {
  readonly name: string;
  /** Whether it can be negative. */
  readonly signed: boolean;
  /** Stored in f32 whatever the others are stored in: counts, which must not be rounded. */
  readonly exact?: boolean;
}

/** States of a rule kept as codes with numbers for each group of elements; of one shape of parameter. */
export interface CodedStates {
  /** A tensor as groups, [groups, size]; and back to its shape. */
  of(tensor: Node): Node;
  back(groups: Node): Node;
  /** What is stored of a state. */
  specs(state: RuleState): StateSpec[];
  /** The f32 values [groups, size] of a stored state. */
  decode(state: RuleState, states: Readonly<Record<string, Node>>): Node;
  /** What is stored of f32 values [groups, size]. */
  encode(state: RuleState, computed: Node): Record<string, Node>;
}

/** A tensor as groups of `size` neighbours in row-major order, [groups, size], the last one filled up with zeros; and back. */
export class Groups {
  readonly count: number;
  readonly groups: number;

  constructor(
    readonly shape: Shape,
    readonly size: number,
  ) {
    this.count = elements(shape);
    this.groups = Math.ceil(this.count / size);
  }

  get isWhole(): boolean {
    return this.groups * this.size === this.count;
  }

  of(tensor: Node): Node {
    const missing = this.groups * this.size - this.count;
    const flat = this.isWhole ? tensor : pad(reshape(tensor, [this.count]), [0], [missing]);
    return reshape(flat, [this.groups, this.size]);
  }

  back(groups: Node, shape: Shape = this.shape): Node {
    if (this.isWhole) return reshape(groups, shape);
    return reshape(slice(reshape(groups, [this.groups * this.size]), [0], [this.count]), shape);
  }

  /** A number of each group at each of its elements. */
  spread(numbers: Node): Node {
    return expand(reshape(numbers, [this.groups, 1]), [this.groups, this.size]);
  }

  /** One of the stored tensors of a state, by name. */
  protected stored(states: Readonly<Record<string, Node>>, name: string): Node {
    return must(states[name], `optimizer state ${name}`);
  }

  /**
   * Values as a reduction over nothing, which is always stored: with a short last group, or one in all, codes and
   * parameter are made by kernels of their own, and could otherwise not both come before the other, which replaces what
   * it reads.
   */
  protected inMemory(values: Node): Node {
    if (this.isWhole && this.groups > 1) return values;
    return reshape(reduceMaximum(reshape(values, [...values.shape, 1]), [values.shape.length]), values.shape);
  }
}
