import { beforeAll, describe, expect, it } from "vitest";
import type { Node } from "../../ir/node.js";
import { Graph } from "../../ir/node.js";
import { elements } from "../../ir/shape.js";
import { add, cast, multiply, sigmoid } from "../../ops/arithmetic.js";
import { expand, reduceSum, reshape } from "../../ops/layout.js";
import { leaf } from "../../ops/leaves.js";
import { evaluate } from "../interpret/evaluate.js";
import type { RenderedEpilogue } from "./loops-epilogue.js";
import { epilogueC } from "./loops-epilogue.js";
import { Kernels, Memory } from "../../testing/c/harness.js";
import { bytesOfTensor, randomBindings } from "../../testing/c/loops.js";

interface Case {
  readonly roots: readonly Node[];
  readonly sums: Node;
  readonly inputs: readonly Node[];
}

function makeCase(
  shape: number[],
  build: (sums: Node, input: (name: string, shape: number[], dtype?: Node["dtype"]) => Node) => readonly Node[],
): Case {
  const graph = new Graph();
  const inputs: Node[] = [];
  const sums = leaf(graph, { name: "sums", role: "input", shape, dtype: "f32" });
  const roots = build(sums, (name, own, dtype = "f32") => {
    const node = leaf(graph, { name, role: "input", shape: own, dtype });
    inputs.push(node);
    return node;
  });
  return { roots, sums, inputs };
}

const cases: Readonly<Record<string, Case>> = {
  "sums alone": makeCase([5, 37], (sums) => [multiply(sums, 2)]),
  "bias and residual": makeCase([5, 37], (sums, input) => [
    add(add(sums, expand(input("bias", [1, 37]), [5, 37])), input("residual", [5, 37])),
  ]),
  "row scale": makeCase([5, 37], (sums, input) => [multiply(sums, expand(input("scale", [5, 1]), [5, 37]))]),
  "bias of rank 1 and bf16": makeCase([4, 33], (sums, input) => [
    cast(add(sums, cast(input("bias", [33], "bf16"), "f32")), "bf16"),
  ]),
  stacks: makeCase([3, 4, 20], (sums, input) => [add(sums, input("residual", [3, 4, 20]))]),
  "stacks with a scale each": makeCase([3, 4, 20], (sums, input) => [
    multiply(sums, expand(reshape(input("scale", [3]), [3, 1, 1]), [3, 4, 20])),
  ]),
  "two results": makeCase([6, 16], (sums, input) => {
    const value = multiply(multiply(sums, sigmoid(sums)), cast(input("up", [6, 16], "bf16"), "f32"));
    return [value, cast(value, "bf16")];
  }),
  "one column": makeCase([9, 1], (sums, input) => [add(sums, input("x", [9, 1]))]),
};

/** A kernel that feeds stored sums to an epilogue, 16 at a time. */
function driver({ name, source, words }: RenderedEpilogue, kernel: string): string {
  return `${source}
EXPORT void ${kernel}(const int64_t* a, Context* context) {
  const int64_t batches = a[1], rows = a[2], columns = a[3];
  (void)context;
  for (int64_t b = 0; b < batches; b++)
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < columns; c += 16) {
        const int n = (int)smaller(16, columns - c);
        ${name}(load_f32_n((const char*)a[0] + ((b * rows + r) * columns + c) * 4, n), b, r, c, n, a + 4);
      }
  (void)${words};
}`;
}

describe("epilogues of contractions", () => {
  const names = Object.keys(cases);
  const rendered = names.map((name) => epilogueC(cases[name]!.roots, cases[name]!.sums, cases[name]!.inputs));
  let kernels: Kernels;

  beforeAll(() => {
    kernels = new Kernels(rendered.map((epilogue, index) => driver(epilogue, `drive${index}`)));
  });

  it.each(names.map((name, index) => [name, index] as const))("%s", (name, index) => {
    const { roots, sums, inputs } = cases[name]!;
    const bindings = randomBindings([sums, ...inputs], index);
    const memories = [sums, ...inputs].map((node) => {
      const bytes = bytesOfTensor(bindings.get(node)!);
      const memory = new Memory(bytes.length);
      memory.data.set(bytes);
      return memory;
    });
    const outputs = roots.map((root) => new Memory(elements(root.shape) * (root.dtype === "bf16" ? 2 : 4)));
    const [columns, rows, batches] = [...sums.shape].reverse();
    const words = rendered[index]!.layout.map((word) =>
      typeof word === "number" ? word : ("input" in word ? memories[word.input + 1]! : outputs[word.output]!).address,
    );
    expect(words.length).toBe(rendered[index]!.words);
    kernels.run(`drive${index}`, [memories[0]!.address, batches ?? 1, rows!, columns!, ...words]);
    evaluate(roots, bindings).forEach((expected, place) => {
      const bytes = outputs[place]!.read();
      expect(outputs[place]!.intact()).toBe(true);
      if (expected.dtype === "bf16") {
        expect(bytes).toEqual(bytesOfTensor(expected));
        return;
      }
      new Float32Array(bytes.buffer).forEach((value, at) => {
        expect(Math.abs(value - expected.data[at]!)).toBeLessThanOrEqual(1e-6);
      });
    });
    for (const memory of [...memories, ...outputs]) memory.free();
  });

  it("are the same for other sizes", () => {
    const residual = (rows: number): RenderedEpilogue => {
      const { roots, sums, inputs } = makeCase([rows, 48], (own, input) => [add(own, input("x", [rows, 48]))]);
      return epilogueC(roots, sums, inputs);
    };
    expect(residual(3).source).toBe(residual(400).source);
  });

  it("refuse reductions and other shapes", () => {
    const { sums } = makeCase([4, 8], (own) => [own]);
    expect(() => epilogueC([reduceSum(sums, [1])], sums, [])).toThrow(/shape/);
    expect(() => epilogueC([expand(reduceSum(sums, [1]), [4, 8])], sums, [])).toThrow();
  });
});
