import { invariant, must } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import { scalar as s } from "../ir/scalar.js";
import { elements } from "../ir/shape.js";
import { allocate } from "../ir/tensor.js";

const tables = new Map<string, readonly number[]>();

/** The values of the table that an op names: an attribute would be compared, number by number, for every node. */
function tableOf(name: unknown): readonly number[] {
  return must(tables.get(name as string), "lookup table");
}

export const lookupOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "lookup",
  cost: "memory",
  infer: ([index]) => {
    invariant(index?.dtype === "i32", "a table is read by i32 indices");
    return [{ shape: index.shape, dtype: "f32" }];
  },
  lowering: {
    kind: "elementwise",
    expression: ([index], attributes) => s.table(tableOf(attributes["table"]), must(index, "index")),
  },
  evaluate: ([index], attributes, types) => {
    const { shape } = must(types[0], "type");
    const values = tableOf(attributes["table"]);
    const data = allocate("f32", elements(shape));
    for (let place = 0; place < data.length; place++) data[place] = values[index?.data[place] ?? 0] ?? 0;
    return [{ shape, dtype: "f32", data }];
  },
});

/**
 * Declares a table of f32 constants under a name of its own and returns the function that reads it at i32 indices, of
 * any shape, all of which must be within it. No gradient flows.
 */
export function defineLookup(name: string, values: readonly number[]): (index: Node) => Node {
  invariant(!tables.has(name), `there are two tables named ${name}`);
  tables.set(name, values.map(Math.fround));
  return (index) => index.graph.add(lookupOp, [index], { table: name });
}
