import { beforeAll, describe, expect, it } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import type { Node } from "../../ir/node.js";
import { Graph, reachable } from "../../ir/node.js";
import { add, cast, divide, exp, multiply, negate, sigmoid, sqrt, subtract } from "../../ops/arithmetic.js";
import { expand, pad, reduceSum, reshape, slice } from "../../ops/layout.js";
import { leaf, leafOp } from "../../ops/leaves.js";
import { randomBits, uniformFrom } from "../../ops/random.js";
import { reduceMaximum, reduceMean } from "../../ops/reduce.js";
import { evaluate } from "../interpret/evaluate.js";
import { bytesMoved, operations } from "../loops/cost.js";
import { inPlaceInputs } from "../loops/in-place.js";
import { lowerLoops } from "../loops/lower.js";
import type { LoopKernel } from "../loops/nest.js";
import { printLoopNest } from "../loops/print.js";
import { loopArguments, renderLoopsC } from "./loops.js";
import { bytesOfTensor, CompiledLoops, randomBindings, worstError } from "../../testing/c/loops.js";

type Builder = (input: (name: string, shape: number[], dtype?: Node["dtype"]) => Node) => readonly Node[];

/** A kernel over all leaves that the outputs depend on. */
function kernelOf(build: Builder): LoopKernel {
  const graph = new Graph();
  const outputs = build((name, shape, dtype = "f32") => leaf(graph, { name, role: "input", shape, dtype }));
  return { outputs, inputs: reachable(outputs).filter((node) => node.op === leafOp) };
}

function rmsNorm(x: Node, weight: Node): { y: Node; scale: Node } {
  const scale = divide(1, sqrt(add(reduceMean(multiply(x, x), [x.shape.length - 1]), 1e-5)));
  return { y: multiply(multiply(x, scale), weight), scale };
}

function layerNorm(x: Node, weight: Node, bias: Node): Node {
  const centred = subtract(x, reduceMean(x, [x.shape.length - 1]));
  const variance = reduceMean(multiply(centred, centred), [x.shape.length - 1]);
  return add(multiply(divide(centred, sqrt(add(variance, 1e-5))), weight), bias);
}

function softmax(x: Node): Node {
  const axis = x.shape.length - 1;
  const powers = exp(subtract(x, reduceMaximum(x, [axis])));
  return divide(powers, reduceSum(powers, [axis]));
}

/** Rotary position embedding of [batch, time, heads * width] by halves. */
function rotary(x: Node, cosine: Node, sine: Node, heads: number): Node {
  const [batch = 0, time = 0, all = 0] = x.shape;
  const width = all / heads;
  const half = width / 2;
  const split = reshape(x, [batch, time, heads, width]);
  const part = (start: number): Node => slice(split, [0, 0, 0, start], [batch, time, heads, half]);
  const [c, s] = [reshape(cosine, [1, time, 1, half]), reshape(sine, [1, time, 1, half])];
  const low = subtract(multiply(part(0), c), multiply(part(half), s));
  const high = add(multiply(part(half), c), multiply(part(0), s));
  const none = [0, 0, 0, 0];
  const joined = add(pad(low, none, [0, 0, 0, half]), pad(high, [0, 0, 0, half], none));
  return reshape(joined, [batch, time, all]);
}

function adamW(p: Node, g: Node, m: Node, v: Node, rate: Node): Node[] {
  const mean = add(multiply(m, 0.9), multiply(g, 0.1));
  const square = add(multiply(v, 0.99), multiply(multiply(g, g), 0.01));
  const step = divide(mean, add(sqrt(square), 1e-8));
  return [subtract(multiply(p, 0.999), multiply(step, rate)), mean, square];
}

function gradientOf(build: Builder, names: readonly string[]): Builder {
  return (input) => {
    const [y] = build(input) as [Node];
    const weight = input("upstream", [...y.shape]);
    const axes = y.shape.map((_, axis) => axis);
    const loss = reshape(reduceSum(multiply(cast(y, "f32"), weight), axes), []);
    const wanted = reachable([y]).filter((node) => names.includes(node.attributes["name"] as string));
    return gradients(loss, wanted);
  };
}

