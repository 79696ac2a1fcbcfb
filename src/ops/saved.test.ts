import { describe, expect, it } from "vitest";
import { gradients } from "../autodiff/gradients.js";
import { must } from "../errors.js";
import { Graph } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { formKernels } from "../passes/pipeline.js";
import { forwardValues } from "../passes/saved.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { add, cast, divide, exp, floor, multiply } from "./arithmetic.js";
import { dot } from "./dot.js";
import { reduceSum, reshape } from "./layout.js";
import { leaf } from "./leaves.js";
import { savedAs, savedRows } from "./saved.js";

/** x to whole numbers, kept as bf16. */
function coarse(x: ReturnType<typeof exp>) {
  const codes = cast(floor(add(x, 0.5)), "bf16");
  return savedAs(x, cast(codes, "f32"), [codes]);
}

const sum = (x: ReturnType<typeof exp>) => reshape(reduceSum(x, [0, 1]), []);

describe("another form of a value for backward", () => {
  it("leaves values as they are, and takes derivatives at the form", () => {
    const graph = new Graph();
    const x = leaf(graph, { name: "x", role: "input", shape: [1, 3], dtype: "f32" });
    const kept = coarse(x);
    const y = add(multiply(exp(kept), kept), divide(2, kept));
    const data = Float32Array.of(0.6, 1.7, -2.2);
    const [value, dx] = evaluate(
      [y, gradients(sum(y), [x])[0]!],
      new Map([[x, { shape: [1, 3], dtype: "f32" as const, data }]]),
      "f64",
    );
    data.forEach((at, place) => {
      const form = Math.round(at);
      expect(value!.data[place]).toBeCloseTo(Math.exp(at) * at + 2 / at, 6);
      // The product reads the exponential as it was; what reads the value itself reads its form.
      expect(dx!.data[place]).toBeCloseTo(Math.exp(form) * form + Math.exp(at) - 2 / form ** 2, 6);
    });
  });

  it("is what the forward pass makes for backward, instead of the value", () => {
    const graph = new Graph();
    const matrix = (name: string) => leaf(graph, { name, role: "weight", shape: [8, 8], dtype: "f32" });
    const [x, first, second] = [matrix("x"), matrix("first"), matrix("second")];
    const hidden = dot(x, first);
    const loss = sum(dot(coarse(hidden), second));
    const made = gradients(loss, [second]);
    const program: Program = {
      name: "train",
      graph,
      loss,
      gradients: made,
      phases: [{ assignments: [{ target: second, value: made[0]! }], outputs: { loss } }],
    };
    const formed = formKernels(program, undefined);
    const values = must(forwardValues(formed.program, formed.kernels), "values");
    expect([...values.read].map(({ dtype, shape }) => [dtype, shape])).toEqual([["bf16", [8, 8]]]);
    expect(formed.program.saved?.map(({ dtype }) => dtype)).toEqual(["bf16"]);
  });

  it("has the shape and type of the value", () => {
    const graph = new Graph();
    const of = (shape: readonly number[], dtype: "f32" | "i32" = "f32") =>
      leaf(graph, { name: shape.join(), role: "input", shape, dtype });
    expect(() => savedAs(of([2, 3]), of([3, 2]), [])).toThrow(expect.objectContaining({ code: "shape" }));
    expect(() => savedRows(of([4, 3]), of([2, 2]), of([2], "i32"))).toThrow(expect.objectContaining({ code: "shape" }));
    expect(() => savedRows(of([4, 3]), of([2, 3]), of([3], "i32"))).toThrow(expect.objectContaining({ code: "shape" }));
  });
});
