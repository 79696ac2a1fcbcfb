import { describe, expect, test } from "vitest";
import { gradients } from "../../autodiff/gradients.js";
import { must, ThimbleError } from "../../errors.js";
import { Graph } from "../../ir/node.js";
import type { Node } from "../../ir/node.js";
import type { Tensor } from "../../ir/tensor.js";
import { tensor } from "../../ir/tensor.js";
import { elements } from "../../ir/shape.js";
import { leaf } from "../../ops/leaves.js";
import { openSession, planOnly } from "../../session/open.js";
import { evaluate } from "../../targets/interpret/evaluate.js";
import { largestDifference, MethodBench } from "../../testing/method-bench.js";
import {
  checkTrainingBattery,
  randomWeights,
  runTraining,
  trainedModel,
  trainingBatch,
  trainingOptions,
} from "../../testing/method-training.js";
import { checkMethodBattery } from "../../testing/methods.js";
import { toyModel } from "../../testing/toy-model.js";
import { composeMethods, withRunDefaults } from "../compose.js";
import { drawNormal } from "../initial.js";
import type { CollectContext, UpdatedTensor } from "../types.js";
import { adaloraConfig, adaloraTargets, settled } from "./config.js";
import { collectImportance } from "./importance.js";
import { orthogonality } from "./orthogonality.js";
import { allocationAt } from "./schedule.js";

const toy = { init_r: 3, target_r: 2, alpha: 5, total_step: 9 };
const adalora = (settings: Record<string, unknown> = toy) => ({ id: "adalora", settings });

checkMethodBattery({ title: "AdaLoRA", selection: adalora() });
checkMethodBattery({ title: "AdaLoRA over transposed weights", selection: adalora(), model: { transposed: true } });
checkMethodBattery({ title: "AdaLoRA with dropout", selection: adalora({ ...toy, dropout: 0.3 }) });

const trained = { init_r: 6, target_r: 3, alpha: 12, total_step: 5, tinit: 1, tfinal: 1 };
checkTrainingBattery({ title: "AdaLoRA", selection: [adalora(trained)], steps: 6 });

const model = toyModel();
const settingsOf = (more: Record<string, unknown>) => settled(adaloraConfig.parse({ ...toy, ...more }));
const targets = adaloraTargets(settingsOf({}), model);

describe("the schedule", () => {
  const settings = settingsOf({ init_r: 12, target_r: 8, total_step: 100, tinit: 10, tfinal: 20, deltaT: 5 });
  const at = (t: number) => allocationAt(settings, 10, t);

  test("is all triplets, falls with the cube, and ends at the target", () => {
    expect([1, 10].map((t) => at(t).budget)).toEqual([120, 120]);
    // 40 (1 - 35/70)^3 + 80.
    expect(at(45).budget).toBe(85);
    expect([80, 81, 100, 150].map((t) => at(t).budget)).toEqual([80, 80, 80, 80]);
    const all = Array.from({ length: 100 }, (_, index) => at(index + 1).budget);
    expect(all).toEqual([...all].sort((a, b) => b - a));
  });

  test("chooses every deltaT steps between first and last ones, at their end, and holds that choice", () => {
    const choosing = Array.from({ length: 110 }, (_, index) => index + 1).filter((t) => at(t).chooses);
    expect(choosing).toEqual([15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80]);
    expect([79, 80, 81].map((t) => [at(t).scores, at(t).holds])).toEqual([
      [true, false],
      [false, false],
      [false, true],
    ]);
  });
});

/** `collect` alone, over given values and gradients, with states as given. */
class Collecting {
  readonly graph = new Graph();
  readonly #values = new Map<Node, Tensor>();
  readonly tensors = new Map<string, UpdatedTensor>();

  leaf(name: string, shape: readonly number[], data: ArrayLike<number>): Node {
    const node = leaf(this.graph, { name, role: "input", shape, dtype: "f32" });
    this.#values.set(node, tensor(shape, data));
    return node;
  }

  run(states: ReadonlyMap<string, ArrayLike<number>>, scalars: Record<string, number>, variant: string) {
    const context: CollectContext = {
      graph: this.graph,
      variant,
      tensors: this.tensors,
      idle: new Map(),
      state: (name, shape) => this.leaf(`state.${name}`, shape, states.get(name) ?? new Float32Array(elements(shape))),
      scalar: (name) => this.leaf(`scalar.${name}`, [], [must(scalars[name], name)]),
    };
    const { values, states: made } = collectImportance(context, targets);
    const entries = [...values, ...made];
    const results = evaluate(
      entries.map(([, node]) => node),
      this.#values,
    );
    return new Map(entries.map(([name], index) => [name, must(results[index], name).data]));
  }
}

