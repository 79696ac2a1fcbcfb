import { Matrix, SVD } from "ml-matrix";
import { describe, expect, it } from "vitest";
import { adamw, adamwConfig } from "../../optim/adamw.js";
import { sgd, sgdConfig } from "../../optim/sgd.js";
import type { Optimizer } from "../../optim/types.js";
import { Graph } from "../../ir/node.js";
import { leaf } from "../../ops/leaves.js";
import { noise } from "../../testing/c/loops.js";
import { runOptimizer } from "../../testing/optimizer-run.js";
import { checkTrainingBattery } from "../../testing/method-training.js";
import { toyModel } from "../../testing/toy-model.js";
import { evaluate } from "../../targets/interpret/evaluate.js";
import { composeMethods } from "../compose.js";
import { galore } from "./index.js";
import { projected } from "./optimizer.js";
import type { ProjectionType } from "./projection.js";
import { newProjectors, project, projectBack, projectionOf, projectionTypes } from "./projection.js";

const shapes = [
  [6, 4],
  [4, 6],
  [5, 5],
] as const;

const gradientAt = (shape: readonly number[], step: number): number[] =>
  noise(shape[0]! * shape[1]!, 10 * step + shape[0]!);

/** The rule as it is at each step: with projectors renewed every `gap` steps. */
function renewing(
  rule: Optimizer,
  type: ProjectionType,
  rank: number,
  shape: readonly number[],
  scale: number,
  gap: number,
) {
  const projection = projectionOf(type, rank, shape);
  const rules = [false, true].map((renew) => projected(rule, projection, scale, renew));
  return { optimizer: rules[0]!, ruleAt: (step: number): Optimizer => rules[step % gap === 0 ? 1 : 0]! };
}

/** Leading left and right singular vectors as rows, with the sign that makes their largest entry positive. */
function singular(gradient: Matrix, rank: number): { left: Matrix; right: Matrix } {
  const svd = new SVD(gradient, { autoTranspose: true });
  const rows = (vectors: Matrix): Matrix => {
    const top = vectors.subMatrix(0, vectors.rows - 1, 0, rank - 1).transpose();
    for (let row = 0; row < rank; row++) {
      const values = top.getRow(row);
      const largest = values.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
      if (largest < 0) top.mulRow(row, -1);
    }
    return top;
  };
  return { left: rows(svd.leftSingularVectors), right: rows(svd.rightSingularVectors) };
}

/** GaLore-AdamW as the page states it, dense, in f64. */
function reference(shape: readonly number[], rank: number, steps: number, gap: number, decay: number): number[] {
  const [rows, columns] = shape as [number, number];
  const right = rows >= columns;
  const weight = Matrix.from1DArray(rows, columns, noise(rows * columns, 3));
  const [beta1, beta2, epsilon, scale, rate] = [0.9, 0.99, 1e-6, 0.25, 0.05];
  let projector = new Matrix(1, 1);
  let mean: Matrix | undefined;
  let square: Matrix | undefined;
  for (let step = 0; step < steps; step++) {
    const gradient = Matrix.from1DArray(rows, columns, gradientAt(shape, step));
    if (step % gap === 0) projector = singular(gradient, rank)[right ? "right" : "left"];
    const small = right ? gradient.mmul(projector.transpose()) : projector.mmul(gradient);
    mean = Matrix.add(Matrix.mul(mean ?? Matrix.zeros(small.rows, small.columns), beta1), Matrix.mul(small, 1 - beta1));
    square = Matrix.add(
      Matrix.mul(square ?? Matrix.zeros(small.rows, small.columns), beta2),
      Matrix.mul(Matrix.mul(small, small), 1 - beta2),
    );
    const eta = (rate * Math.sqrt(1 - beta2 ** (step + 1))) / (1 - beta1 ** (step + 1));
    const direction = Matrix.div(mean, Matrix.add(Matrix.sqrt(square), epsilon));
    const back = right ? direction.mmul(projector) : projector.transpose().mmul(direction);
    weight.sub(back.mul(eta * scale));
    weight.mul(1 - rate * decay);
  }
  return weight.to1DArray();
}

const worst = (a: readonly number[], b: readonly number[]): number =>
  Math.max(...a.map((value, place) => Math.abs(value - (b[place] ?? NaN))));

