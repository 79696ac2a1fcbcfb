import { beforeAll, describe, expect, it } from "vitest";
import type { Node } from "../../ir/node.js";
import { Graph, reachable } from "../../ir/node.js";
import { elements } from "../../ir/shape.js";
import type { Tensor } from "../../ir/tensor.js";
import { tensor } from "../../ir/tensor.js";
import { add, cast, less, multiply, select, sin, subtract } from "../../ops/arithmetic.js";
import { gather } from "../../ops/gather.js";
import { expand, flip, pad, permute, reduceSum, reshape, slice } from "../../ops/layout.js";
import { iota, leaf, leafOp } from "../../ops/leaves.js";
import { detach } from "../../ops/reduce.js";
import { compileDecoder } from "../../storage/decoder.js";
import { storageFormat } from "../../storage/registry.js";
import { evaluate } from "../interpret/evaluate.js";
import type { LoopKernel } from "../loops/nest.js";
import { bytesOfTensor, CompiledLoops, noise, randomBindings, worstError } from "../../testing/c/loops.js";

type Input = (name: string, shape: number[], dtype?: Node["dtype"]) => Node;

const builders: Readonly<Record<string, (input: Input) => readonly Node[]>> = {
  copy: (input) => [reshape(input("x", [4, 9]), [9, 4])],
  transpose: (input) => [permute(input("x", [37, 18]), [1, 0])],
  "transpose of bf16 with arithmetic": (input) => [
    cast(multiply(cast(permute(input("x", [5, 33, 20], "bf16"), [2, 0, 1]), "f32"), 2), "bf16"),
  ],
  "heads in front": (input) => {
    const split = reshape(input("x", [2, 6, 40]), [2, 6, 5, 8]);
    return [reshape(permute(split, [0, 2, 1, 3]), [10, 6, 8])];
  },
  "transposed operand beside a straight one": (input) => [
    add(input("x", [21, 34]), permute(input("y", [34, 21]), [1, 0])),
  ],
  "flip of the last axis": (input) => [flip(input("x", [3, 50]), 1)],
  "flip of the first axis": (input) => [add(flip(input("x", [5, 50]), 0), 1)],
  "slice inside": (input) => [slice(input("x", [7, 50]), [2, 5], [4, 33])],
  "pad around": (input) => [pad(input("x", [3, 30]), [1, 4], [2, 5])],
  "pad by one in front": (input) => [pad(slice(input("x", [20, 6]), [0, 0], [19, 6]), [1, 0], [0, 0])],
  "pad in one axis": (input) => [pad(input("x", [100]), [3], [29])],
  "sine of a pad is sine of zero": (input) => [add(sin(pad(input("x", [3, 30]), [0, 2], [1, 3])), 1)],
  "padded integers": (input) => [pad(input("x", [3, 30], "i32"), [0, 2], [1, 3])],
  "concatenation of unequal parts": (input) => [
    add(pad(input("x", [4, 10]), [0, 0], [0, 23]), pad(input("y", [4, 23]), [0, 10], [0, 0])),
  ],
  "concatenation of four": (input) => {
    const part = (name: string, place: number): Node => pad(input(name, [4, 8]), [0, 8 * place], [0, 8 * (3 - place)]);
    return [add(add(part("a", 0), part("b", 1)), add(part("c", 2), part("d", 3)))];
  },
  "concatenation along rows": (input) => [
    add(pad(input("x", [4, 10]), [0, 0], [3, 0]), pad(input("y", [3, 10]), [4, 0], [0, 0])),
  ],
  "sums joined along rows": (input) => {
    const [x, y] = [input("x", [4, 6, 5]), input("y", [3, 6, 5])];
    const scaled = (z: Node): Node => multiply(z, reduceSum(multiply(z, z), [1, 2]));
    return [add(pad(scaled(x), [0, 0, 0], [3, 0, 0]), pad(scaled(y), [4, 0, 0], [0, 0, 0]))];
  },
  "many pads": (input) => {
    const x = input("x", [5, 40]);
    const moved = [1, 3, 7, 12, 20, 31].map((by) => pad(slice(x, [0, 0], [5, 40 - by]), [0, by], [0, 0]));
    return [moved.reduce((sum, part) => add(sum, part), x)];
  },
  "sum over a pad": (input) => [reduceSum(pad(input("x", [6, 30]), [0, 5], [0, 7]), [1])],
  "columns over a pad": (input) => [reduceSum(pad(input("x", [60, 30]), [5, 0], [9, 0]), [0])],
  "reshape across a pad": (input) => [reshape(pad(input("x", [5, 6]), [1, 1], [1, 1]), [8, 7])],
  "reshape that no split resolves": (input) => [add(reshape(slice(input("x", [6, 7]), [0, 1], [6, 5]), [10, 3]), 1)],
  "reshape and transpose": (input) => [permute(reshape(input("x", [4, 6]), [3, 8]), [1, 0])],
  "chunks of a fused projection": (input) => {
    const x = input("x", [4, 3, 48], "bf16");
    const parts = [0, 16, 32].map((start) => cast(slice(x, [0, 0, start], [4, 3, 16]), "f32"));
    return [cast(multiply(add(parts[0]!, parts[1]!), parts[2]!), "bf16")];
  },
  "causal mask": (input) => {
    const { graph } = input("x", [9, 9]);
    const visible = less(subtract(iota(graph, [9, 9], 1), iota(graph, [9, 9], 0)), 1);
    return [select(visible, input("x", [9, 9]), -1e30), visible];
  },
  "index by index": (input) => [
    add(iota(input("x", [4, 5, 6], "i32").graph, [4, 5, 6], 1), input("x", [4, 5, 6], "i32")),
  ],
  "index through a reshape": (input) => {
    const x = input("x", [5, 6], "u32");
    return [add(reshape(iota(x.graph, [10, 3], 1, "u32"), [5, 6]), x)];
  },
  "truth values": (input) => [input("x", [40], "bool"), less(input("y", [40]), 0)].map((node) => detach(node)),
  "bytes to floats": (input) => [multiply(cast(input("x", [40], "u8"), "f32"), 0.5)],
  halves: (input) => [cast(multiply(cast(input("x", [3, 40], "f16"), "f32"), 3), "f16")],
  "rounded in between": (input) => [multiply(cast(cast(input("x", [70]), "bf16"), "f32"), 3)],
  gather: (input) => [gather(input("table", [70, 33]), input("ids", [11], "i32"))],
  "gather from bf16": (input) => [cast(gather(input("table", [70, 64], "bf16"), input("ids", [11], "i32")), "f32")],
  "gather of single columns": (input) => [gather(input("table", [70, 1]), input("ids", [40], "i32"))],
  "gather and transpose": (input) => [permute(gather(input("table", [70, 9]), input("ids", [20], "i32")), [1, 0])],
  "gather of computed rows": (input) => {
    const ids = add(input("ids", [11], "i32"), 100);
    return [multiply(gather(input("table", [120, 20]), ids), expand(input("w", [1, 20]), [11, 20]))];
  },
  "gather into a row norm": (input) => {
    const rows = gather(input("table", [70, 33]), input("ids", [11], "i32"));
    return [multiply(rows, reduceSum(multiply(rows, rows), [1]))];
  },
};