describe("importance", () => {
  const names = targets.flatMap(({ a, b, lambda }) => [a, b, lambda]);
  const drawn = (what: string, step: number, name: string, count: number): Float32Array =>
    Float32Array.from(drawNormal(step, `${what}.${name}`, count));

  /** Sensitivity and uncertainty as the page states them, dense in f64. */
  class Dense {
    readonly sensitivity: Float64Array;
    readonly uncertainty: Float64Array;
    constructor(count: number) {
      this.sensitivity = new Float64Array(count);
      this.uncertainty = new Float64Array(count);
    }
    step(value: Float32Array, gradient: Float32Array): void {
      value.forEach((theta, place) => {
        const now = Math.abs(theta * gradient[place]!);
        this.sensitivity[place] = 0.85 * this.sensitivity[place]! + 0.15 * now;
        const apart = Math.abs(now - this.sensitivity[place]);
        this.uncertainty[place] = 0.85 * this.uncertainty[place]! + 0.15 * apart;
      });
    }
    score(place: number): number {
      return this.sensitivity[place]! * this.uncertainty[place]!;
    }
  }

  function references(steps: number, ties: boolean) {
    const dense = new Map(names.map(({ name, shape }) => [name, new Dense(elements(shape))]));
    let states = new Map<string, ArrayLike<number>>();
    let made = new Map<string, ArrayLike<number>>();
    for (let step = 0; step < steps; step++) {
      const collecting = new Collecting();
      for (const { name, shape } of names) {
        const count = elements(shape);
        const after = ties ? new Float32Array(count).fill(1) : drawn("value", step, name, count);
        const gradient = ties ? new Float32Array(count).fill(0.5) : drawn("gradient", step, name, count);
        const values = { before: after, gradient, after };
        const node = (kind: keyof typeof values): Node => collecting.leaf(`${kind}.${name}`, shape, values[kind]);
        const tensors = { before: node("before"), gradient: node("gradient"), after: node("after") };
        collecting.tensors.set(name, tensors);
        must(dense.get(name), name).step(after, gradient);
      }
      const scalars = { gain1: 0.15, gain2: 0.15, holds: 0, budget: 7 };
      made = collecting.run(states, scalars, step === steps - 1 ? "allocate" : "");
      states = made;
    }
    return { dense, made };
  }

  test("equals a dense reference over five steps, and keeps exactly the budget's best triplets", () => {
    const { dense, made } = references(5, false);
    for (const { name } of names) {
      const { sensitivity, uncertainty } = must(dense.get(name), name);
      expect(largestDifference(must(made.get(`${name}.sensitivity`), name), sensitivity)).toBeLessThan(1e-5);
      expect(largestDifference(must(made.get(`${name}.uncertainty`), name), uncertainty)).toBeLessThan(1e-5);
    }
    const scores = targets.flatMap(({ a, b, lambda, spec, rank }) =>
      Array.from({ length: rank }, (_, triplet) => {
        const mean = (name: string, count: number, at: (index: number) => number): number => {
          const one = must(dense.get(name), name);
          return Array.from({ length: count }, (_value, index) => one.score(at(index))).reduce((x, y) => x + y) / count;
        };
        return (
          must(dense.get(lambda.name), "lambda").score(triplet) +
          mean(a.name, spec.inputs, (column) => triplet * spec.inputs + column) +
          mean(b.name, spec.outputs, (row) => row * rank + triplet)
        );
      }),
    );
    const threshold = [...scores].sort((x, y) => y - x)[6]!;
    const masked = targets.flatMap(({ lambda }) => [...Array.from(must(made.get(`${lambda.name}.masked`), "mask"))]);
    expect(masked).toEqual(scores.map((score) => (score >= threshold ? 0 : 1)));
    const left = targets.flatMap(({ lambda }) => Array.from(must(made.get(lambda.name), "lambda")));
    expect(left.map((value) => Number(value === 0))).toEqual(masked);
  });

  test("of equally important triplets the first are kept, just as many as the budget", () => {
    const { made } = references(1, true);
    // Every value and gradient is the same, so that all triplets of a layer tie.
    const masks = targets.map(({ lambda }) => Array.from(must(made.get(`${lambda.name}.masked`), "mask")));
    expect(masks.flat().filter((value) => value === 0)).toHaveLength(7);
    for (const mask of masks) expect(mask).toEqual([...mask].sort((x, y) => x - y));
    expect(masks.some((mask) => new Set(mask).size === 2)).toBe(true);
  });

  test("holds the last choice: masked triplets are 0 whatever the update makes of them", () => {
    const collecting = new Collecting();
    for (const { name, shape } of names) {
      const ones = new Float32Array(elements(shape)).fill(1);
      const node = collecting.leaf(name, shape, ones);
      collecting.tensors.set(name, { before: node, gradient: node, after: node });
    }
    const states = new Map(targets.map(({ lambda }, layer) => [`${lambda.name}.masked`, [0, layer % 2, 1]]));
    const scalars = { gain1: 0, gain2: 0, budget: 0 };
    for (const [holds, expected] of [
      [1, [1, 0, 0]],
      [0, [1, 1, 1]],
    ] as const) {
      const made = collecting.run(states, { ...scalars, holds }, "");
      expect(Array.from(must(made.get(targets[1]!.lambda.name), "lambda"))).toEqual(expected);
      expect(made.get(`${targets[1]!.lambda.name}.sensitivity`)?.every((value) => value === 0)).toBe(true);
    }
  });
});

