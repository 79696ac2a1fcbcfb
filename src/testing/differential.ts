import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Tensor } from "../ir/tensor.js";
import type { ProgramPlan } from "../plan/plan.js";
import { compileLibrary } from "../runtime/compiler.js";
import type { Arena } from "../runtime/memory.js";
import type { Pool } from "../runtime/pool.js";
import { lowerProgram } from "../targets/c/lower.js";
import { prelude } from "../targets/c/prelude.js";
import { evaluate } from "../targets/interpret/evaluate.js";
import { tensorFromBytes } from "../targets/interpret/memory.js";
import { relativeDifference } from "./tiny.js";

/** How far one value of one kernel is from its meaning. */
export interface KernelDifference {
  readonly step: number;
  readonly kernel: string;
  readonly output: string;
  readonly scope: string;
  readonly difference: number;
}

/**
 * Runs a program kernel by kernel in an arena that holds its inputs, and compares every value that a kernel writes
 * with the interpreter's, given the same operands: errors are found where they are made.
 */
export async function compareKernels(plan: ProgramPlan, arena: Arena, pool: Pool): Promise<KernelDifference[]> {
  const lowered = lowerProgram(plan, pool.threads);
  const library = await compileLibrary(
    lowered.kernels.map(({ name, source }) => ({ name, source, includes: [prelude] })),
  );
  const differences: KernelDifference[] = [];
  const address = (offset: number): bigint => arena.address + BigInt(offset);
  for (const [index, planned] of plan.steps.entries()) {
    const { kernel } = planned.step;
    const bindings = new Map<Node, Tensor>();
    kernel.inputs.forEach((node, place) => {
      const { offset, bytes } = must(planned.inputs[place], "input");
      bindings.set(node, tensorFromBytes(node, arena.view(offset, bytes).slice()));
    });
    const { entries } = must(lowered.steps[index], "step");
    const calls = entries.map((entry) => ({
      kind: "kernel" as const,
      address: library.address(entry.kernel),
      arguments: entry.words.map((word) => (typeof word === "number" ? word : address(word.buffer.offset))),
    }));
    const program = pool.program(calls);
    program.runSync();
    program.close();
    const expected = evaluate(kernel.outputs, bindings);
    kernel.outputs.forEach((node, place) => {
      const { offset, bytes } = must(planned.outputs[place], "output");
      const actual = tensorFromBytes(node, arena.view(offset, bytes).slice());
      const difference = relativeDifference(actual.data, must(expected[place], "value").data);
      differences.push({
        step: index,
        kernel: entries.map((entry) => entry.kernel).join(),
        output: node.op.name,
        scope: node.scope,
        difference,
      });
    });
    for (const [from, to] of planned.copies) arena.view(to.offset, to.bytes).set(arena.view(from.offset, from.bytes));
  }
  return differences;
}
