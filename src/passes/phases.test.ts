import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { Graph } from "../ir/node.js";
import type { Phase, Program } from "../ir/program.js";
import { nodesOf } from "../ir/program.js";
import type { Tensor } from "../ir/tensor.js";
import { add, multiply, subtract } from "../ops/arithmetic.js";
import { dot } from "../ops/dot.js";
import { reduceSum, reshape } from "../ops/layout.js";
import { leaf, leafAttributes, leafOp } from "../ops/leaves.js";
import { randomBits, uniformFrom } from "../ops/random.js";
import type { ProgramPlan, TargetFacts } from "../plan/plan.js";
import { layOutLeaves, planProgram } from "../plan/plan.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { executePlan, interpretFacts } from "../targets/interpret/execute.js";
import { tensorFromBytes, tensorToBytes } from "../targets/interpret/memory.js";
import { plausibleValue, sequence } from "../testing/tiny.js";
import { checkBindings, ShardedMemory, webgpuLikeFacts } from "../testing/webgpu-like.js";
import { compileProgram } from "./pipeline.js";
import { versionKey } from "./versions.js";

const depth = 3;
const width = 4;

const named = (graph: Graph, name: string, version: number): Node =>
  leaf(graph, { name, role: "weight", shape: [width, width], dtype: "f32", version });

/** Two losses at weights moved to either side by the same noise, then an update along it (MeZO, in place). */
function zerothOrderStep(): Program {
  const graph = new Graph();
  const input = (name: string, dtype: "f32" | "u32", shape: readonly number[] = []): Node =>
    leaf(graph, { name, role: "input", dtype, shape });
  const x = input("x", "f32", [5, width]);
  const [epsilon, rate] = [input("scalar.epsilon", "f32"), input("scalar.rate", "f32")];
  const [low, high, step] = [input("scalar.low", "u32"), input("scalar.high", "u32"), input("scalar.step", "u32")];
  const weights = (version: number): Node[] =>
    Array.from({ length: depth }, (_, index) => named(graph, `w${index}`, version));
  const noise = weights(0).map((weight, index) =>
    uniformFrom(randomBits({ low, high }, input(`stream.${index}`, "u32"), step, weight.shape)),
  );
  const lossOf = (current: readonly Node[]): Node => {
    const hidden = current.reduce((h, weight) => add(h, dot(h, weight, { transposeB: true })), x);
    return reduceSum(multiply(hidden, hidden), [0, 1]);
  };
  const moved = (version: number, by: Node): Phase["assignments"] =>
    weights(version).map((target, index) => ({
      target,
      value: add(target, multiply(must(noise[index], "noise"), by)),
    }));
  const above = lossOf(weights(1));
  const below = lossOf(weights(2));
  const slope = multiply(subtract(above, below), rate);
  return {
    name: "step",
    graph,
    phases: [
      { assignments: moved(0, epsilon), outputs: {} },
      { assignments: moved(1, multiply(epsilon, -2)), outputs: { above } },
      { assignments: moved(2, subtract(epsilon, reshape(slope, []))), outputs: { below } },
    ],
    gradients: [],
  };
}

interface Planned {
  readonly plan: ProgramPlan;
  readonly initial: ReadonlyMap<string, Tensor>;
  readonly final: ReadonlyMap<string, Tensor>;
  readonly outputs: ReadonlyMap<string, Tensor>;
}

function run(source: Program, facts: TargetFacts): Planned {
  const { program, schedule } = compileProgram(source, { saved: "all", target: facts });
  const leaves = nodesOf(program).filter((node) => node.op === leafOp);
  const layout = layOutLeaves(leaves, facts.alignment, facts.limits);
  const outputs = Object.assign({}, ...program.phases.map((phase) => phase.outputs)) as Record<string, Node>;
  const plan = planProgram(program.name, schedule, outputs, [], layout, facts);
  const memory = new ShardedMemory(plan.shards);
  const next = sequence(3);
  const place = (node: Node): Uint8Array => memory.of(must(layout.buffers.get(leafAttributes(node).name), "buffer"));
  const read = (): Map<string, Tensor> =>
    new Map(leaves.map((node) => [leafAttributes(node).name, tensorFromBytes(node, place(node))]));
  for (const node of leaves) {
    if (leafAttributes(node).version === 0) tensorToBytes(plausibleValue(node, 8, 4, next), place(node));
  }
  const initial = read();
  executePlan(plan, memory.bytes, { poison: true });
  const results = [...plan.outputs].map(
    ([name, { buffer, node }]) => [name, tensorFromBytes(node, memory.of(buffer))] as const,
  );
  return { plan, initial, final: read(), outputs: new Map(results) };
}

