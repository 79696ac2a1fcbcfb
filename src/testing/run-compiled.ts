import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import { nodesOf } from "../ir/program.js";
import type { Tensor } from "../ir/tensor.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { compileProgram } from "../passes/pipeline.js";
import { layOutLeaves, planProgram } from "../plan/plan.js";
import { createNativeBackend } from "../session/native-backend.js";
import { cFacts } from "../targets/c/facts.js";
import { tensorFromBytes, tensorToBytes } from "../targets/interpret/memory.js";

const threads = 2;

/** Values of a program's outputs, compiled to C and run once. */
export async function runCompiled(source: Program, bindings: ReadonlyMap<Node, Tensor>): Promise<Map<string, Tensor>> {
  const { program, schedule } = compileProgram(source, { saved: "cheap" });
  const outputs = must(program.phases[0], "phase").outputs;
  const facts = cFacts(threads);
  const layout = layOutLeaves(
    nodesOf(program).filter((node) => node.op === leafOp),
    facts.alignment,
  );
  const plan = planProgram(program.name, schedule, outputs, [], layout, facts);
  const backend = await createNativeBackend({ threads, poison: true, timed: false });
  try {
    backend.allocate(layout.bytes + plan.extent);
    await backend.prepare([plan]);
    for (const [leaf, value] of bindings) {
      const { offset, bytes } = must(layout.buffers.get(leafAttributes(leaf).name), "buffer");
      tensorToBytes(value, backend.bytes(offset, bytes));
    }
    await backend.run(0);
    return new Map(
      [...plan.outputs].map(([name, { buffer, node }]) => [
        name,
        tensorFromBytes(node, backend.bytes(buffer.offset, buffer.bytes)),
      ]),
    );
  } finally {
    backend.close();
  }
}
