import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import { Graph } from "../ir/node.js";
import type { Node } from "../ir/node.js";
import { nodesOf } from "../ir/program.js";
import type { Program } from "../ir/program.js";
import type { Tensor } from "../ir/tensor.js";
import { tensor } from "../ir/tensor.js";
import { add, multiply, tanh } from "../ops/arithmetic.js";
import { dot } from "../ops/dot.js";
import { reduceSum, reshape } from "../ops/layout.js";
import { leaf } from "../ops/leaves.js";
import { dropReversible } from "../passes/custom-gradients.js";
import { compileProgram } from "../passes/pipeline.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { largestDifference } from "../testing/method-bench.js";
import { relativeDifference, sequence } from "../testing/tiny.js";
import { gradients, pullback } from "./gradients.js";
import type { ReversibleLayer, Streams } from "./reversible.js";
import { coupledStreams, inverted, reversible } from "./reversible.js";
import { packBits, unpackBits } from "./streams.js";

const rows = 5;
const width = 6;

interface NetOptions {
  readonly depth: number;
  readonly factors: readonly [number, number];
  readonly swap?: boolean;
  readonly kept?: boolean;
  readonly fraction?: number;
  readonly tied?: boolean;
}

/** A two-stream network of tanh layers over leaves with random values, and a scalar of its end. */
class Net {
  readonly graph = new Graph();
  readonly values = new Map<Node, Tensor>();
  readonly start: Streams;
  readonly end: Streams;
  readonly weights: Node[] = [];
  readonly loss: Node;
  readonly #next = sequence(3);

  constructor({ depth, factors, swap = false, kept = false, fraction, tied = false }: NetOptions) {
    const first = this.leaf("x1", [rows, width]);
    this.start = [first, tied ? first : this.leaf("x2", [rows, width])];
    const layers = Array.from({ length: depth }, (_, index): ReversibleLayer => {
      const [a, b] = [this.weight(`a${index}`), this.weight(`b${index}`)];
      return { first: (x) => tanh(dot(x, a)), second: (x) => add(tanh(dot(x, b)), multiply(x, 0.1)), factors, swap };
    });
    this.end = kept
      ? layers.reduce<Streams>((streams, layer) => coupledStreams(layer, streams), this.start)
      : reversible(layers, this.start, { fraction });
    const probe = this.leaf("probe", [rows, width]);
    this.loss = reshape(reduceSum(multiply(add(this.end[0], multiply(this.end[1], 0.5)), probe), [0, 1]), []);
  }

  weight(name: string): Node {
    const node = this.leaf(name, [width, width]);
    this.weights.push(node);
    return node;
  }

