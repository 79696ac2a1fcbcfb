import { describe, expect, test } from "vitest";
import { gradients } from "../autodiff/gradients.js";
import { must } from "../errors.js";
import { bf16Bits, bf16FromBits } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import { Graph } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { tensor } from "../ir/tensor.js";
import { drawNormal } from "../methods/initial.js";
import { formKernels } from "../passes/pipeline.js";
import { forwardValues, policyValues } from "../passes/saved.js";
import { e4m3, e5m2, float8Code, float8Value } from "../storage/float8.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { multiply, sigmoid } from "./arithmetic.js";
import { dot } from "./dot.js";
import { reduceSum, reshape } from "./layout.js";
import { leaf } from "./leaves.js";
import type { Quantised } from "./quantise.js";
import {
  gradientIn,
  keptQuantised,
  quantiseGroups,
  quantiseTensor,
  remadeQuantised,
  roundTensor,
  straightThrough,
} from "./quantise.js";

const [rows, width] = [6, 48];
const given = [...drawNormal(1, "x", rows * width)].map((value, at) => Math.fround(value * 10 ** (at % 5)));

function input(graph: Graph, name = "x", shape: readonly number[] = [rows, width]): Node {
  return leaf(graph, { name, role: "input", shape, dtype: "f32" });
}

function valuesOf(build: (x: Node) => readonly Node[], values: readonly number[] = given): number[][] {
  const x = input(new Graph());
  return evaluate(build(x), new Map([[x, tensor([rows, width], values)]])).map(({ data }) => [...data]);
}

const partsOf = ({ codes, scales, value }: Quantised): readonly Node[] => [codes, scales, value];
const largest = (list: readonly number[]): number => Math.max(...list.map(Math.abs));

describe("values in FP8", () => {
  test("have one scale a tensor, or one in bf16 for each group, which they are divided by as it is stored", () => {
    const [codes, scale, value] = valuesOf((x) => partsOf(quantiseTensor(x, "e5m2"))) as [number[], number[], number[]]; // prettier-ignore
    const one = Math.fround(largest(given) / 57344);
    expect(scale).toEqual([one]);
    expect(codes).toEqual(given.map((x) => float8Code(e5m2, x / one)));
    expect(value).toEqual(codes.map((code) => Math.fround(float8Value(e5m2, code) * one)));
    const [small, scales] = valuesOf((x) => partsOf(quantiseGroups(x, "e4m3", 16))) as [number[], number[]];
    const each = scales.map((_, group) => largest(given.slice(group * 16, group * 16 + 16)));
    expect(scales).toEqual(each.map((most) => bf16FromBits(bf16Bits(Math.fround(most + 1e-10) / 448))));
    expect(small).toEqual(given.map((x, at) => float8Code(e4m3, x / must(scales[at >> 4], "scale"))));
    expect(valuesOf((x) => [roundTensor(x, "e5m2")])[0]).toEqual(value);
  });

  test("saturate where a rounded scale is too small for the largest", () => {
    // 449 / 448 in bf16 is 1.
    const [codes] = valuesOf((x) => [quantiseGroups(x, "e4m3", 16).codes], given.map((_, at) => (at % 16 === 3 ? -449 : 1))); // prettier-ignore
    expect(codes?.[3]).toBe(float8Code(e4m3, -448));
  });

  test("are zeros where nothing else is, and show what is no number", () => {
    for (const value of [0, NaN]) {
      const made = valuesOf((x) => [quantiseTensor(x, "e4m3").value, quantiseGroups(x, "e4m3", 16).value], given.map(() => value)); // prettier-ignore
      for (const list of made) expect(list).toEqual(given.map(() => value));
    }
  });

  test("need rows of whole groups", () => {
    expect(() => quantiseGroups(input(new Graph(), "x", [4, 24]), "e4m3", 16)).toThrow(
      expect.objectContaining({ code: "quantise-groups" }),
    );
  });
});

describe("gradients through values in FP8", () => {
  test("pass as they are, and are quantised where that is asked for", () => {
    const x = input(new Graph());
    const above = input(x.graph, "above");
    const total = (y: Node): Node => reshape(reduceSum(multiply(y, above), [0, 1]), []);
    const kept = keptQuantised(x, quantiseGroups(x, "e4m3", 16), "f32");
    const made = [
      kept,
      remadeQuantised(x, "e4m3"),
      straightThrough(roundTensor(x, "e4m3"), [x]),
      gradientIn("e5m2", x),
    ];
    const dx = made.map((y) => must(gradients(total(y), [x])[0], "gradient"));
    const bound = new Map([
      [x, tensor([rows, width], given)],
      [above, tensor([rows, width], given.toReversed())],
    ]);
    const [same, remade, rounded, quantised, wanted] = evaluate([...dx, quantiseTensor(above, "e5m2").value], bound);
    for (const one of [same, remade, rounded]) expect(one?.data).toEqual(bound.get(above)?.data);
    expect(quantised?.data).toEqual(wanted?.data);
    expect(quantised?.data).not.toEqual(bound.get(above)?.data);
  });

  /** What backward reads of the forward pass of y = f(x W) V: by the type and shape of each value. */
  function saved(through: (x: Node) => Node, policy: "all" | "cheap" = "all"): string[] {
    const graph = new Graph();
    const matrix = (name: string): Node => leaf(graph, { name, role: "weight", shape: [64, 64], dtype: "f32" });
    const [x, first, second] = [matrix("x"), matrix("first"), matrix("second")];
    const loss = reshape(reduceSum(dot(through(dot(x, first)), second), [0, 1]), []);
    const made = gradients(loss, [first, second]);
    const program: Program = {
      ...{ name: "train", graph, loss, gradients: made },
      phases: [
        {
          assignments: [first, second].map((target, index) => ({ target, value: must(made[index], "gradient") })),
          outputs: { loss },
        },
      ],
    };
    const formed = formKernels(program, undefined);
    const values = must(forwardValues(formed.program, formed.kernels), "values");
    const recomputed = policyValues(values, policy);
    return [...values.read]
      .filter((node) => !recomputed.has(node))
      .map(({ dtype, shape }) => `${dtype} ${shape.join("x")}`)
      .sort();
  }

  test("read codes and scales of what comes before, and make one from the other where that is cheap", () => {
    const group = (x: Node): Node => keptQuantised(x, quantiseGroups(x, "e4m3", 16), "f32");
    const whole = (x: Node): Node => keptQuantised(x, quantiseTensor(x, "e4m3"), "f32");
    const silu = (x: Node): Node => multiply(x, sigmoid(x));
    expect(saved(silu)).toEqual(["f32 64x64", "f32 64x64"]);
    const codes = ["bf16 256x1", "f32 1x1", "u8 256x16", "u8 64x64"];
    expect(saved((x) => whole(silu(group(x))))).toEqual(codes);
    expect(saved((x) => whole(silu(group(x))), "cheap")).toEqual(codes.filter((type) => type !== "u8 64x64"));
    const gated = (x: Node): Node => whole(multiply(group(silu(group(x))), group(x)));
    expect(saved(gated).filter((type) => type === "u8 256x16")).toHaveLength(2);
    expect(saved(gated, "cheap").filter((type) => type === "u8 256x16")).toHaveLength(1);
  });
});
