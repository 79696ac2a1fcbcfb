import { readdirSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { gradients } from "../autodiff/gradients.js";
import type { Node } from "../ir/node.js";
import { Graph, reachable } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import type { Shape } from "../ir/shape.js";
import { elements } from "../ir/shape.js";
import type { Tensor } from "../ir/tensor.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import * as math from "./arithmetic.js";
import { attention } from "./attention.js";
import { linearCrossEntropy } from "./cross-entropy.js";
import { dot } from "./dot.js";
import { erf } from "./erf.js";
import { gatherColumns } from "./columns.js";
import { cumulativeSum } from "./cumulative-sum.js";
import { gather, scatterAdd, scatterMaximum, scatterWrite } from "./gather.js";
import { savedAs, savedRows } from "./saved.js";
import { sampledDot, sparseDot } from "./sparse.js";
import { symmetricEigen } from "./symmetric-eigen.js";
import { topK } from "./top-k.js";
import * as layout from "./layout.js";
import { leaf } from "./leaves.js";
import { detach, reduceMaximum } from "./reduce.js";

/** A float input drawn between two bounds, by which the gradient is taken; or values given, by which it is not. */
type Input =
  | { readonly shape: Shape; readonly from?: number; readonly to?: number }
  | { readonly given: readonly number[]; readonly shape?: Shape; readonly dtype: "i32" | "f32" };

const integers = (given: readonly number[], shape: Shape = [given.length]): Input => ({ given, shape, dtype: "i32" });

interface Case {
  readonly op: string;
  readonly name?: string;
  readonly inputs: readonly Input[];
  readonly build: (...inputs: Node[]) => Node;
}

const grid: Input = { shape: [3, 4] };
const positive: Input = { shape: [3, 4], from: 0.4, to: 2 };
const unary = (op: string, build: (x: Node) => Node, input = grid): Case => ({ op, inputs: [input], build });
const binary = (op: string, build: (a: Node, b: Node) => Node, second = grid): Case => ({
  op,
  inputs: [grid, second],
  build,
});

const product = (name: string, a: Shape, b: Shape, transposeA: boolean, transposeB: boolean): Case => ({
  op: "dot",
  name,
  inputs: [{ shape: a }, { shape: b }],
  build: (x, y) => dot(x, y, { transposeA, transposeB }),
});

type Options = Parameters<typeof attention>[3];
const attend = (
  name: string,
  queries: number,
  extra: readonly Input[],
  options: (...extra: Node[]) => Options,
): Case => ({
  op: "attention",
  name,
  inputs: [{ shape: [2, queries, 2, 2] }, { shape: [2, 5, 1, 2] }, { shape: [2, 5, 1, 2] }, ...extra],
  build: (q, k, v, ...rest) => attention(q, k, v, options(...rest)),
});

const segments = integers([0, 0, 1, 1, 1, 0, 0, 0, -1, -1], [2, 5]);
const scale = 0.6;

const cases: readonly Case[] = [
  binary("add", math.add),
  binary("subtract", math.subtract),
  binary("multiply", math.multiply),
  binary("divide", math.divide, positive),
  binary("minimum", math.minimum),
  binary("maximum", math.maximum),
  unary("negate", math.negate),
  unary("absolute", math.absolute),
  unary("sqrt", math.sqrt, positive),
  unary("exp", math.exp),
  unary("log", math.log, positive),
  unary("sin", math.sin),
  unary("cos", math.cos),
  unary("tanh", math.tanh),
  unary("sigmoid", math.sigmoid),
  unary("erf", erf),
  unary("floor", math.floor),
  { op: "select", inputs: [grid, grid, grid], build: (a, b, c) => math.select(math.less(a, b), b, c) },
  { op: "cast", inputs: [grid], build: (x) => math.cast(math.cast(x, "bf16"), "f32") },
  unary("reshape", (x) => layout.reshape(x, [2, 6])),
  unary("permute", (x) => layout.permute(x, [2, 0, 1]), { shape: [2, 3, 4] }),
  unary("expand", (x) => layout.expand(x, [2, 3, 4]), { shape: [3, 1] }),
  unary("slice", (x) => layout.slice(x, [1, 0], [2, 3])),
  unary("pad", (x) => layout.pad(x, [1, 0], [0, 2])),
  unary("flip", (x) => layout.flip(x, 1)),
  unary("reduceSum", (x) => layout.reduceSum(x, [0, 2]), { shape: [2, 3, 4] }),
  unary("reduceMaximum", (x) => reduceMaximum(x, [1])),
  product("A B", [3, 4], [4, 2], false, false),
  product("A Bᵀ", [3, 4], [2, 4], false, true),
  product("Aᵀ B", [4, 3], [4, 2], true, false),
  product("Aᵀ Bᵀ", [4, 3], [2, 4], true, true),
  product("stacks, A B", [2, 3, 4], [2, 4, 2], false, false),
  product("stacks, A Bᵀ", [2, 3, 4], [2, 2, 4], false, true),
  product("stacks, Aᵀ B", [2, 4, 3], [2, 4, 2], true, false),
  product("stacks, Aᵀ Bᵀ", [2, 4, 3], [2, 2, 4], true, true),
  { op: "gather", inputs: [grid, integers([2, 0, 2, 7, -1])], build: gather },
  {
    op: "customGradient",
    name: "of columns",
    inputs: [grid, integers([3, 0]), integers([1, 2, 2, 0])],
    build: gatherColumns,
  },
  unary("cumulativeSum", cumulativeSum),
  unary("savedAs", (x) => math.exp(savedAs(math.sin(x), math.sin(math.multiply(x, 1)), []))),
  ...[false, true].map((transposeB) => ({
    op: "savedRows",
    name: `all rows in another order, ${transposeB ? "A Bᵀ" : "A B"}`,
    inputs: [grid, { shape: transposeB ? [2, 4] : [4, 2] }, integers([2, 0, 1])],
    build: (x: Node, w: Node, ids: Node) => dot(savedRows(x, gather(x, ids), ids), w, { transposeB }),
  })),
  ...[false, true].map((transpose) => ({
    op: "sparseDot",
    name: transpose ? "x S" : "x Sᵀ",
    inputs: [{ shape: [3, transpose ? 2 : 4] }, integers([6, 1, 3]), { shape: [3] }],
    build: (x: Node, places: Node, values: Node) => sparseDot(x, places, values, { rows: 2, columns: 4, transpose }),
  })),
  {
    op: "sparseDot",
    name: "of which all rows are kept in another order",
    inputs: [grid, integers([6, 1, 3]), { shape: [3] }, integers([2, 0, 1])],
    build: (x, places, values, ids) =>
      sparseDot(savedRows(x, gather(x, ids), ids), places, values, { rows: 2, columns: 4 }),
  },
  { op: "sampledDot", inputs: [{ shape: [3, 2] }, grid, integers([6, 1, 3])], build: sampledDot },
  { op: "scatterAdd", inputs: [grid, integers([2, 0, 2, 7]), { shape: [4, 4] }], build: scatterAdd },
  ...(["largest", "smallest", "magnitude"] as const).map((by) => ({
    op: "topK",
    name: by,
    inputs: [grid],
    build: (x: Node) =>
      topK(x, { count: 2, by, order: by === "smallest" ? ("index" as const) : ("rank" as const) }).values,
  })),
  attend("causal", 5, [], () => ({ scale })),
  attend("all keys visible", 5, [], () => ({ scale, causal: false })),
  attend("sliding window", 5, [], () => ({ scale, window: 2 })),
  attend("packed records and padding", 5, [segments], (ids) => ({ scale, segments: ids })),
  attend("packed records in a window", 5, [segments], (ids) => ({ scale, window: 2, segments: ids })),
  attend("queries from a cache's end", 2, [integers([3], [])], (offset) => ({ scale, offset })),
  attend("a window on a cache", 2, [integers([2], [])], (offset) => ({ scale, window: 2, offset })),
  {
    // Weights of both signs; a row of weight 0 and two with labels outside the vocabulary count for nothing.
    op: "linearCrossEntropy",
    inputs: [
      { shape: [6, 3] },
      { shape: [7, 3] },
      integers([0, 6, 3, -1, 7, 3]),
      { given: [1, -0.7, 0, 1, 1, 0.4], dtype: "f32" },
    ],
    build: linearCrossEntropy,
  },
];

/** Ops that no gradient passes, and why. */
const constants: Readonly<Record<string, string>> = {
  leaf: "has no inputs",
  constant: "has no inputs",
  iota: "has no inputs",
  result: "handled by autodiff itself",
  less: "gives a bool",
  lessEqual: "gives a bool",
  equal: "gives a bool",
  and: "works on bits",
  or: "works on bits",
  xor: "works on bits",
  shiftLeft: "works on bits",
  shiftRight: "works on bits",
  multiplyHigh: "works on integers",
  bitcast: "works on bits",
  randomBits: "depends on a key and a place alone",
  lookup: "takes an index",
  matchPlaces: "gives an index",
  exchangeSlots: "gives an index",
  topOuter: "gives an index",
  normal: "works on bits",
  attentionBackward: "is a gradient itself; second derivatives are refused",
  linearCrossEntropyGradient: "is a gradient itself; second derivatives are refused",
  linearCrossEntropyWeightGradient: "is a gradient itself; second derivatives are refused",
};

/** Every op that a file of this folder exports. */
async function allOps(): Promise<OpDefinition[]> {
  const folder = fileURLToPath(new URL(".", import.meta.url));
  const files = readdirSync(folder).filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"));
  const modules = await Promise.all(
    files.map(async (name) => (await import(pathToFileURL(folder + name).href)) as Record<string, unknown>),
  );
  return modules.flatMap((module) => Object.values(module)).filter(isOp);
}

function isOp(value: unknown): value is OpDefinition {
  return typeof value === "object" && value !== null && "infer" in value && "lowering" in value;
}

/** Numbers in [0, 1) that are the same in every run. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

interface Built {
  readonly output: Node;
  readonly loss: Node;
  readonly drawn: readonly Node[];
  readonly bindings: Map<Node, Tensor>;
}

/** The case's output times fixed numbers, summed: a scalar whose gradients depend on every element. */
function build(one: Case): Built {
  const graph = new Graph();
  const random = randomNumbers(one.op.length * 7919 + one.inputs.length);
  const bindings = new Map<Node, Tensor>();
  const input = (name: string, shape: Shape, dtype: "f32" | "i32", values: Iterable<number>): Node => {
    const node = leaf(graph, { name, role: "input", shape, dtype });
    bindings.set(node, { shape, dtype, data: dtype === "i32" ? Int32Array.from(values) : Float64Array.from(values) });
    return node;
  };
  const draw = (shape: Shape, from: number, to: number): number[] =>
    Array.from({ length: elements(shape) }, () => from + (to - from) * random());
  const nodes = one.inputs.map((spec, index) =>
    "given" in spec
      ? input(`x${index}`, spec.shape ?? [spec.given.length], spec.dtype, spec.given)
      : input(`x${index}`, spec.shape, "f32", draw(spec.shape, spec.from ?? -1.5, spec.to ?? 1.5)),
  );
  const output = one.build(...nodes);
  const factors = input("factors", output.shape, "f32", draw(output.shape, -1, 1));
  const axes = output.shape.map((_, axis) => axis);
  const loss = layout.reshape(layout.reduceSum(math.multiply(output, factors), axes), []);
  const drawn = nodes.filter((_, index) => !("given" in one.inputs[index]!));
  return { output, loss, drawn, bindings };
}

function lossAt({ loss, bindings }: Built, node: Node, index: number, step: number): number {
  const value = bindings.get(node)!;
  const data = Float64Array.from(value.data);
  data[index] = data[index]! + step;
  return evaluate([loss], new Map([...bindings, [node, { ...value, data }]]), "f64")[0]!.data[0]!;
}

describe("gradients agree with finite differences in f64", () => {
  it.each(cases.map((one) => [`${one.op}${one.name === undefined ? "" : `: ${one.name}`}`, one] as const))(
    "%s",
    (_title, one) => {
      const built = build(one);
      expect(reachable([built.output]).some((node) => node.op.name === one.op)).toBe(true);
      const made = evaluate(gradients(built.loss, built.drawn), built.bindings, "f64");
      const step = 1e-5;
      built.drawn.forEach((node, position) => {
        const gradient = made[position]!;
        expect(gradient.shape).toEqual(node.shape);
        gradient.data.forEach((value, index) => {
          const difference = (lossAt(built, node, index, step) - lossAt(built, node, index, -step)) / (2 * step);
          expect(Math.abs(value - difference), `input ${position}, element ${index}`).toBeLessThan(1e-8);
        });
      });
    },
  );

  it("covers every op", async () => {
    const names = [...new Set((await allOps()).map((op) => op.name))].sort();
    const covered = new Set([
      ...cases.map(({ op }) => op),
      ...Object.keys(constants),
      "detach",
      "scatterWrite",
      "scatterMaximum",
      "symmetricEigen",
    ]);
    expect(names.length).toBeGreaterThan(40);
    expect(names.filter((name) => !covered.has(name))).toEqual([]);
    expect([...covered].filter((name) => !names.includes(name))).toEqual([]);
  });

  it("lists as constant only ops without a gradient rule", async () => {
    const ruled = (await allOps()).filter((op) => op.gradient !== undefined).map((op) => op.name);
    expect(ruled.filter((name) => name in constants)).toEqual([]);
  });
});

describe("where no gradient passes", () => {
  it("detach stops it", () => {
    const { loss, drawn, bindings } = build(unary("detach", (x) => math.add(math.multiply(detach(x), x), x)));
    const [gradient] = evaluate(gradients(loss, drawn), bindings, "f64");
    const [plain, x] = [[...bindings.values()].at(-1)!, bindings.get(drawn[0]!)!];
    gradient!.data.forEach((value, index) => {
      expect(value).toBeCloseTo(plain.data[index]! * (x.data[index]! + 1), 12);
    });
  });

  it.each([scatterWrite, scatterMaximum])("scatterWrite and scatterMaximum refuse gradients", (scatter) => {
    const inputs = [grid, integers([1]), { shape: [1, 4] }];
    const { loss, drawn } = build({ op: "scatter", inputs, build: scatter });
    expect(() => gradients(loss, drawn)).toThrow("no gradient rule");
  });

  it("symmetricEigen refuses gradients", () => {
    const { loss, drawn } = build({
      op: "symmetricEigen",
      inputs: [{ shape: [3, 3] }],
      build: (x) => symmetricEigen(x).values,
    });
    expect(() => gradients(loss, drawn)).toThrow(/symmetricEigen/);
  });

  it("linearCrossEntropy refuses gradients by its row weights", () => {
    const one: Case = {
      op: "linearCrossEntropy",
      inputs: [{ shape: [2, 3] }, { shape: [4, 3] }, integers([0, 1]), { shape: [2] }],
      build: linearCrossEntropy,
    };
    const { loss, drawn } = build(one);
    expect(() => gradients(loss, drawn)).toThrow("no gradient by row weights");
  });
});
