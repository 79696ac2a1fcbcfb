import { describe, expect, it } from "vitest";
import type { Node } from "../../ir/node.js";
import { Graph } from "../../ir/node.js";
import { elements } from "../../ir/shape.js";
import { add, cast, exp, maximum, multiply, negate, select, less, subtract, tanh } from "../../ops/arithmetic.js";
import { expand, flip, pad, permute, reduceSum, reshape, slice } from "../../ops/layout.js";
import { iota, leaf } from "../../ops/leaves.js";
import { reduceMaximum } from "../../ops/reduce.js";
import { evaluate } from "../interpret/evaluate.js";
import type { LoopKernel } from "../loops/nest.js";
import { CompiledLoops, noise, randomBindings, worstError } from "../../testing/c/loops.js";

/** Decisions from a fixed sequence. */
class Choices {
  readonly #values: number[];
  #place = 0;

  constructor(seed: number) {
    this.#values = noise(4096, seed);
  }

  below(count: number): number {
    const value = this.#values[this.#place++ % this.#values.length]!;
    return Math.min(count - 1, Math.floor(((value + 1) / 2) * count));
  }

  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

const extents = [1, 2, 3, 4, 8, 17, 32];

/** A random expression of f32 nodes of rank 1 to 3, over leaves that it makes as it goes. */
class Expressions {
  readonly inputs: Node[] = [];

  constructor(
    readonly graph: Graph,
    readonly choices: Choices,
  ) {}

  build(shape: readonly number[], depth: number): Node {
    if (depth === 0) return this.#leaf(shape);
    const inner = (own: readonly number[] = shape): Node => this.build(own, depth - 1);
    const axis = this.choices.below(shape.length);
    switch (this.choices.below(12)) {
      case 0:
        return add(inner(), inner());
      case 1:
        return multiply(inner(), this.build(shape, this.choices.below(depth)));
      case 2:
        return this.choices.of([tanh, negate, (x: Node) => exp(negate(multiply(x, x)))])(inner());
      case 3:
        return maximum(subtract(inner(), 0.1), this.#leaf(shape));
      case 4:
        return select(less(cast(iota(this.graph, shape, axis), "f32"), inner()), inner(), -1);
      case 5: {
        const order = shape.map((_, place) => place).sort(() => this.choices.below(3) - 1);
        return permute(inner(order.map((_, place) => shape[order.indexOf(place)]!)), order);
      }
      case 6:
        return expand(inner(shape.map((size, place) => (place === axis ? 1 : size))), shape);
      case 7:
        return flip(inner(), axis);
      case 8:
        return slice(
          inner(shape.map((size, place) => (place === axis ? size + 3 : size))),
          shape.map((_, place) => (place === axis ? 2 : 0)),
          shape,
        );
      case 9: {
        const before = this.choices.below(shape[axis]!);
        const own = shape.map((size, place) => (place === axis ? Math.max(1, size - before - 1) : size));
        const after = shape[axis]! - before - own[axis]!;
        if (after < 0) return inner();
        const at = (value: number): number[] => shape.map((_, place) => (place === axis ? value : 0));
        return pad(inner(own), at(before), at(after));
      }
      case 10:
        return reshape(inner(this.#otherShape(shape)), shape);
      default:
        return cast(cast(inner(), this.choices.of(["bf16", "f16"] as const)), "f32");
    }
  }

  #otherShape(shape: readonly number[]): readonly number[] {
    const count = elements(shape);
    const divisors = [2, 4, 8, 3].filter((size) => count % size === 0);
    if (divisors.length === 0) return [count];
    const size = this.choices.of(divisors);
    return this.choices.of([[size, count / size], [count / size, size], [count]]);
  }

  #leaf(shape: readonly number[]): Node {
    const same = this.inputs.filter((input) => input.shape.join() === shape.join() && input.dtype === "f32");
    if (same.length > 0 && this.choices.below(2) === 0) return this.choices.of(same);
    const dtype = this.choices.of(["f32", "f32", "bf16"] as const);
    const made = leaf(this.graph, { name: `x${this.inputs.length}`, role: "input", shape, dtype });
    this.inputs.push(made);
    return cast(made, "f32");
  }
}

function randomKernel(seed: number): LoopKernel {
  const choices = new Choices(seed);
  const expressions = new Expressions(new Graph(), choices);
  const rank = 1 + choices.below(3);
  const shape = Array.from({ length: rank }, () => choices.of(extents));
  const value = expressions.build(shape, 1 + choices.below(4));
  const outputs = outputsOf(value, choices.below(5));
  return { outputs, inputs: expressions.inputs };
}

/** The value itself, with row statistics used and stored, its column sums, or its whole sum. */
function outputsOf(value: Node, kind: number): readonly Node[] {
  const last = value.shape.length - 1;
  const sum = (axes: readonly number[]): Node => reduceSum(value, axes);
  if (kind === 0) return [multiply(value, 2), cast(value, "bf16")];
  if (kind === 1) return [subtract(value, reduceMaximum(value, [last])), multiply(sum([last]), 0.125)];
  if (kind === 2) return [sum([0])];
  if (kind === 3) return [sum(value.shape.map((_, axis) => axis))];
  return [value];
}

describe("random expressions in generated loops", () => {
  const seeds = Array.from({ length: 100 }, (_, seed) => seed + 1);

  it("give what the interpreter gives", () => {
    const kernels = seeds.map(randomKernel);
    const compiled = new CompiledLoops(kernels, ["-march=native", "-O1"]);
    const wrong = seeds.filter((seed, index) => {
      const { inputs, outputs } = kernels[index]!;
      const bindings = randomBindings(inputs, seed);
      const expected = evaluate(outputs, bindings);
      const actual = compiled.evaluate(index, bindings);
      // A value that is rounded to 16 bits may fall on the other side of a boundary.
      return expected.some((value, place) => worstError(actual[place]!, value) > 2 ** -7);
    });
    expect(wrong).toEqual([]);
  });
});