/** The meaning of a program: phase by phase, each on what the one before left. */
function meaning(program: Program, initial: ReadonlyMap<string, Tensor>): Map<string, Tensor> {
  const values = new Map<string, Tensor>();
  const bindings = new Map<Node, Tensor>();
  for (const node of nodesOf(program).filter((one) => one.op === leafOp)) {
    const { name, version } = leafAttributes(node);
    if (version === 0) bindings.set(node, must(initial.get(name), name));
  }
  const results = new Map<string, Tensor>(initial);
  for (const { assignments, outputs } of program.phases) {
    const effects = [...assignments.map(({ value }) => value), ...Object.values(outputs)];
    const made = evaluate(effects, bindings);
    assignments.forEach(({ target }, index) => {
      values.set(versionKey(target, 1), must(made[index], "value"));
      results.set(leafAttributes(target).name, must(made[index], "value"));
    });
    Object.keys(outputs).forEach((name, index) => results.set(name, must(made[assignments.length + index], "output")));
    for (const node of nodesOf(program)) {
      const known = node.op === leafOp ? values.get(versionKey(node)) : undefined;
      if (known !== undefined) bindings.set(node, known);
    }
  }
  return results;
}

const tight = webgpuLikeFacts({ largestShard: 2048, largestBinding: 1024, bindings: 5 });

function expectMeaning(source: Program, { initial, final, outputs }: Planned): void {
  const expected = meaning(source, initial);
  for (const [name, tensor] of [...final, ...outputs]) {
    expect(Array.from(tensor.data), name).toEqual(Array.from(must(expected.get(name), name).data));
  }
}

describe("a program of several phases", () => {
  test.each([
    ["plain", interpretFacts],
    ["limited", tight],
  ] as const)("changes its weights three times, in place (%s target)", (_, facts) => {
    const source = zerothOrderStep();
    const planned = run(source, facts);
    expectMeaning(source, planned);
    const { plan, initial, final } = planned;
    expect(checkBindings(plan, facts)).toEqual([]);
    expect(final.get("w0")).not.toEqual(initial.get("w0"));
    const writes = plan.steps.flatMap(({ outputs }) => outputs).filter(({ name }) => name === "w0");
    expect(writes.map(({ end }) => end)).toEqual([Infinity, Infinity, Infinity]);
    expect(plan.steps.flatMap(({ copies }) => copies)).toEqual([]);
  });

  test("keeps in memory what a later phase needs of a value that is replaced, and makes the rest again", () => {
    const graph = new Graph();
    const [before, after] = [named(graph, "w", 0), named(graph, "w", 1)];
    const other = named(graph, "v", 0);
    const doubled = multiply(other, 2);
    const squared = multiply(before, before);
    const source: Program = {
      name: "step",
      graph,
      phases: [
        { assignments: [{ target: before, value: add(squared, doubled) }], outputs: {} },
        { assignments: [{ target: after, value: subtract(multiply(after, squared), doubled) }], outputs: {} },
      ],
      gradients: [],
    };
    const planned = run(source, interpretFacts);
    expectMeaning(source, planned);
    expect(planned.plan.buffers).toHaveLength(1);
  });

  test("reads a product of an old value after the value is replaced", () => {
    const graph = new Graph();
    const [before, after] = [named(graph, "w", 0), named(graph, "w", 1)];
    const product = dot(before, before);
    const source: Program = {
      name: "step",
      graph,
      phases: [
        { assignments: [{ target: before, value: add(before, product) }], outputs: {} },
        { assignments: [{ target: after, value: add(after, product) }], outputs: { total: reduceSum(after, [0, 1]) } },
      ],
      gradients: [],
    };
    expectMeaning(source, run(source, interpretFacts));
  });

  test("refuses to read what an earlier phase has replaced, and versions that do not follow each other", () => {
    const graph = new Graph();
    const [before, after] = [named(graph, "w", 0), named(graph, "w", 1)];
    const program = (target: Node, value: Node, output: Node): Program => ({
      name: "step",
      graph,
      phases: [
        { assignments: [{ target, value }], outputs: {} },
        { assignments: [], outputs: { output } },
      ],
      gradients: [],
    });
    const compile = (source: Program) => () => compileProgram(source, { saved: "all" });
    expect(compile(program(before, add(before, 1), reduceSum(before, [0])))).toThrow(
      expect.objectContaining({ code: "phase-stale-read" }),
    );
    expect(compile(program(after, add(after, 1), reduceSum(after, [0])))).toThrow(/version 1 where 0 holds/);
    expect(compile(program(before, add(before, 1), before))).toThrow(
      expect.objectContaining({ code: "phase-stale-read" }),
    );
  });
});
