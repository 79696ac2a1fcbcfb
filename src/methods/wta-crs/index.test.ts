import { describe, expect, test } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { Graph } from "../../ir/node.js";
import type { Tensor } from "../../ir/tensor.js";
import { multiply } from "../../ops/arithmetic.js";
import { dot } from "../../ops/dot.js";
import { reduceSum, reshape } from "../../ops/layout.js";
import { leaf } from "../../ops/leaves.js";
import { savedRows } from "../../ops/saved.js";
import { formKernels } from "../../passes/pipeline.js";
import { blockOf, forwardValues } from "../../passes/saved.js";
import { buildTraining } from "../../step/build.js";
import { evaluate } from "../../targets/interpret/evaluate.js";
import { MethodBench } from "../../testing/method-bench.js";
import { checkTrainingBattery, runTraining, trainedModel, trainingOptions } from "../../testing/method-training.js";
import { checkMethodBattery } from "../../testing/methods.js";
import { toyModel } from "../../testing/toy-model.js";
import type { MethodSelection } from "../compose.js";
import { composeMethods } from "../compose.js";
import { drawNormal, drawUniform } from "../initial.js";
import type { SampleOptions } from "./sample.js";
import { sampleRows } from "./sample.js";

const wta = (settings: Record<string, unknown> = {}): MethodSelection => ({ id: "wta-crs", settings });
const lora = { id: "lora", settings: { r: 4 } };
const full = { id: "full", settings: {} };

checkMethodBattery({ title: "WTA-CRS, exact where all rows are kept", selection: wta() });
checkTrainingBattery({ title: "WTA-CRS alone", selection: [wta()] });
checkTrainingBattery({
  title: "WTA-CRS with LoRA",
  selection: [lora, wta({ sampling_ratio: 0.5 })],
  variants: { "two micro-batches a step": { accumulate: 2 } },
});
checkTrainingBattery({ title: "WTA-CRS with full tuning", selection: [wta({ sampling_ratio: 0.5 }), full] });

const [rows, inputs, outputs] = [40, 5, 4];

/** Rows of x with tails: each scaled by a Pareto number of the given index; none = all alike. */
function inputRows(tail: number | undefined): number[] {
  const scales = drawUniform(3, "tail", rows).map((u) => (tail === undefined ? 1 : (1 - u) ** (-1 / tail)));
  return [...drawNormal(1, "x", rows * inputs)].map(
    (value, at) => value * must(scales[Math.floor(at / inputs)], "row"),
  );
}

interface Layer {
  readonly forward: readonly number[];
  readonly dx: readonly number[];
  readonly exact: readonly number[];
  /** dW of one draw, with the number of winners. */
  readonly estimate: (draw: number) => { readonly dw: readonly number[]; readonly winners: number };
}

/** y = x Wᵀ under given gradients dy, with dW from a sample. */
function layer(tail: number | undefined, options: SampleOptions): Layer {
  const graph = new Graph();
  const input = (name: string, shape: readonly number[], data: readonly number[]) => {
    const node = leaf(graph, { name, role: "input", shape, dtype: "f32" });
    return [node, { shape, dtype: "f32" as const, data: Float32Array.from(data) }] as const;
  };
  const x = input("x", [rows, inputs], inputRows(tail));
  const w = input("w", [outputs, inputs], [...drawNormal(1, "w", outputs * inputs)]);
  const dy = input("dy", [rows, outputs], [...drawNormal(1, "dy", rows * outputs)]);
  const draws = input("u", [options.count], []);
  const sample = sampleRows(x[0], draws[0], options);
  const y = dot(savedRows(x[0], sample.rows, sample.ids), w[0], { transposeB: true });
  const plain = dot(x[0], w[0], { transposeB: true });
  const lossOf = (value: typeof y) => reshape(reduceSum(multiply(value, dy[0]), [0, 1]), []);
  const [dx, dw] = gradients(lossOf(y), [x[0], w[0]]) as [typeof y, typeof y];
  const [dxPlain, dwPlain] = gradients(lossOf(plain), [x[0], w[0]]) as [typeof y, typeof y];
  const run = (nodes: readonly (typeof y)[], draw: number) =>
    evaluate(
      nodes,
      new Map<Node, Tensor>([x, w, dy, [draws[0], { ...draws[1], data: drawUniform(draw, "u", options.count) }]]),
      "f64",
    ).map(({ data }) => [...data]);
  const [forward, expected, back, backExpected, exact] = run([y, plain, dx, dxPlain, dwPlain], 1);
  expect(forward).toEqual(expected);
  expect(back).toEqual(backExpected);
  return {
    forward: forward!,
    dx: back!,
    exact: exact!,
    estimate: (draw) => {
      const [made, winners] = run([dw, sample.winners], draw);
      return { dw: made!, winners: winners![0]! };
    },
  };
}

