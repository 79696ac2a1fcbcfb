import { afterEach, describe, expect, test } from "vitest";
import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { Graph } from "../../ir/node.js";
import { elements } from "../../ir/shape.js";
import { tensor } from "../../ir/tensor.js";
import { leaf, leafAttributes, leafOp } from "../../ops/leaves.js";
import { noiseId, normalFrom } from "../../ops/normal.js";
import { randomBits } from "../../ops/random.js";
import { makeOptimizer } from "../../optim/registry.js";
import { nodesOf } from "../../ir/program.js";
import { planOnly } from "../../session/open.js";
import type { RunningSession } from "../../session/session.js";
import type { StepResult } from "../../session/types.js";
import { buildTraining } from "../../step/build.js";
import { trainedNames } from "../../step/estimate.js";
import { evaluate } from "../../targets/interpret/evaluate.js";
import { batchOf, changingBytes, floats, model, optionsOf, sessionOf } from "../../testing/mezo.js";
import { replayTrajectory } from "../../train/export/trajectory.js";
import { checkMethodBattery } from "../../testing/methods.js";
import { plausibleValue, relativeDifference, sequence, tinyLlama } from "../../testing/tiny.js";
import { composeMethods } from "../compose.js";
import { mezo } from "./index.js";
import { checkTrajectory, decodeTrajectory, encodeTrajectory } from "../trajectory.js";

checkMethodBattery({ title: "mezo", selection: { id: "mezo", settings: {} } });

const epsilon = 1e-3;
const seed = 7;
const open: RunningSession[] = [];
afterEach(() => {
  for (const session of open.splice(0)) session.close();
});

async function start(...args: Parameters<typeof optionsOf>): Promise<RunningSession> {
  const session = await sessionOf(optionsOf(...args));
  open.push(session);
  return session;
}

/** Z of trained tensor number `place` at a step, as plain numbers. */
function noiseOf(place: number, shape: readonly number[], step: number, use = 1): Float32Array {
  const graph = new Graph();
  const names = ["low", "high", "step", "stream"];
  const leaves = names.map((name) => leaf(graph, { name, role: "input", shape: [], dtype: "u32" }));
  const [low, high, at, stream] = leaves as [Node, Node, Node, Node];
  const noise = normalFrom(randomBits({ low, high }, stream, at, shape, use));
  const values = [seed, 0, step, place * 4];
  const bindings = new Map(leaves.map((node, index) => [node, tensor([], [must(values[index], "word")], "u32")]));
  return Float32Array.from(must(evaluate([noise], bindings)[0], "noise").data);
}

const shapes = new Map(model.parameters.map(({ name, shape }) => [name, shape]));
const names = trainedNames(optionsOf());

/** One step by a reference that keeps Z: weights after it, and the projected gradient. */
async function denseStep(rate: number): Promise<{ weights: Map<string, Float32Array>; g: number }> {
  const session = await start();
  const base = new Map([...changingBytes(session)].map(([name, bytes]) => [name, floats(bytes)]));
  const noise = new Map(names.map((name, place) => [name, noiseOf(place, must(shapes.get(name), name), 0)]));
  const lossAt = async (scale: number): Promise<number> => {
    for (const [name, values] of base) {
      const moved = values.map((value, index) => value + scale * must(noise.get(name)?.[index], "noise"));
      session.bytes(name).set(new Uint8Array(moved.buffer));
    }
    const { lossSum, weightSum } = await session.evaluate(batchOf(0));
    return lossSum / weightSum;
  };
  const g = ((await lossAt(epsilon)) - (await lossAt(-epsilon))) / (2 * epsilon);
  const stepped = (name: string, values: Float32Array): Float32Array =>
    values.map((value, index) => value - rate * g * must(noise.get(name)?.[index], "noise"));
  return { weights: new Map([...base].map(([name, values]) => [name, stepped(name, values)])), g };
}

