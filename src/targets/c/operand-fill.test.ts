import { expect, test } from "vitest";
import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { Graph } from "../../ir/node.js";
import type { Program } from "../../ir/program.js";
import { nodesOf } from "../../ir/program.js";
import { add, cast, multiply, subtract } from "../../ops/arithmetic.js";
import { linearCrossEntropy } from "../../ops/cross-entropy.js";
import { dot } from "../../ops/dot.js";
import { gather } from "../../ops/gather.js";
import { reshape } from "../../ops/layout.js";
import { leaf, leafAttributes, leafOp } from "../../ops/leaves.js";
import { normalFrom } from "../../ops/normal.js";
import { randomBits } from "../../ops/random.js";
import { compileProgram } from "../../passes/pipeline.js";
import { layOutLeaves, planProgram } from "../../plan/plan.js";
import { allocateArena } from "../../runtime/memory.js";
import { createPool } from "../../runtime/pool.js";
import { compareKernels } from "../../testing/differential.js";
import { plausibleValue, sequence } from "../../testing/tiny.js";
import { tensorToBytes } from "../interpret/memory.js";
import { cFacts } from "./facts.js";

type Type = "f32" | "bf16";

const rows = [3, 20, 50];
const depths = [37, 64, 300];
const columns = 45;

/** Products whose weights are computed from a stored matrix, scalars and noise, on either side and in either layout. */
function program(type: Type): Program {
  const graph = new Graph();
  const input = (name: string, shape: readonly number[], dtype: Node["dtype"]): Node =>
    leaf(graph, { name, role: "input", shape, dtype });
  const weight = (shape: readonly number[]): Node =>
    leaf(graph, { name: `weight${shape.join("x")}`, role: "weight", shape, dtype: type });
  const [low, high, step] = ["low", "high", "step"].map((name) => input(`scalar.${name}`, [], "u32")) as [
    Node,
    Node,
    Node,
  ];
  const size = input("scalar.size", [], "f32");
  const computed = (stored: Node, stream: number): Node => {
    const noise = normalFrom(randomBits({ low, high }, stream, step, stored.shape, 1));
    const moved = add(cast(stored, "f32"), multiply(noise, multiply(size, 0.05)));
    return cast(subtract(moved, 0.01), type);
  };
  const outputs: Record<string, Node> = {};
  for (const m of rows) {
    for (const k of depths) {
      const x = input(`x${m}x${k}`, [m, k], type);
      outputs[`along ${m} ${k}`] = dot(x, computed(weight([columns, k]), 1), { transposeB: true });
      outputs[`across ${m} ${k}`] = dot(x, computed(weight([k, columns]), 2));
      const other = input(`y${k}x${columns}`, [k, columns], type);
      outputs[`left along ${m} ${k}`] = dot(computed(weight([m, k]), 3), other);
      outputs[`left across ${m} ${k}`] = dot(computed(weight([k, m]), 4), other, { transposeA: true });
    }
  }
  const x = input("hidden", [50, 37], type);
  const head = computed(weight([33, 37]), 5);
  outputs["loss"] = linearCrossEntropy(x, head, input("labels", [50], "i32"), input("weights", [50], "f32"));
  outputs["embedded"] = cast(gather(head, input("ids", [9], "i32")), "f32");
  outputs["reshaped"] = dot(input("z", [5, 64], type), reshape(computed(weight([10, 6, 64]), 6), [60, 64]), {
    transposeB: true,
  });
  return { name: "products", graph, phases: [{ assignments: [], outputs }], gradients: [] };
}

test.each([
  ["f32", 2e-6],
  ["bf16", 1e-2],
] as const)(
  "operands computed while packing in %s are those of the interpreter, and are never stored",
  async (type, tolerance) => {
    const facts = cFacts(2);
    const { program: compiled, schedule } = compileProgram(program(type), { saved: "all", target: facts });
    const leaves = nodesOf(compiled).filter((node) => node.op === leafOp);
    const layout = layOutLeaves(leaves, facts.alignment, facts.limits);
    const plan = planProgram(compiled.name, schedule, compiled.phases[0]?.outputs ?? {}, [], layout, facts);
    const stored = schedule.steps.filter(
      ({ kernel }) => kernel.kind === "loops" && must(kernel.outputs[0], "output").shape.length > 0,
    );
    expect(stored.map(({ kernel }) => kernel.outputs.map(({ shape }) => shape))).toEqual([[[9, 37]]]);
    const pool = await createPool(2);
    const arena = allocateArena(pool, must(plan.shards[0], "arena"));
    try {
      const next = sequence(1);
      for (const node of leaves) {
        const { offset, bytes } = must(layout.buffers.get(leafAttributes(node).name), "buffer");
        tensorToBytes(plausibleValue(node, 33, 11, next), arena.view(offset, bytes));
      }
      const differences = await compareKernels(plan, arena, pool);
      expect(differences.length).toBeGreaterThan(36);
      expect(differences.filter(({ difference }) => !(difference < tolerance))).toEqual([]);
    } finally {
      arena.release();
      pool.close();
    }
  },
);
