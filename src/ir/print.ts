import type { Node } from "./node.js";
import type { Program } from "./program.js";
import { nodesOf } from "./program.js";

/** One node a line: `%12 = dot(%3, %7) {transposeB: true} : f32[4, 8]  // blocks.0.attention`. */
export function printNode(node: Node): string {
  const inputs = node.inputs.map((input) => `%${input.id}`).join(", ");
  const attributes = Object.entries(node.attributes).map(([key, value]) => `${key}: ${JSON.stringify(value)}`);
  const types = node.types.map(({ dtype, shape }) => `${dtype}[${shape.join(", ")}]`).join(", ");
  const braces = attributes.length === 0 ? "" : ` {${attributes.join(", ")}}`;
  return `%${node.id} = ${node.op.name}(${inputs})${braces} : ${types}${node.scope === "" ? "" : `  // ${node.scope}`}`;
}

/** A program as text: its nodes in order, then its effects. */
export function printProgram(program: Program): string {
  const lines = nodesOf(program).map(printNode);
  program.phases.forEach((phase, index) => {
    lines.push(`phase ${index}:`);
    for (const { target, value } of phase.assignments)
      lines.push(`  ${String(target.attributes["name"])} <- %${value.id}`);
    for (const [name, value] of Object.entries(phase.outputs)) lines.push(`  ${name} = %${value.id}`);
  });
  return `${lines.join("\n")}\n`;
}