describe("a step", () => {
  test.each(["virtual", "in_place"] as const)("%s: as a reference that keeps the noise", async (perturbation) => {
    const rate = 1e-3;
    const expected = await denseStep(rate);
    const session = await start({ perturbation });
    const { differences } = await session.step([batchOf(0)], { rate, step: 0 });
    expect(must(differences?.[0], "difference") / (2 * epsilon)).toBeCloseTo(expected.g, 2);
    for (const [name, bytes] of changingBytes(session)) {
      expect(relativeDifference(floats(bytes), must(expected.weights.get(name), name))).toBeLessThan(3e-6);
    }
  });

  test("at rate 0 leaves the weights: to the bit where they are never touched, to rounding in place", async () => {
    for (const perturbation of ["virtual", "in_place"] as const) {
      const session = await start({ perturbation, directions: 2 });
      const before = changingBytes(session);
      await session.step([batchOf(0)], { rate: 0, step: 0 });
      for (const [name, bytes] of changingBytes(session)) {
        const was = must(before.get(name), name);
        if (perturbation === "virtual") expect(bytes).toEqual(was);
        else expect(relativeDifference(floats(bytes), floats(was))).toBeLessThan(1e-6);
      }
    }
  });

  test.each(["f32", "bf16"] as const)("compiled in %s agrees with the interpreter", async (dtype) => {
    const definition = tinyLlama({
      hidden_size: 48,
      intermediate_size: 80,
      num_attention_heads: 3,
      num_key_value_heads: 1,
      vocab_size: 67,
    });
    for (const settings of [{ directions: 2 }, ...(dtype === "f32" ? [{ perturbation: "in_place" }] : [])]) {
      const results = [];
      for (const target of ["interpret", "c"] as const) {
        const session = await start(settings, { definition, dtype, target });
        results.push(await session.step([batchOf(0, definition)], { rate: 1e-4, step: 3 }));
      }
      const [expected, actual] = [must(results[0], "interpreted"), must(results[1], "compiled")];
      expect(Math.abs(actual.loss - expected.loss)).toBeLessThan(dtype === "f32" ? 1e-5 : 1e-2);
      expect(actual.differences).toHaveLength(must(expected.differences, "differences").length);
      actual.differences?.forEach((value, direction) => {
        const wanted = must(expected.differences?.[direction], "difference");
        expect(Math.abs(value - wanted)).toBeLessThan(dtype === "f32" ? 2e-5 : 2e-2);
      });
    }
  });

  test("sums the differences of micro-batches under one direction", async () => {
    const [whole, parts] = [await start({}, { accumulate: 1 }), await start({}, { accumulate: 2 })];
    const first = await whole.step([batchOf(0)], { rate: 1e-2, step: 5 });
    const second = await parts.step([batchOf(0), batchOf(0)], { rate: 1e-2, step: 5 });
    expect(must(second.differences?.[0], "difference")).toBeCloseTo(must(first.differences?.[0], "difference"), 6);
    const moved = changingBytes(parts);
    for (const [name, bytes] of changingBytes(whole)) {
      expect(relativeDifference(floats(must(moved.get(name), name)), floats(bytes))).toBeLessThan(1e-4);
    }
  });

  test("with a loss that is not finite changes nothing, whatever the decay", async () => {
    const session = await start({}, { optimizer: makeOptimizer({ id: "sgd", weight_decay: 0.1 }) });
    const name = "model.layers.0.mlp.up_proj.weight";
    floatsIn(session, name)[0] = 3e38;
    const before = changingBytes(session);
    const { differences } = await session.step([batchOf(0)], { rate: 1e-2, step: 0 });
    expect(Number.isFinite(differences?.[0])).toBe(false);
    expect(changingBytes(session)).toEqual(before);
  });

  test("goes on from a checkpoint to the bit", async () => {
    const whole = await start();
    for (let step = 0; step < 4; step++) await whole.step([batchOf(step)], { rate: 1e-3, step });
    const first = await start();
    for (let step = 0; step < 2; step++) await first.step([batchOf(step)], { rate: 1e-3, step });
    const second = await start();
    for (const [name, bytes] of changingBytes(first)) second.bytes(name).set(bytes);
    for (let step = 2; step < 4; step++) await second.step([batchOf(step)], { rate: 1e-3, step });
    expect(changingBytes(second)).toEqual(changingBytes(whole));
  });

  test("beside LoRA perturbs and trains the adapter alone", async () => {
    const selection = [
      { id: "lora", settings: { r: 2 } },
      { id: "mezo", settings: {} },
    ];
    const options = optionsOf(selection);
    expect(options.methods?.saves).toBe("adapter");
    expect(options.methods?.learningRate).toBe(1e-4);
    const session = await start(selection);
    const changing = session.tensors.filter(({ changes }) => changes).map(({ name }) => name);
    expect(new Set(changing)).toEqual(new Set(options.methods?.adapters.map(({ name }) => name)));
    const before = changingBytes(session);
    await session.step([batchOf(0)], { rate: 1e-2, step: 0 });
    expect(changingBytes(session)).not.toEqual(before);
  });

  test("learns, and its trajectory makes the same weights again from the base", async () => {
    const [rate, steps] = [4e-3, 60];
    const session = await start({ directions: 8 }, { target: "c" });
    const log: StepResult[] = [];
    for (let step = 0; step < steps; step++) log.push(await session.step([batchOf(0)], { rate, step }));
    expect(must(log.at(-1), "step").loss).toBeLessThan(must(log[0], "step").loss - 0.3);
    const text = encodeTrajectory({
      ...trajectory,
      directions: 8,
      rates: log.map(() => rate),
      differences: log.map(({ differences }) => must(differences, "differences")),
    });
    expect(text.length).toBeLessThan(4096);
    const again = await start({ directions: 8 }, { target: "c", accumulate: 2 });
    await replayTrajectory(again, decodeTrajectory(text, "file"), { base: "b0", tensors: names });
    expect(changingBytes(again)).toEqual(changingBytes(session));
    expect(await again.evaluate(batchOf(1))).toEqual(await session.evaluate(batchOf(1)));
  });
});

