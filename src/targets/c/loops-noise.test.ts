import { describe, expect, test } from "vitest";
import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { Graph } from "../../ir/node.js";
import { tensor } from "../../ir/tensor.js";
import { add, cast, multiply } from "../../ops/arithmetic.js";
import { gather } from "../../ops/gather.js";
import { expand, flip, permute, reshape, slice } from "../../ops/layout.js";
import { leaf } from "../../ops/leaves.js";
import { normalFrom } from "../../ops/normal.js";
import { randomBits } from "../../ops/random.js";
import { bytesOfTensor, CompiledLoops } from "../../testing/c/loops.js";
import { evaluate } from "../interpret/evaluate.js";
import type { LoopKernel } from "../loops/nest.js";

const scalars = ["low", "high", "step", "stream"];
const words = [0x9abcdef0, 0x1234567, 41, 7];

interface Case {
  readonly title: string;
  readonly build: (bits: (shape: readonly number[], use?: number) => Node, graph: Graph) => Node;
  readonly ids?: readonly number[];
}

const cases: readonly Case[] = [
  { title: "rows of whole blocks", build: (bits) => bits([5, 128]) },
  { title: "rows of odd width", build: (bits) => bits([9, 37]) },
  { title: "rows of 16", build: (bits) => bits([3, 48]) },
  { title: "one vector and a rest", build: (bits) => bits([23]) },
  { title: "a single element", build: (bits) => bits([1, 1]) },
  { title: "normals", build: (bits) => normalFrom(bits([11, 100])) },
  { title: "two draws of one stream", build: (bits) => add(bits([6, 65], 1), bits([6, 65], 2)) },
  { title: "turned", build: (bits) => permute(bits([33, 20]), [1, 0]) },
  { title: "backwards", build: (bits) => flip(bits([4, 50]), 1) },
  { title: "a part", build: (bits) => slice(bits([20, 70]), [3, 5], [11, 40]) },
  { title: "reshaped", build: (bits) => reshape(bits([12, 35]), [3, 140]) },
  { title: "repeated", build: (bits) => expand(bits([1, 90]), [7, 90]) },
  {
    title: "gathered rows",
    build: (bits, graph) =>
      gather(normalFrom(bits([40, 80])), leaf(graph, { name: "ids", role: "input", shape: [6], dtype: "i32" })),
    ids: [3, 39, 0, 17, 3, 22],
  },
  {
    title: "rounded beside a matrix",
    build: (bits, graph) => {
      const matrix = leaf(graph, { name: "matrix", role: "weight", shape: [13, 72], dtype: "bf16" });
      return cast(add(cast(matrix, "f32"), multiply(normalFrom(bits([13, 72])), 1e-3)), "bf16");
    },
  },
];

function kernelOf({ build }: Case): LoopKernel {
  const graph = new Graph();
  const [low, high, step, stream] = scalars.map((name) =>
    leaf(graph, { name, role: "input", shape: [], dtype: "u32" }),
  ) as [Node, Node, Node, Node];
  const output = build((shape, use = 0) => randomBits({ low, high }, stream, step, shape, use), graph);
  const inputs = graph.nodes.filter((node) => node.op.name === "leaf");
  return { inputs, outputs: [output] };
}

describe("noise in generated loops", () => {
  const kernels = cases.map(kernelOf);
  const compiled = [[], ["-DTHIMBLE_GENERIC", "-O2", "-march=x86-64"]].map((flags) =>
    flags.length === 0 ? new CompiledLoops(kernels) : new CompiledLoops(kernels, flags),
  );

  test.each(cases.map(({ title }, index) => [title, index] as const))("%s: the interpreter's bits", (_title, index) => {
    const { inputs, outputs } = must(kernels[index], "kernel");
    const values = inputs.map((node) => {
      const name = String(node.attributes["name"]);
      if (name === "ids") return tensor(node.shape, must(cases[index]?.ids, "ids"), "i32");
      if (name === "matrix")
        return tensor(
          node.shape,
          Array.from({ length: 13 * 72 }, (_, at) => at / 64),
          "bf16",
        );
      return tensor([], [must(words[scalars.indexOf(name)], "word")], "u32");
    });
    const bindings = new Map(inputs.map((node, at) => [node, must(values[at], "value")]));
    const expected = bytesOfTensor(must(evaluate(outputs, bindings)[0], "value"));
    for (const library of compiled) {
      for (const threads of [1, 4]) {
        const run = library.run(index, values.map(bytesOfTensor), { threads });
        expect(Buffer.compare(must(run.outputs[0], "output"), expected)).toBe(0);
      }
    }
  });
});