/** Mean and summed variance of the estimates, and the largest distance of the mean from the truth in standard errors. */
function statistics({ exact, estimate }: Layer, draws: number) {
  const made = Array.from({ length: draws }, (_, draw) => estimate(draw + 1));
  const mean = exact.map((_, at) => made.reduce((sum, { dw }) => sum + dw[at]!, 0) / draws);
  const variances = mean.map(
    (value, at) => made.reduce((sum, { dw }) => sum + (dw[at]! - value) ** 2, 0) / (draws - 1),
  );
  const errors = exact.map((value, at) => Math.abs(mean[at]! - value) / Math.sqrt(variances[at]! / draws));
  return { winners: made[0]!.winners, worst: Math.max(...errors), variance: variances.reduce((a, b) => a + b) };
}

/** c* by its definition, from the norms. */
function bestWinners(tail: number | undefined, count: number): number {
  const x = inputRows(tail);
  const norms = Array.from({ length: rows }, (_, row) => Math.hypot(...x.slice(row * inputs, (row + 1) * inputs)));
  const total = norms.reduce((a, b) => a + b);
  norms.sort((a, b) => b - a);
  const score = (c: number): number => (1 - norms.slice(0, c).reduce((a, b) => a + b, 0) / total) / (count - c);
  return Array.from({ length: count }, (_, c) => c).reduce((best, c) => (score(c) < score(best) ? c : best), 0);
}