/** The head of a trajectory of the tests' model. */
const trajectory = {
  base: "b0",
  noise: noiseId,
  epsilon,
  directions: 1,
  decay: "matrices" as const,
  dtype: "f32" as const,
  optimizer: { id: "sgd" },
  seed,
  tensors: names,
};

function floatsIn(session: RunningSession, name: string): Float32Array {
  const bytes = session.bytes(name);
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

describe("the estimate", () => {
  test("is the derivative along Z", () => {
    const build = (selection: Parameters<typeof optionsOf>[0]) => {
      const options = optionsOf(selection);
      return must(buildTraining({ ...options, activation: "f32" }).programs[0], "program");
    };
    const next = sequence(5);
    const values = new Map<string, ReturnType<typeof plausibleValue>>();
    const bind = (program: ReturnType<typeof build>) =>
      new Map(
        nodesOf(program)
          .filter(({ op }) => op === leafOp)
          .map((node) => {
            const { name } = leafAttributes(node);
            const value = values.get(name) ?? plausibleValue(node, 33, 11, next);
            if (name.startsWith("stream.")) return [node, tensor([], [Number(name.slice(7))], "u32")] as const;
            if (name === "scalar.seedLow") return [node, tensor([], [seed], "u32")] as const;
            if (name === "scalar.seedHigh") return [node, tensor([], [0], "u32")] as const;
            values.set(name, value);
            return [node, value] as const;
          }),
      );
    const small = 1e-4;
    const backward = build([{ id: "full", settings: {} }]);
    const gradients = evaluate(backward.gradients, bind(backward), "f64");
    const trained = backward.phases[0]?.assignments.map(({ target }) => leafAttributes(target)) ?? [];
    const expected = trained.reduce((sum, { name, shape }, index) => {
      const noise = noiseOf(names.indexOf(name), shape, 3);
      return sum + noise.reduce((inner, value, at) => inner + value * must(gradients[index]?.data[at], "gradient"), 0);
    }, 0);
    const program = build({ epsilon: small });
    const difference = must(program.phases.at(-1)?.outputs["estimate.difference0"], "difference");
    const [made] = evaluate([difference], bind(program), "f64");
    const g = must(made?.data[0], "difference") / (2 * small);
    expect(Math.abs(g - expected) / Math.abs(expected)).toBeLessThan(1e-3);
  });

  test("of a quadratic is unbiased, with the variance of Gaussian directions", () => {
    const [draws, d] = [100_000, 20];
    const noise = noiseOf(0, [draws, d], 1);
    const gradient = Array.from({ length: d }, (_, index) => Math.sin(index + 1));
    const size = gradient.reduce((sum, value) => sum + value * value, 0);
    const sums = new Float64Array(d);
    const squares = new Float64Array(d);
    const mean = new Float64Array(d);
    let [norms, meanNorms] = [0, 0];
    for (let draw = 0; draw < draws; draw++) {
      const at = draw * d;
      const g = gradient.reduce((sum, value, index) => sum + value * (noise[at + index] ?? 0), 0);
      for (let index = 0; index < d; index++) {
        const value = g * (noise[at + index] ?? 0);
        sums[index] = (sums[index] ?? 0) + value;
        squares[index] = (squares[index] ?? 0) + value * value;
        mean[index] = (mean[index] ?? 0) + value / 4;
        norms += value * value;
      }
      if (draw % 4 < 3) continue;
      meanNorms += mean.reduce((sum, value) => sum + value * value, 0);
      mean.fill(0);
    }
    gradient.forEach((value, index) => {
      const average = (sums[index] ?? NaN) / draws;
      const deviation = Math.sqrt(((squares[index] ?? NaN) / draws - average ** 2) / draws);
      expect(Math.abs(average - value)).toBeLessThan(4 * deviation);
    });
    expect(norms / draws / ((d + 2) * size)).toBeCloseTo(1, 1);
    expect(Math.abs(norms / draws / ((d + 2) * size) - 1)).toBeLessThan(0.05);
    expect(Math.abs(meanNorms / (draws / 4) / (((d + 5) / 4) * size) - 1)).toBeLessThan(0.05);
  });
});

describe("memory", () => {
  test("is that of inference: no gradients, states or saved values, and a few scalars", () => {
    const definition = tinyLlama({
      hidden_size: 256,
      intermediate_size: 1024,
      num_attention_heads: 4,
      num_key_value_heads: 4,
      vocab_size: 1024,
      num_hidden_layers: 4,
      max_position_embeddings: 128,
    });
    const size = { definition, batch: 8, length: 128, target: "c" as const };
    const inference = planOnly(optionsOf({}, { ...size, train: false })).report;
    const largest = Math.max(...definition.parameters.map(({ shape }) => elements(shape) * 4));
    for (const perturbation of ["virtual", "in_place"]) {
      const { report } = planOnly(optionsOf({ perturbation }, { ...size, evaluate: false }));
      const allowed = perturbation === "virtual" ? 4096 : largest;
      expect(report.planBytes - inference.planBytes).toBeLessThanOrEqual(allowed);
      expect(report.composition).toMatchObject({ gradients: 0, states: 0, saved: 0 });
    }
    const adam = planOnly(
      optionsOf([{ id: "full", settings: {} }], { ...size, optimizer: makeOptimizer({}), evaluate: false }),
    ).report;
    expect(adam.planBytes / inference.planBytes).toBeGreaterThan(5);
  });
});

describe("refusals", () => {
  test.each([0, -1, 2])("epsilon %s", (value) => {
    expect(() => optionsOf({ epsilon: value })).toThrow("mezo");
  });

  test("dropout", () => {
    const selection = [
      { id: "lora", settings: { dropout: 0.1 } },
      { id: "mezo", settings: {} },
    ];
    expect(() => planOnly(optionsOf(selection))).toThrow("Dropout would drown");
  });

  test("a trajectory of another base, noise or model, and files that are none", () => {
    const own = { ...trajectory, rates: [1e-3], differences: [[0.25]] };
    const present = { base: "b0", tensors: names };
    expect(() => {
      checkTrajectory(own, present);
    }).not.toThrow();
    const others = [
      [own, { ...present, base: "b1" }, "another base"],
      [{ ...own, noise: "philox/normal-0" }, present, "another noise"],
      [own, { ...present, tensors: names.slice(1) }, "another tensors"],
    ] as const;
    for (const [file, around, message] of others) {
      expect(() => {
        checkTrajectory(file, around);
      }).toThrow(message);
    }
    const text = encodeTrajectory({ ...own, differences: [[NaN]] });
    expect(decodeTrajectory(text, "file").differences).toEqual([[NaN]]);
    for (const broken of ["", "{}", text.slice(0, 40), text.replace("trajectory-1", "trajectory-9")]) {
      expect(() => decodeTrajectory(broken, "file")).toThrow("no trajectory");
    }
    const uneven = encodeTrajectory({ ...own, directions: 2 });
    expect(() => decodeTrajectory(uneven, "file")).toThrow("whole steps");
  });

  test("two ways of making gradients", () => {
    const second = { ...mezo, id: "second" };
    const selection = ["mezo", "second"].map((id) => ({ id, settings: {} }));
    expect(() => composeMethods(selection, model, [mezo, second])).toThrow("do not go together");
  });

  test("updates that bf16 would lose", () => {
    const optimizer = makeOptimizer({ id: "sgd", rounding: "nearest" });
    expect(() => planOnly(optionsOf({}, { dtype: "bf16", optimizer }))).toThrow("vanish");
  });
});