  leaf(name: string, shape: readonly number[]): Node {
    const node = leaf(this.graph, { name, role: "weight", shape, dtype: "f32" });
    const count = shape.reduce((a, b) => a * b, 1);
    this.values.set(
      node,
      tensor(
        shape,
        Float64Array.from({ length: count }, () => this.#next() * 2),
      ),
    );
    return node;
  }

  /** Values of nodes of this graph. */
  run(nodes: readonly Node[], precision: "exact" | "f64"): number[][] {
    return evaluate(nodes, this.values, precision).map(({ data }) => [...data]);
  }

  gradients(precision: "exact" | "f64"): number[][] {
    return this.run(gradients(this.loss, [...this.weights, ...new Set(this.start)]), precision);
  }
}

const flat = (lists: readonly (readonly number[])[]): number[] => lists.flat();

describe("reversible layers", () => {
  const settings: readonly NetOptions[] = [
    { depth: 1, factors: [1, 1] },
    { depth: 4, factors: [1, 1] },
    { depth: 4, factors: [0.5, 0.8], swap: true },
    { depth: 3, factors: [0.1, 1], swap: true, tied: true },
    { depth: 2, factors: [-0.7, 0.3], tied: true },
  ];

  test.each(settings)("have the values and gradients of the plain form: %o", (options) => {
    const [plain, made] = [new Net({ ...options, kept: true }), new Net(options)];
    expect(made.run(made.end, "exact")).toEqual(plain.run(plain.end, "exact"));
    expect(relativeDifference(flat(made.gradients("f64")), flat(plain.gradients("f64")))).toBeLessThan(1e-9);
  });

  test("invert six layers in f64", () => {
    const net = new Net({ depth: 6, factors: [1, 1], swap: true });
    const [back, start] = [net.run(inverted(net.end), "f64"), net.run(net.start, "f64")];
    expect(largestDifference(flat(back), flat(start))).toBeLessThan(1e-10);
  });

  test("lose digits in f32 by their factors", () => {
    const lost = (depth: number): number => {
      const net = new Net({ depth, factors: [0.1, 1], swap: true });
      return relativeDifference(flat(net.run(inverted(net.end), "exact")), flat(net.run(net.start, "exact")));
    };
    expect(lost(3)).toBeLessThan(1e-3);
    expect(lost(8)).toBeGreaterThan(10 * lost(3));
  });

  test("keep nothing of the forward pass but their ends", () => {
    const net = new Net({ depth: 3, factors: [0.5, 0.5] });
    const made = gradients(net.loss, net.weights);
    const outputs = Object.fromEntries(made.map((node, index) => [`g${index}`, node]));
    const program: Program = {
      name: "train",
      graph: net.graph,
      phases: [{ assignments: [], outputs: { loss: net.loss, ...outputs } }],
      loss: net.loss,
      gradients: made,
    };
    const { schedule } = compileProgram(program, { saved: "all" });
    const forward = schedule.steps
      .filter((step) => step.forward)
      .flatMap(({ writes }) => writes.map(({ node }) => node));
    const read = new Set(
      schedule.steps.filter((step) => !step.forward).flatMap(({ reads }) => reads.map(({ node }) => node)),
    );
    expect(forward.length).toBeGreaterThan(6);
    expect(forward.filter((node) => read.has(node))).toHaveLength(2);
    expect(nodesOf(dropReversible(program)).some(({ op }) => op.name === "reversible")).toBe(false);
  });

  test("refuse factors that cannot be undone", () => {
    expect(() => new Net({ depth: 1, factors: [0, 1] })).toThrow(/cannot be undone/);
    expect(() => new Net({ depth: 1, factors: [0.1, 1], fraction: 16 })).toThrow(/cannot be undone/);
  });
});

describe("streams in fixed point", () => {
  const options: NetOptions = { depth: 12, factors: [0.125, 0.25], swap: true, fraction: 20 };

  test("are inverted without loss", () => {
    const net = new Net(options);
    const read = (nodes: readonly Node[]): number[] => flat(net.run(nodes, "exact"));
    const rounded = read(net.start).map((value) => Math.floor(value * 2 ** 20 + 0.5) / 2 ** 20);
    expect(read(inverted(net.end))).toEqual(rounded);
  });

  test("have nearly the values and gradients of f32", () => {
    const [plain, made] = [new Net({ ...options, kept: true }), new Net(options)];
    expect(relativeDifference(flat(made.run(made.end, "exact")), flat(plain.run(plain.end, "exact")))).toBeLessThan(
      1e-4,
    );
    expect(relativeDifference(flat(made.gradients("exact")), flat(plain.gradients("exact")))).toBeLessThan(1e-4);
  });

  test.each([1, 3, 4, 16])("pack %i bits an element", (bits) => {
    const graph = new Graph();
    const x = leaf(graph, { name: "x", role: "input", shape: [3, 23], dtype: "u32" });
    const next = sequence(bits);
    const values = Uint32Array.from({ length: 69 }, () => (next() + 0.5) * 2 ** 32);
    const packed = packBits(x, bits);
    expect(packed.shape).toEqual([3, 1, bits]);
    const [result] = evaluate(
      [unpackBits(packed, x, bits)],
      new Map([[x, { shape: [3, 23], dtype: "u32", data: values }]]),
    );
    expect([...must(result, "bits").data]).toEqual([...values].map((value) => value % 2 ** bits));
  });
});

test("a pullback stops at what is wanted", () => {
  const graph = new Graph();
  const x = leaf(graph, { name: "x", role: "weight", shape: [2], dtype: "f32" });
  const unrelated = leaf(graph, { name: "u", role: "weight", shape: [2], dtype: "f32" });
  const inner = tanh(x);
  const seed = leaf(graph, { name: "seed", role: "input", shape: [2], dtype: "f32" });
  const [byInner, byX, byUnrelated] = pullback(multiply(inner, inner), seed, [inner, x, unrelated]);
  const bound = new Map([
    [x, tensor([2], [0.3, -1])],
    [seed, tensor([2], [1, 2])],
  ]);
  const [got] = evaluate([must(byInner, "gradient")], bound, "f64");
  [2 * Math.tanh(Math.fround(0.3)), 4 * Math.tanh(-1)].forEach((value, place) => {
    expect(got!.data[place]).toBeCloseTo(value, 6);
  });
  expect([byX, byUnrelated]).toEqual([undefined, undefined]);
});