describe("a sample of rows", () => {
  const cases = [
    ["heavy tails", 1.1, {}],
    ["light tails", undefined, {}],
    ["probabilities mixed with even ones", 1.1, { uniformShare: 0.1 }],
    ["half of the rows for certain", undefined, { winners: 6 }],
    ["draws alone", 1.1, { winners: 0 }],
    ["one row", undefined, { count: 1 }],
  ] as const;

  for (const [name, tail, more] of cases) {
    test(`${name}: the mean of the estimates is the gradient, within 4 standard errors`, () => {
      const one = layer(tail, { count: 12, uniformShare: 0, ...more });
      expect(statistics(one, 4000).worst).toBeLessThan(4);
    });
  }

  test("has as many winners as the definition says, none and some", () => {
    const counts = [undefined, 3, 1.5, 1.1, 0.7].flatMap((tail) =>
      [2, 12, 30].map((count) => {
        const { winners } = layer(tail, { count, uniformShare: 0 }).estimate(1);
        expect(winners).toBe(bestWinners(tail, count));
        return winners;
      }),
    );
    expect(counts).toContain(0);
    expect(Math.max(...counts)).toBeGreaterThan(5);
  });

  test("varies less than draws alone at the same number of rows", () => {
    const ratio = (tail: number | undefined): number => {
      const [own, crs] = [undefined, 0].map((winners) =>
        statistics(layer(tail, { count: 12, uniformShare: 0, winners }), 2000),
      );
      return own!.variance / crs!.variance;
    };
    expect(ratio(1.1)).toBeLessThan(0.6);
    expect(ratio(undefined)).toBeLessThan(1.05);
  });

  test("finds the least squares that the largest rows alone, unscaled, miss", () => {
    const count = 12;
    const x = inputRows(undefined);
    const y = drawNormal(5, "y", rows);
    const row = (at: number): number[] => x.slice(at * inputs, (at + 1) * inputs);
    const miss = (w: readonly number[], at: number): number =>
      row(at).reduce((sum, value, place) => sum + value * w[place]!, 0) - y[at]!;
    const loss = (w: readonly number[]): number =>
      Array.from({ length: rows }, (_, at) => miss(w, at) ** 2).reduce((a, b) => a + b) / rows;
    const graph = new Graph();
    const [node, draws] = [
      leaf(graph, { name: "x", role: "input", shape: [rows, inputs], dtype: "f32" }),
      leaf(graph, { name: "u", role: "input", shape: [count], dtype: "f32" }),
    ];
    const sample = sampleRows(node, draws, { count, uniformShare: 0 });
    const all = Array.from({ length: rows }, (_, at) => at);
    const largest = all.toSorted((a, b) => Math.hypot(...row(b)) - Math.hypot(...row(a))).slice(0, count);
    const plain = (ids: number[]) => ({ ids, scaled: ids.flatMap(row), total: ids.length });
    const drawn = (step: number) => {
      const [ids, scaled] = evaluate(
        [sample.ids, sample.rows],
        new Map([
          [node, { shape: node.shape, dtype: "f32" as const, data: Float32Array.from(x) }],
          [draws, { shape: [count], dtype: "f32" as const, data: drawUniform(step + 1, "u", count) }],
        ]),
      );
      return { ids: [...ids!.data], scaled: [...scaled!.data], total: rows };
    };
    const descend = (rowsAt: (step: number) => ReturnType<typeof drawn>): number => {
      let w = new Array<number>(inputs).fill(0);
      for (let step = 0; step < 600; step++) {
        const { ids, scaled, total } = rowsAt(step);
        const misses = ids.map((at) => miss(w, at));
        const rate = 0.3 / (1 + step / 20);
        w = w.map(
          (value, place) =>
            value - (rate * misses.reduce((sum, one, at) => sum + one * scaled[at * inputs + place]!, 0)) / total,
        );
      }
      return loss(w);
    };
    const best = descend(() => plain(all));
    expect(descend(drawn)).toBeLessThan(1.03 * best);
    expect(descend(() => plain(largest))).toBeGreaterThan(1.1 * best);
  });

  test("takes rows of zeros and of one norm for what they are", () => {
    const graph = new Graph();
    const x = leaf(graph, { name: "x", role: "input", shape: [8, 2], dtype: "f32" });
    const u = leaf(graph, { name: "u", role: "input", shape: [4], dtype: "f32" });
    const { rows: kept, ids } = sampleRows(x, u, { count: 4, uniformShare: 0 });
    for (const value of [0, 2]) {
      const bound = new Map([
        [x, { shape: [8, 2], dtype: "f32" as const, data: new Float32Array(16).fill(value) }],
        [u, { shape: [4], dtype: "f32" as const, data: Float32Array.of(0, 0.3, 0.6, 1 - 2 ** -24) }],
      ]);
      const [made, places] = evaluate([kept, ids], bound);
      // Each of eight equal rows is drawn with probability 1/8, four times.
      for (const one of made!.data) expect(one).toBeCloseTo(2 * value, 4);
      expect([...places!.data]).toEqual([0, 2, 4, 7]);
    }
  });
});