describe("views and gathers in generated loops", () => {
  const names = Object.keys(builders);
  const kernels = names.map((name): LoopKernel => {
    const graph = new Graph();
    const outputs = builders[name]!((leafName, shape, dtype = "f32") =>
      leaf(graph, { name: leafName, role: "input", shape, dtype }),
    );
    return { outputs, inputs: reachable(outputs).filter((node) => node.op === leafOp) };
  });
  let compiled: CompiledLoops;

  beforeAll(() => {
    compiled = new CompiledLoops(kernels);
  });

  it.each(names.map((name, index) => [name, index] as const))("%s", (_, index) => {
    const { inputs, outputs } = kernels[index]!;
    const bindings = randomBindings(inputs, index + 1);
    const expected = evaluate(outputs, bindings);
    const actual = compiled.evaluate(index, bindings);
    expected.forEach((value, place) => {
      expect(worstError(actual[place]!, value)).toBeLessThanOrEqual(1e-6);
    });
  });
});

describe("packed tables in generated loops", () => {
  const formats = ["q8_0", "q4_0", "q4_K", "q6_K"];
  const [rows, width] = [7, 512];
  const graph = new Graph();
  const ids = leaf(graph, { name: "ids", role: "input", shape: [9], dtype: "i32" });
  const tables = formats.map((format) =>
    leaf(graph, { name: format, role: "weight", shape: [rows, width], dtype: "f32", format }),
  );
  const whole = leaf(graph, { name: "whole", role: "weight", shape: [rows, width], dtype: "bf16", format: "q8_0" });
  const kernels: LoopKernel[] = [
    ...tables.map((table) => ({ outputs: [multiply(gather(table, ids), 2)], inputs: [table, ids] })),
    { outputs: [cast(whole, "f32")], inputs: [whole] },
  ];
  let compiled: CompiledLoops;

  beforeAll(() => {
    compiled = new CompiledLoops(kernels);
  });

  /** Random blocks whose scales are no NaN. */
  function packed(format: string): { bytes: Uint8Array; values: Float32Array } {
    const { block } = storageFormat(format);
    const count = (rows * width) / block.elements;
    const bytes = Uint8Array.from(noise(count * block.bytes, 4), (value) => Math.floor((value + 1) * 30));
    const values = new Float32Array(rows * width);
    compileDecoder(storageFormat(format))(bytes, values);
    return { bytes, values };
  }

  it.each(formats.map((format, index) => [format, index] as const))("gather from %s", (format, index) => {
    const { bytes, values } = packed(format);
    // Rows outside the table stand for row 0.
    const places = tensor([9], [0, 6, 3, 3, 7, -1, 1000, 2, 5], "i32");
    const table: Tensor = { shape: [rows, width], dtype: "f32", data: values };
    const [expected] = evaluate(
      kernels[index]!.outputs,
      new Map([
        [tables[index]!, table],
        [ids, places],
      ]),
    );
    const { outputs } = compiled.run(index, [bytes, bytesOfTensor(places)], { threads: 2 });
    expect(new Float32Array(outputs[0]!.buffer)).toEqual(Float32Array.from(expected!.data));
  });

  it("rounds what is decoded to the type of the leaf", () => {
    const { bytes, values } = packed("q8_0");
    const { outputs } = compiled.run(formats.length, [bytes]);
    const rounded = tensor([elements([rows, width])], values, "bf16");
    expect(new Float32Array(outputs[0]!.buffer)).toEqual(Float32Array.from(rounded.data));
  });
});