const builders: Readonly<Record<string, Builder>> = {
  "one element": (input) => [add(input("x", [1]), 1)],
  "scalar of a scalar": (input) => [multiply(input("x", []), 3)],
  "broadcast both ways": (input) => [add(input("a", [13, 1]), input("b", [1, 29]))],
  "broadcast in the middle": (input) => [multiply(input("a", [3, 1, 5]), input("b", [3, 4, 5]))],
  ...Object.fromEntries(
    [1, 15, 16, 17, 63, 64, 65, 1000].map((size): [string, Builder] => [
      `SwiGLU of ${size}`,
      (input) => {
        const gate = cast(input("gate", [3, size], "bf16"), "f32");
        return [cast(multiply(multiply(gate, sigmoid(gate)), cast(input("up", [3, size], "bf16"), "f32")), "bf16")];
      },
    ]),
  ),
  ...Object.fromEntries(
    [1, 15, 17, 64, 130, 1000].flatMap((size): [string, Builder][] => [
      [`RMSNorm of ${size}`, (input) => Object.values(rmsNorm(input("x", [5, size]), input("w", [size])))],
      [
        `LayerNorm of ${size}`,
        (input) => [layerNorm(input("x", [2, 4, size]), input("w", [size]), input("b", [size]))],
      ],
      [`softmax of ${size}`, (input) => [softmax(input("x", [7, size]))]],
      [`column sums of ${size}`, (input) => [reshape(reduceSum(input("x", [130, size]), [0]), [size])]],
    ]),
  ),
  "RMSNorm of bf16 in rank 3": (input) => {
    const x = cast(input("x", [2, 3, 100], "bf16"), "f32");
    return [cast(rmsNorm(x, input("w", [100])).y, "bf16")];
  },
  "RMSNorm of one row": (input) => [rmsNorm(input("x", [1, 700]), input("w", [700])).y],
  "RMSNorm of a long row": (input) => [rmsNorm(input("x", [1, 40000]), input("w", [40000])).y],
  "RMSNorm gradient by x": gradientOf((input) => [rmsNorm(input("x", [6, 70]), input("w", [70])).y], ["x"]),
  "RMSNorm gradient by weight": gradientOf((input) => [rmsNorm(input("x", [200, 70]), input("w", [70])).y], ["w"]),
  "LayerNorm gradient by x": gradientOf(
    (input) => [layerNorm(input("x", [6, 33]), input("w", [33]), input("b", [33]))],
    ["x"],
  ),
  "LayerNorm gradients by weight and bias": gradientOf(
    (input) => [layerNorm(input("x", [150, 33]), input("w", [33]), input("b", [33]))],
    ["w", "b"],
  ),
  "softmax gradient": gradientOf((input) => [softmax(input("x", [9, 50]))], ["x"]),
  "rotary embedding": (input) => [rotary(input("x", [2, 5, 96]), input("cos", [5, 16]), input("sin", [5, 16]), 3)],
  "rotary gradient": gradientOf(
    (input) => [rotary(input("x", [2, 5, 96]), input("cos", [5, 16]), input("sin", [5, 16]), 3)],
    ["x"],
  ),
  AdamW: (input) => {
    const shape = [37, 11];
    return adamW(input("p", shape), input("g", shape), input("m", shape), input("v", shape), input("rate", []));
  },
  "an output that feeds another": (input) => {
    const square = multiply(input("x", [50]), input("y", [50]));
    return [square, exp(square)];
  },
  "sum of all": (input) => [reshape(reduceSum(multiply(input("x", [300, 400]), input("y", [300, 400])), [0, 1]), [])],
  "sum of few": (input) => [reduceSum(input("x", [3, 5]), [0, 1])],
  "norm of all": (input) => {
    const x = input("x", [123457]);
    return [sqrt(reduceSum(multiply(x, x), [0]))];
  },
  "variance of all": (input) => {
    const x = input("x", [500, 300]);
    const mean = multiply(reduceSum(x, [0, 1]), 1 / 150000);
    const centred = subtract(x, expand(mean, [500, 300]));
    return [multiply(reduceSum(multiply(centred, centred), [0, 1]), 1 / 150000)];
  },
  "scaled by a sum of all": (input) => {
    const x = input("x", [1, 70000]);
    return [divide(x, add(reduceSum(multiply(x, x), [1]), 1))];
  },
  "few long rows": (input) => [reduceSum(input("x", [3, 70001]), [1])],
  "wide columns": (input) => [reduceSum(input("x", [70, 5000]), [0])],
  "few columns": (input) => [reduceSum(input("x", [5000, 3]), [0])],
  "columns with an epilogue": (input) => [
    add(input("before", [33]), reshape(cast(multiply(reduceSum(input("x", [100, 33]), [0]), 0.5), "f32"), [33])),
  ],
  "middle axis": (input) => [reduceSum(input("x", [4, 3, 50]), [1])],
  "long middle axis": (input) => [reduceSum(input("x", [4, 300, 50]), [1])],
  "outer and inner axis": (input) => [reduceSum(input("x", [40, 6, 50]), [0, 2])],
  "maximum of columns": (input) => [reduceMaximum(input("x", [100, 20]), [0])],
  "sum in bf16": (input) => [reduceSum(input("x", [9, 40], "bf16"), [1])],
  "sum of integers": (input) => [reduceSum(input("x", [9, 40], "i32"), [1])],
  "maximum of unsigned integers": (input) => [reduceMaximum(input("x", [9, 40], "u32"), [1])],
  "sum of row sums": (input) => {
    const x = input("x", [40, 50]);
    return [reduceSum(sqrt(reduceSum(multiply(x, x), [1])), [0])];
  },
  "random numbers": (input) => {
    const [low, high, step] = [input("low", [], "u32"), input("high", [], "u32"), input("step", [], "u32")];
    const bits = randomBits({ low, high }, 3, step, [11, 13]);
    return [bits, negate(uniformFrom(bits))];
  },
};