describe("WTA-CRS", () => {
  const model = toyModel();

  test("changes the gradients of A and of nothing else", async () => {
    const ids = Array.from({ length: 40 }, (_, place) => (place * 7) % 11);
    const made = async (settings: Record<string, unknown>) => {
      const bench = (await MethodBench.create(model, [lora, wta(settings)], { training: true, ids })).scramble();
      const leaves = bench.trainedLeaves();
      const values = bench.run(gradients(bench.loss, leaves));
      return new Map(leaves.map((node, index) => [String(node.attributes["name"]), [...values[index]!.data]]));
    };
    const [all, exact, sampled] = [await made({ sampling_ratio: 1 }), await made({ minimal_k: 40 }), await made({})];
    expect(exact).toEqual(all);
    for (const [name, gradient] of sampled) {
      if (name.includes("lora_A")) expect(gradient).not.toEqual(all.get(name));
      else expect(gradient).toEqual(all.get(name));
    }
  });

  /** What backward reads of what a block's forward pass makes: how often each shape. */
  function keptShapes(selection: readonly MethodSelection[]): Map<string, number> {
    const options = trainingOptions({ selection, session: { length: 512, segments: false } });
    const { programs } = buildTraining({ ...options, activation: "f32" });
    const { program, kernels } = formKernels(must(programs[0], "program"), undefined);
    const counts = new Map<string, number>();
    for (const node of must(forwardValues(program, kernels), "values").read) {
      const shape = `${node.op.name} ${node.shape.join(" x ")}`;
      if (blockOf(node) === "blocks.1") counts.set(shape, (counts.get(shape) ?? 0) + 1);
    }
    return counts;
  }

  test("keeps its part of the rows of every input, once for layers that share it", () => {
    for (const base of [lora, full]) {
      const [dense, sampled] = [keptShapes([base]), keptShapes([base, wta()])];
      // Inputs of (q, k, v), (gate, up) and down.
      expect([dense.get("multiply 1024 x 48"), dense.get("multiply 1024 x 80")]).toEqual([2, 1]);
      const changed = (from: Map<string, number>, to: Map<string, number>): string[] =>
        [...from].flatMap(([shape, count]) => (count > (to.get(shape) ?? 0) ? [`${count} of ${shape}`] : [])).sort();
      expect(changed(dense, sampled)).toEqual(["1 of multiply 1024 x 80", "2 of multiply 1024 x 48"]);
      expect(changed(sampled, dense)).toEqual([
        "1 of multiply 307 x 80",
        "2 of multiply 307 x 48",
        "3 of gather 307 x 1",
      ]);
    }
    expect(Math.abs(307 / 1024 / 0.3 - 1)).toBeLessThan(0.02);
  });

  test("learns nearly as much as with whole gradients, from eleven of 38 rows", async () => {
    for (const base of [lora, full]) {
      const run = (selection: readonly MethodSelection[]) =>
        runTraining(trainingOptions({ selection }), { to: 30, rate: 0.003 });
      const [dense, sampled] = [await run([base]), await run([base, wta()])];
      const start = must(dense.losses[0], "first loss");
      expect(sampled.losses[0]).toBe(start);
      expect((start - sampled.evaluation) / (start - dense.evaluation)).toBeGreaterThan(0.85);
    }
  });

  test("takes steps with what it says it goes with, in the memory that was planned", async () => {
    const beside: readonly MethodSelection[] = [
      { id: "paca", settings: { r: 4 } },
      { id: "qlora", settings: { r: 4 } },
      { id: "lisa", settings: { activated_layers: 1 } },
      { id: "galore", settings: { rank: 4 } },
      { id: "lora", settings: { r: 4, dora: true, dropout: 0.1 } },
    ];
    for (const other of beside) {
      const { losses, planBytes, arenaBytes } = await runTraining(
        trainingOptions({ selection: [other, wta({ sampling_ratio: 0.5 })] }),
        { to: 2, poison: true },
      );
      expect(arenaBytes, other.id).toBe(planBytes);
      expect(losses.every(Number.isFinite), other.id).toBe(true);
    }
  });

  test("brings LoRA where nothing else trains, and nothing where something does", () => {
    const ids = (selection: readonly MethodSelection[]): string[] =>
      composeMethods(selection, trainedModel).methods.map(({ id }) => id);
    expect(ids([wta()])).toEqual(["lora", "wta-crs"]);
    expect(ids([wta(), full])).toEqual(["wta-crs", "full"]);
    expect(ids([wta(), { id: "lisa", settings: {} }])).toEqual(["wta-crs", "lisa"]);
  });

  test("refuses ratios that are none, the cache, frozen layers, and gradients without a backward pass", () => {
    const compose =
      (settings: Record<string, unknown>, beside = lora as MethodSelection) =>
      () =>
        composeMethods([beside, wta(settings)], trainedModel);
    const code = (name: string): unknown => expect.objectContaining({ code: name });
    for (const ratio of [0, -0.1, 1.1]) expect(compose({ sampling_ratio: ratio })).toThrow(code("settings"));
    expect(compose({ gradient_cache: true })).toThrow(code("wta-crs-cache"));
    const queries = { id: "lora", settings: { target_modules: ["q_proj"] } };
    expect(compose({ target_modules: ["k_proj"] }, queries)).toThrow(code("wta-crs-frozen"));
    expect(compose({}, queries)).not.toThrow();
    expect(compose({}, { id: "mezo", settings: {} })).toThrow(code("methods-conflict"));
  });
});