describe("orthogonality", () => {
  function term(fill: (name: string, count: number) => ArrayLike<number>) {
    const graph = new Graph();
    const values = new Map<Node, Tensor>();
    const named = targets.flatMap(({ a, b }) =>
      [a, b].map(({ name, shape }) => {
        const node = leaf(graph, { name, role: "weight", shape, dtype: "f32" });
        values.set(node, tensor(shape, fill(name, elements(shape))));
        return [name, node] as const;
      }),
    );
    return { value: orthogonality({ graph, values: new Map(named) }, targets, 0.5), values, named: new Map(named) };
  }

  test("has the gradient of finite differences", () => {
    const { value, values, named } = term((name, count) => drawNormal(4, name, count));
    for (const node of named.values()) {
      const [made] = evaluate(gradients(value, [node]), values, "f64");
      const start = must(values.get(node), "value");
      for (let place = 0; place < start.data.length; place += 3) {
        const at = (change: number): number => {
          const data = Float64Array.from(start.data);
          data[place]! += change;
          return evaluate([value], new Map([...values, [node, { ...start, data }]]), "f64")[0]!.data[0]!;
        };
        expect(Math.abs((at(1e-5) - at(-1e-5)) / 2e-5 - made!.data[place]!)).toBeLessThan(1e-7);
      }
    }
  });

  test("is 0 with gradient 0 where P and Q are orthonormal", () => {
    // Rows of Q [3, in] and columns of P [out, 3] are the first unit vectors.
    const { value, values, named } = term((name, count) => {
      const rows = name.includes("lora_A");
      const width = rows ? count / 3 : 3;
      return Float32Array.from({ length: count }, (_, place) => Number(Math.floor(place / width) === place % width));
    });
    const [made, ...slopes] = evaluate([value, ...gradients(value, [...named.values()])], values);
    expect(made!.data[0]).toBeLessThan(1e-14);
    for (const { data } of slopes) expect(data.every((slope) => slope === 0)).toBe(true);
  });

  test("is a scalar", () => {
    expect(term((name, count) => drawNormal(4, name, count)).value.shape).toEqual([]);
  });
});

describe("export", () => {
  test("leaves masked triplets out, layer by layer, and folds scale and diagonal", async () => {
    const bench = (await MethodBench.create(model, [adalora()])).scramble();
    const [first, second] = targets;
    const lambda = (layer: typeof first): Float32Array => must(bench.values.get(must(layer, "layer").lambda.name), "E");
    lambda(first).fill(0);
    lambda(second)[1] = 0;
    const read = (): Promise<Float32Array> => Promise.reject(new Error("not needed"));
    const { config, tensors } = await must(bench.composed.peft, "form")(bench.values, { seed: 1, read });
    const paths = targets.map(({ spec }) => spec.path);
    expect(config).toMatchObject({
      peft_type: "LORA",
      r: 3,
      lora_alpha: 3,
      rank_pattern: { [paths[0]!]: 1, [paths[1]!]: 2 },
      alpha_pattern: { [paths[0]!]: 1, [paths[1]!]: 2 },
    });
    const a = (path: string) => must(tensors.get(`${path}.lora_A.weight`), path);
    expect(a(paths[0]!).data.every((value) => value === 0)).toBe(true);
    expect(a(paths[1]!).shape).toEqual([2, 5]);
    const q = must(bench.values.get(must(second, "layer").a.name), "Q");
    expect(a(paths[1]!).data[5]).toBe(Math.fround(q[10]! * lambda(second)[2]!));
  });
});

