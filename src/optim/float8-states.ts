/**
 * Optimizer states in FP8 with dynamic range expansion (Xi et al., COAT, arXiv 2410.19313, section 4): each group of 128
 * elements is raised to the power that spreads its magnitudes over the whole range of E4M3.
 */
import { ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Shape } from "../ir/shape.js";
import {
  absolute,
  add,
  and,
  cast,
  divide,
  equal,
  exp,
  floor,
  less,
  log,
  maximum,
  minimum,
  multiply,
  negate,
  select,
  sqrt,
  subtract,
} from "../ops/arithmetic.js";
import { fromFloat8, toFloat8 } from "../ops/float8.js";
import { reshape } from "../ops/layout.js";
import { constant } from "../ops/leaves.js";
import { defineLookup } from "../ops/lookup.js";
import { reduceMaximum } from "../ops/reduce.js";
import { e4m3, float8Value } from "../storage/float8.js";
import type { CodedStates, RuleState } from "./groups.js";
import { Groups } from "./groups.js";
import type { StateSpec } from "./types.js";

export const float8Group = 128;
/** Largest and smallest power of a group. */
export const powers = { most: 8, least: 1 / 16 };
/** ln of the span that a group's magnitudes are stretched to: not all of 448 / 2^-9, but what the reference takes. */
const span = Math.log((e4m3.largest * e4m3.largest) / 2);
/** Of e: beyond what any code stands for. */
const leastExponent = -80;
const tiny = 1e-30;
const huge = 3.4e38;

const magnitudeBits = 0x7f;

/** Natural logarithms of the format's magnitudes, by their codes; that of 0 is never used. */
const logarithmOf = defineLookup(
  "logarithms of e4m3",
  Array.from({ length: 128 }, (_, code) => (code === 0 || code === 127 ? 0 : Math.log(float8Value(e4m3, code)))),
);

const word = (like: Node, value: number): Node => constant(like.graph, value, like.shape, like.dtype);

export interface Float8Settings {
  /** Whether groups are stretched; otherwise they are only divided by their largest magnitude. */
  readonly expansion: boolean;
  /** Powers are multiples of one over this. */
  readonly powerSteps: number;
  /** Type of the scale, power and centre of each group. */
  readonly statistics: "f32" | "bf16";
}

/** What is kept of each group of a state. */
interface Statistics {
  readonly scale: Node;
  /** Absent without expansion. */
  readonly expansion?: { readonly power: Node; readonly centre: Node };
}

/**
 * Codes of E4M3, u8, and for each group a scale s, a power k and a centre c: a value is sign(q) |q s|^(1/k) c. All are 0
 * before the first step, which means zeros whatever the power.
 */
export class Float8States extends Groups implements CodedStates {
  constructor(
    shape: Shape,
    readonly settings: Float8Settings,
  ) {
    super(shape, float8Group);
  }

  specs({ name }: RuleState): StateSpec[] {
    const { expansion, statistics } = this.settings;
    const parts = ["scale", ...(expansion ? ["power", "centre"] : [])];
    return [
      { name, shape: [this.count], dtype: "u8", initial: 0 },
      ...parts.map((part): StateSpec => ({
        name: `${name}_${part}`,
        shape: [this.groups],
        dtype: statistics,
        initial: 0,
      })),
    ];
  }

  decode({ name }: RuleState, states: Readonly<Record<string, Node>>): Node {
    const statistic = (part: string): Node => {
      const node = this.stored(states, `${name}_${part}`);
      if (node.shape[0] !== this.groups) throw groupsError(name, node.shape, this);
      return this.spread(cast(node, "f32"));
    };
    const codes = cast(this.stored(states, name), "i32");
    if (!this.settings.expansion) return multiply(fromFloat8("e4m3", this.of(codes)), statistic("scale"));
    // |q s|^(1/k) c by way of logarithms; what is the same for a group is written for each element and made once.
    const magnitude = this.of(and(codes, word(codes, magnitudeBits)));
    const inverse = divide(1, statistic("power"));
    const offset = add(multiply(log(statistic("scale")), inverse), log(statistic("centre")));
    const size = exp(maximum(leastExponent, add(multiply(logarithmOf(magnitude), inverse), offset)));
    const isNegative = less(word(magnitude, magnitudeBits), this.of(codes));
    return select(equal(magnitude, 0), 0, select(isNegative, negate(size), size));
  }

  encode({ name }: RuleState, computed: Node): Record<string, Node> {
    const values = this.inMemory(computed);
    const sizes = absolute(values);
    const { scale, expansion } = this.statistics(sizes);
    const scaled =
      expansion === undefined ? divide(sizes, this.spread(scale)) : this.stretched(sizes, scale, expansion);
    const codes = toFloat8("e4m3", select(less(values, 0), negate(scaled), scaled));
    const kept = (part: string, value: Node): [string, Node] => [
      `${name}_${part}`,
      reshape(cast(value, this.settings.statistics), [this.groups]),
    ];
    return {
      // Zeros have no logarithm, and the scale of a group of zeros is 0.
      [name]: this.back(cast(select(equal(values, 0), 0, codes), "u8"), [this.count]),
      ...Object.fromEntries([
        kept("scale", scale),
        ...(expansion === undefined ? [] : [kept("power", expansion.power), kept("centre", expansion.centre)]),
      ]),
    };
  }

  /** (x / c)^k / s by way of logarithms. */
  private stretched(sizes: Node, scale: Node, { power, centre }: NonNullable<Statistics["expansion"]>): Node {
    const shifted = subtract(log(sizes), log(this.spread(centre)));
    const exponent = subtract(multiply(shifted, this.spread(power)), log(this.spread(scale)));
    // Far below the smallest code all is 0, and numbers that f32 holds with fewer bits are slow.
    return exp(maximum(leastExponent, exponent));
  }

  /** s, k and c [groups, 1] of magnitudes [groups, size], as they are stored: a group of zeros has s = 0 and k = c = 1. */
  private statistics(sizes: Node): Statistics {
    const largest = reduceMaximum(sizes, [1]);
    const isEmpty = equal(largest, 0);
    const rounded = (value: Node): Node => cast(cast(value, this.settings.statistics), "f32");
    const scaleOf = (most: Node): Node => rounded(select(isEmpty, 0, divide(most, e4m3.largest)));
    if (!this.settings.expansion) return { scale: scaleOf(largest) };
    const smallest = negate(reduceMaximum(select(equal(sizes, 0), -huge, negate(sizes)), [1]));
    const [high, low] = [add(largest, tiny), add(smallest, tiny)];
    const { powerSteps } = this.settings;
    const whole = divide(floor(divide(span * powerSteps, subtract(log(high), log(low)))), powerSteps);
    const power = select(isEmpty, 1, minimum(powers.most, maximum(powers.least, whole)));
    const centre = rounded(select(isEmpty, 1, multiply(sqrt(high), sqrt(low))));
    const scale = scaleOf(exp(multiply(subtract(log(high), log(centre)), power)));
    return { scale, expansion: { power: rounded(power), centre } };
  }
}

function groupsError(name: string, shape: Shape, { groups, count }: Groups): ThimbleError {
  return new ThimbleError("optimizer-state-groups", "A state in FP8 does not fit its parameter", {
    where: name,
    given: `statistics of [${shape.join(", ")}] groups`,
    expected: `${groups} groups of ${float8Group} for ${count} elements`,
    fix: "Start the optimizer anew, or resume a run whose states were kept in the same way.",
  });
}