describe("GaLore", () => {
  for (const shape of shapes) {
    it(`equals a dense reference over several periods, ${shape.join(" x ")}`, () => {
      const [gap, steps] = [3, 9];
      const rule = adamw(
        adamwConfig.parse({ id: "adamw", beta2: 0.99, epsilon: 1e-6, epsilon_place: "raw", weight_decay: 0.1 }),
      );
      const { optimizer, ruleAt } = renewing(rule, "std", 2, shape, 0.25, gap);
      const start = noise(shape[0] * shape[1], 3);
      const gradients = Array.from({ length: steps }, (_, step) => gradientAt(shape, step));
      const { values } = runOptimizer(optimizer, { start, gradients, rate: 0.05, shape, ruleAt });
      expect(worst(values.at(-1)!, reference(shape, 2, steps, gap, 0.1))).toBeLessThan(1e-5);
    });

    it(`is plain SGD at full rank, ${shape.join(" x ")}`, () => {
      const start = noise(shape[0] * shape[1], 5);
      const gradients = Array.from({ length: 20 }, (_, step) => gradientAt(shape, step));
      const rule = sgd(sgdConfig.parse({ id: "sgd" }));
      const plain = runOptimizer(rule, { start, gradients, rate: 0.1, shape });
      for (const type of projectionTypes) {
        const full = type === "left" ? shape[0] : type === "right" ? shape[1] : Math.min(...shape);
        const square = shape[0] === shape[1];
        if ((type === "reverse_std" || type === "full") && !square) continue;
        const { optimizer, ruleAt } = renewing(rule, type, full, shape, 1, 4);
        const run = runOptimizer(optimizer, { start, gradients, rate: 0.1, shape, ruleAt });
        expect(worst(run.values.at(-1)!, plain.values.at(-1)!)).toBeLessThan(1e-5);
      }
    });

    it(`has orthonormal projectors that leave the tail of the spectrum, ${shape.join(" x ")}`, () => {
      const graph = new Graph();
      const gradient = leaf(graph, { name: "g", role: "input", shape: [...shape], dtype: "f32" });
      const data = Float64Array.from(gradientAt(shape, 1), Math.fround);
      for (const type of ["left", "right", "std", "reverse_std"] as const) {
        const projection = projectionOf(type, 2, shape);
        const projectors = newProjectors(projection, gradient);
        const back = projectBack(projection, projectors, project(projection, projectors, gradient));
        const twice = projectBack(projection, projectors, project(projection, projectors, back));
        const [once, again, rows] = evaluate(
          [back, twice, Object.values(projectors)[0]!],
          new Map([[gradient, { shape: [...shape], dtype: "f32" as const, data }]]),
        ).map((value) => [...value.data]) as [number[], number[], number[]];
        const tail = new SVD(Matrix.from1DArray(shape[0], shape[1], [...data])).diagonal.slice(2);
        const left = Math.hypot(...data.map((value, place) => value - once[place]!));
        expect(Math.abs(left / Math.hypot(...tail) - 1)).toBeLessThan(1e-4);
        expect(worst(once, again)).toBeLessThan(1e-5);
        const side = rows.length / 2;
        const inner = (a: number, b: number): number =>
          rows.slice(a * side, (a + 1) * side).reduce((sum, value, place) => sum + value * rows[b * side + place]!, 0);
        for (const [a, b] of [
          [0, 0],
          [0, 1],
          [1, 1],
        ] as const) {
          expect(Math.abs(inner(a, b) - (a === b ? 1 : 0))).toBeLessThan(1e-5);
        }
      }
    });
  }

  it("changes a weight by a matrix of at most its rank within a period", () => {
    const shape = [6, 5] as const;
    const rule = adamw(adamwConfig.parse({ id: "adamw" }));
    const { optimizer, ruleAt } = renewing(rule, "std", 2, shape, 1, 4);
    const start = noise(30, 7);
    const gradients = Array.from({ length: 8 }, (_, step) => gradientAt(shape, step));
    const { values } = runOptimizer(optimizer, { start, gradients, rate: 0.1, shape, ruleAt });
    const rankOf = (step: number): number => {
      const change = Matrix.from1DArray(
        6,
        5,
        values[step]!.map((value, place) => value - Math.fround(start[place]!)),
      );
      const { diagonal } = new SVD(change);
      return diagonal.filter((value) => value > 1e-4 * diagonal[0]!).length;
    };
    expect(rankOf(3)).toBe(2);
    expect(rankOf(7)).toBe(4);
  });

  it("keeps states and projectors of the sizes of the paper", () => {
    const counts = (rows: number, columns: number, rank: number): number =>
      projected(adamw(adamwConfig.parse({ id: "adamw" })), projectionOf("std", rank, [rows, columns]), 1, false)
        .states({ shape: [rows, columns], dtype: "f32" })
        .reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0) /
      (2 * rows * columns);
    expect(counts(4096, 4096, 1024)).toBeCloseTo(0.375, 6);
    expect(counts(11008, 4096, 1024)).toBeCloseTo(0.2965, 4);
  });

  it("renews at step 0 and after each gap, and refuses what cannot be", () => {
    const model = toyModel({});
    const composed = composeMethods([{ id: "galore", settings: { rank: 2, update_proj_gap: 3 } }], model, [galore]);
    expect([0, 1, 2, 3, 4].map((step) => composed.variant(step))).toEqual(["renew", "", "", "renew", ""]);
    const compose = (settings: Record<string, unknown>): unknown =>
      composeMethods([{ id: "galore", settings }], model, [galore]);
    expect(() => compose({ rank: 4096 })).toThrow(expect.objectContaining({ code: "galore-rank" }));
    for (const wrong of [{ rank: 0 }, { update_proj_gap: 0 }, { proj_type: "up" }]) {
      expect(() => compose(wrong)).toThrow(expect.objectContaining({ code: "settings" }));
    }
  });
});

checkTrainingBattery({
  title: "galore",
  selection: [{ id: "galore", settings: { rank: 8, update_proj_gap: 3 } }],
  steps: 5,
});