describe("the run", () => {
  test("masks exactly the triplets beyond the budget, and holds them to the end", async () => {
    const options = trainingOptions({ selection: [adalora(trained)] });
    const { tensors } = await runTraining(options, { to: 8 });
    const diagonals = [...tensors].filter(([name]) => name.endsWith("lora_E"));
    const values = diagonals.flatMap(([, bytes]) => [...new Float32Array(bytes.buffer, bytes.byteOffset, 6)]);
    expect(values).toHaveLength(6 * trainedModel.linears.filter(({ role }) => role !== "head").length);
    expect(values.filter((value) => value !== 0)).toHaveLength(values.length / 2);
  });

  test("keeps two importances a value beside the optimizer's states", () => {
    const states = (selection: { id: string; settings: Record<string, unknown> }): number =>
      planOnly(trainingOptions({ selection: [selection] })).report.composition.states;
    // Of a size that fills whole lines of memory.
    const settings = { ...trained, init_r: 16 };
    const { adapters } = composeMethods([adalora(settings)], trainedModel);
    const count = adapters.reduce((sum, { shape }) => sum + elements(shape), 0);
    const expected = 16 * count + 4 * 16 * (adapters.length / 3);
    expect(Math.abs(states(adalora(settings)) / expected - 1)).toBeLessThan(0.02);
  });

  test("takes the steps of the run where they are not given", () => {
    const run = { steps: 40, length: 64 };
    expect(withRunDefaults({ id: "adalora", settings: {} }, run).settings).toEqual({ total_step: 40 });
    expect(withRunDefaults(adalora({ total_step: 7 }), run).settings).toEqual({ total_step: 7 });
    expect(withRunDefaults({ id: "lora", settings: { r: 2 } }, run).settings).toEqual({ r: 2 });
  });

  test.each([
    [{ total_step: undefined }, "adalora-steps", "adalora.total_step"],
    [{ tinit: 5, tfinal: 4 }, "adalora-schedule", "adalora.tinit"],
    [{ target_r: 4 }, "adalora-rank", "adalora.target_r"],
    [{ init_r: 0 }, "settings", "adalora.init_r"],
    [{ beta1: 1 }, "settings", "adalora.beta1"],
    [{ r: 8 }, "settings-unknown", "adalora.r"],
    [{ target_modules: ["q_prog"] }, "targets-none", "adalora.target_modules"],
  ])("refuses %j", (more, code, where) => {
    const compose = (): unknown => composeMethods([adalora({ ...toy, ...more })], model);
    expect(compose).toThrow(ThimbleError);
    expect(compose).toThrow(expect.objectContaining({ code, where }));
  });

  test("does not go with training of the base", () => {
    const compose = (): unknown => composeMethods([adalora(), { id: "full", settings: {} }], model);
    expect(compose).toThrow(expect.objectContaining({ code: "methods-conflict" }));
  });

  test("of a layer that does not train, importance stands still, and a choice masks it all the same", async () => {
    const settings = { ...trained, tinit: 0, tfinal: 0, total_step: 4, target_r: 1 };
    const selection = [adalora(settings), { id: "lisa", settings: { activated_layers: 1, interval_steps: 1 } }];
    const options = trainingOptions({ selection });
    const session = await openSession(options);
    const f32 = (name: string) => new Float32Array(session.bytes(name).slice().buffer);
    try {
      await session.load(randomWeights(trainedModel));
      for (let step = 0; step < 4; step++) {
        const block = must(
          must(options.methods?.turns, "turns").at(step, options.seed, () => new Float32Array(0))[0],
          "turn",
        ).block;
        const idle = session.tensors.filter(
          ({ name }) => name.includes("sensitivity") && !name.includes(`layers.${block}.`),
        );
        const before = idle.map(({ name }) => f32(name));
        await session.step([trainingBatch(step)], { rate: 0.01, step });
        expect(idle.map(({ name }) => f32(name))).toEqual(before);
        for (const { name } of session.tensors.filter((tensor) => tensor.name.endsWith(".masked"))) {
          const lambda = f32(name.slice("adalora.".length, -".masked".length));
          for (const [place, masked] of f32(name).entries()) if (masked !== 0) expect(lambda[place]).toBe(0);
        }
      }
      const masks = session.tensors
        .filter(({ name }) => name.endsWith(".masked"))
        .flatMap(({ name }) => [...f32(name)]);
      expect(masks).toContain(1);
    } finally {
      session.close();
    }
  });
});
