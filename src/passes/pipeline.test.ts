import { describe, expect, test } from "vitest";
import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { nodesOf, rootsOf } from "../ir/program.js";
import type { Tensor } from "../ir/tensor.js";
import { composeMethods } from "../methods/compose.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { makeOptimizer } from "../optim/registry.js";
import { layOutLeaves, planProgram } from "../plan/plan.js";
import { reportPrograms } from "../plan/report.js";
import { buildTraining } from "../step/build.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { executePlan, interpretFacts } from "../targets/interpret/execute.js";
import { tensorFromBytes, tensorToBytes } from "../targets/interpret/memory.js";
import { plausibleValue, relativeDifference, sequence, tinyLlama } from "../testing/tiny.js";
import { compileProgram } from "./pipeline.js";

const cases = ["lora", "full"].flatMap((method) =>
  (["all", "cheap", "block"] as const).flatMap((saved) =>
    (["f32", "bf16"] as const).map((activation) => ({ method, saved, activation })),
  ),
);

function build(method: string, activation: "f32" | "bf16", clip: number | undefined): ReturnType<typeof buildTraining> {
  const definition = tinyLlama();
  return buildTraining({
    definition,
    methods: composeMethods([{ id: method, settings: {} }], definition),
    batch: 2,
    length: 6,
    activation,
    storedFormat: () => activation,
    optimizer: makeOptimizer({ states: activation }),
    clip,
    accumulate: 1,
    segments: true,
  });
}

describe("a planned step", () => {
  test.each(cases)("$method with saved values '$saved' in $activation computes what its graph means", (entry) => {
    const { method, saved, activation } = entry;
    const [source] = build(method, activation, saved === "all" ? 0.5 : undefined).programs;
    const original = must(source, "program");
    const { program, schedule } = compileProgram(original, { saved });
    const leaves = nodesOf(program).filter((node) => node.op === leafOp);
    const layout = layOutLeaves(leaves, 64);
    const outputs = must(program.phases[0], "phase").outputs;
    const plan = planProgram("train", schedule, outputs, program.gradients, layout, interpretFacts);
    const report = reportPrograms([plan], layout, []);
    expect(Object.values(report.composition).reduce((a, b) => a + b)).toBe(report.planBytes);
    const arena = new ArrayBuffer(report.planBytes);
    const bytes = (offset: number, length: number): Uint8Array => new Uint8Array(arena, offset, length);
    const placeOf = (leaf: Node): Uint8Array => {
      const buffer = must(layout.buffers.get(leafAttributes(leaf).name), "buffer");
      return bytes(buffer.offset, buffer.bytes);
    };
    const bindings = new Map<Node, Tensor>();
    const next = sequence(1);
    for (const leaf of leaves) {
      tensorToBytes(plausibleValue(leaf, 33, 6, next), placeOf(leaf));
      bindings.set(leaf, tensorFromBytes(leaf, placeOf(leaf)));
    }
    const expected = evaluate(rootsOf(original), bindings);
    executePlan(plan, bytes, { poison: true });
    const { assignments } = must(original.phases[0], "phase");
    assignments.forEach(({ target }, index) => {
      const actual = tensorFromBytes(target, placeOf(target)).data;
      expect(relativeDifference(actual, must(expected[index], "value").data), String(target.attributes["name"])).toBe(
        0,
      );
    });
    const loss = must(plan.outputs.get("loss"), "loss");
    expect(tensorFromBytes(loss.node, bytes(loss.buffer.offset, 4)).data[0]).toBe(
      must(expected[assignments.length], "loss").data[0],
    );
  });

  test("keeps less with each policy, and gradients are consumed as they are born", () => {
    const reports = (["all", "cheap", "block"] as const).map((saved) => {
      const { program, schedule } = compileProgram(must(build("full", "f32", undefined).programs[0], "program"), {
        saved,
      });
      const layout = layOutLeaves(
        nodesOf(program).filter((node) => node.op === leafOp),
        64,
      );
      const plan = planProgram(
        "train",
        schedule,
        program.phases[0]?.outputs ?? {},
        program.gradients,
        layout,
        interpretFacts,
      );
      return {
        saved: plan.buffers.filter(({ kind }) => kind === "saved").reduce((sum, { bytes }) => sum + bytes, 0),
        plan,
      };
    });
    const [all = 0, cheap = 0, block = 0] = reports.map((report) => report.saved);
    expect(cheap).toBeLessThan(all);
    expect(block).toBeLessThan(cheap);
    const { plan } = must(reports[1], "report");
    const gradients = plan.buffers.filter(({ kind }) => kind === "gradients");
    const alive = plan.steps.map(
      (_, step) => gradients.filter(({ start, end }) => start <= step && step <= end).length,
    );
    expect(Math.max(...alive)).toBeLessThan(gradients.length / 2);
  });
});