/** Sums are made in f32 lanes; the interpreter adds in f64. */
const tolerance = 3e-6;

describe("generated loops", () => {
  const names = Object.keys(builders);
  const kernels = names.map((name) => kernelOf(builders[name]!));
  let compiled: CompiledLoops;

  beforeAll(() => {
    compiled = new CompiledLoops(kernels);
  });

  it.each(names.map((name, index) => [name, index] as const))("%s", (name, index) => {
    const kernel = kernels[index]!;
    const bindings = randomBindings(kernel.inputs, index);
    const expected = evaluate(kernel.outputs, bindings);
    const actual = compiled.evaluate(index, bindings);
    const bound = name.includes("bf16") || name.includes("SwiGLU") ? 2 ** -8 : tolerance;
    expected.forEach((tensor, place) => {
      expect(worstError(actual[place]!, tensor)).toBeLessThanOrEqual(bound);
    });
  });

  it("overwrites inputs where that is allowed", () => {
    const expected: Readonly<Record<string, number[][]>> = {
      AdamW: [
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [0, 1, 2, 3],
      ],
      "RMSNorm of 130": [[0], []],
      "softmax of 1000": [[0]],
      "rotary embedding": [[0]],
      "RMSNorm of a long row": [[0, 1]],
      "column sums of 17": [[]],
      "broadcast both ways": [[]],
    };
    for (const [name, allowed] of Object.entries(expected)) {
      const index = names.indexOf(name);
      const { outputs, inputs } = kernels[index]!;
      const found = inPlaceInputs(compiled.nests[index]!);
      expect(found.map((places) => places.map((place) => inputs[place]!.attributes["name"]))).toEqual(
        allowed.map((places) => places.map((place) => inputs[place]!.attributes["name"])),
      );
      const bytes = inputs.map((node) => bytesOfTensor(randomBindings(inputs).get(node)!));
      const apart = compiled.run(index, bytes, { threads: 2 });
      // Each output takes a different input.
      const overwrite = outputs.map((_, place) => found[place]![place % Math.max(1, found[place]!.length)]);
      const together = compiled.run(index, bytes, { threads: 2, overwrite });
      expect(together.outputs).toEqual(apart.outputs);
    }
  });
});

describe("kernels of generated loops", () => {
  const sized = (rows: number, width: number): LoopKernel =>
    kernelOf((input) => [rmsNorm(input("x", [rows, width]), input("w", [width])).y]);

  it("are the same for other sizes", () => {
    // The reciprocal of the width is a number of the graph, so only the number of rows is free here.
    const [a, b] = [lowerLoops(sized(5, 64)), lowerLoops(sized(700, 64))];
    expect(renderLoopsC(a)).toMatchObject({ name: renderLoopsC(b).name, source: renderLoopsC(b).source });
    expect(loopArguments(a).sizes).not.toEqual(loopArguments(b).sizes);
    const gate = (size: number): LoopKernel => kernelOf((input) => [multiply(sigmoid(input("x", [size])), 2)]);
    expect(renderLoopsC(lowerLoops(gate(5))).name).toBe(renderLoopsC(lowerLoops(gate(70))).name);
  });

  it("are described and estimated", () => {
    const nest = lowerLoops(sized(4, 32));
    expect(bytesMoved(nest)).toBe(4 * (4 * 32 + 32 + 4 * 32));
    // x x, its sum, x scale and times w for each element; mean, epsilon, root and reciprocal for each row.
    expect(operations(nest)).toBe(4 * 32 * 4 + 4 * 4);
    expect(printLoopNest(nest)).toMatchInlineSnapshot(`
      "in0: f32[4, 32]
      in1: f32[32]
      out0: f32[4, 32]
      all threads, by a0 < 4:
        lanes k1.32.0 < 32:
          v0 = in0[32*a0+k1.32.0]
          v1 = multiply(v0, v0)
          v2 add= v1
        v3 = multiply(v2, 0.03125)
        v4 = add(v3, 0.00001)
        v5 = sqrt(v4)
        v6 = divide(1, v5)
        lanes a1 < 32:
          v7 = in0[32*a0+a1]
          v8 = multiply(v7, v6)
          v9 = in1[a1]
          v10 = multiply(v8, v9)
          out0[32*a0+a1] = v10 as f32"
    `);
  });

  it("refuse what they cannot do", () => {
    const graph = new Graph();
    const x = leaf(graph, { name: "x", role: "input", shape: [4, 6], dtype: "f32" });
    const transposed = reduceSum(x, [0]);
    expect(() => lowerLoops({ outputs: [add(x, 1), transposed], inputs: [x] })).toThrow(/outputs/);
    const wide = leaf(graph, { name: "wide", role: "input", shape: [4], dtype: "f64" });
    expect(() => lowerLoops({ outputs: [add(wide, wide)], inputs: [wide] })).toThrow(/f64/);
  });
});
