import { must, ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import { elements } from "../ir/shape.js";
import type { TensorData } from "../ir/tensor.js";
import { allocate } from "../ir/tensor.js";
import { constant } from "./leaves.js";

/** Rows of a table: table [V, d], ids i32 [n] -> [n, d]. An id outside the table reads row 0 on every target. */
export const gatherOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "gather",
  cost: "memory",
  infer: (inputs) => {
    const table = must(inputs[0], "table");
    const ids = must(inputs[1], "ids");
    if (table.shape.length !== 2 || ids.shape.length !== 1 || ids.dtype !== "i32") {
      throw new ThimbleError("shape", "gather takes a table [rows, width] and i32 ids [n]");
    }
    return [{ shape: [must(ids.shape[0], "n"), must(table.shape[1], "width")], dtype: table.dtype }];
  },
  lowering: { kind: "gather" },
  evaluate: (inputs, _attributes, types) => {
    const type = must(types[0], "type");
    const table = must(inputs[0], "table");
    const [rows = 0, width = 0] = table.shape;
    const data = allocate(type.dtype, elements(type.shape));
    must(inputs[1], "ids").data.forEach((id, place) => {
      const row = id >= 0 && id < rows ? id : 0;
      data.set(table.data.subarray(row * width, (row + 1) * width), place * width);
    });
    return [{ ...type, data }];
  },
  gradient: ({ node, outputs }) => {
    const table = must(node.inputs[0], "table");
    const zeros = constant(node.graph, 0, table.shape);
    return [scatterAdd(zeros, must(node.inputs[1], "ids"), must(outputs[0], "output gradient")), undefined];
  },
});

export function gather(table: Node, ids: Node): Node {
  return table.graph.add(gatherOp, [table, ids]);
}

/** What an op that changes rows of its base makes: `write` puts an update's row into the row that its id names. */
function scattering(
  write: (data: TensorData, target: number, updates: TensorData) => void,
): Pick<OpDefinition, "cost" | "infer" | "lowering" | "evaluate"> {
  return {
    cost: "compute",
    infer: (inputs) => [must(inputs[0], "base")],
    lowering: { kind: "kernel" },
    evaluate: (inputs, _attributes, types) => {
      const type = must(types[0], "type");
      const [base, ids, updates] = [must(inputs[0], "base"), must(inputs[1], "ids"), must(inputs[2], "updates")];
      const [rows = 0, width = 0] = type.shape;
      const data = allocate(type.dtype, elements(type.shape));
      data.set(base.data);
      ids.data.forEach((id, place) => {
        const row = id >= 0 && id < rows ? id : 0;
        write(data, row * width, updates.data.subarray(place * width, (place + 1) * width));
      });
      return [{ ...type, data }];
    },
  };
}

/**
 * Adds row `i` of the updates [n, d] to row `ids[i]` of the base [V, d], in the order of i. A kernel of its own:
 * it works in place on its base, so a sum of gradients needs no second table.
 */
export const scatterAddOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "scatterAdd",
  ...scattering((data, target, updates) => {
    updates.forEach((update, column) => (data[target + column] = (data[target + column] ?? 0) + update));
  }),
  gradient: ({ node, outputs }) => {
    const dy = must(outputs[0], "output gradient");
    return [dy, undefined, gather(dy, must(node.inputs[1], "ids"))];
  },
});

export function scatterAdd(base: Node, ids: Node, updates: Node): Node {
  return base.graph.add(scatterAddOp, [base, ids, updates]);
}

/**
 * Replaces row `ids[i]` of the base [V, d] by row `i` of the updates [n, d] (the last of equal ids wins); ids outside
 * the base write row 0. In place like {@link scatterAddOp}: this is how a cache of keys and values grows.
 */
export const scatterWriteOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "scatterWrite",
  ...scattering((data, target, updates) => {
    data.set(updates, target);
  }),
  gradient: () => {
    throw new ThimbleError("no-gradient", "scatterWrite is for caches and has no gradient rule");
  },
});

export function scatterWrite(base: Node, ids: Node, updates: Node): Node {
  return base.graph.add(scatterWriteOp, [base, ids, updates]);
}

/**
 * Raises row `ids[i]` of the base [V, d] to row `i` of the updates [n, d] where that is larger, element by element; ids
 * outside the base raise row 0. In place like {@link scatterAddOp}.
 */
export const scatterMaximumOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "scatterMaximum",
  ...scattering((data, target, updates) => {
    updates.forEach((update, column) => {
      if (update > (data[target + column] ?? 0)) data[target + column] = update;
    });
  }),
  gradient: () => {
    throw new ThimbleError("no-gradient", "scatterMaximum is for optimizer states and has no gradient rule");
  },
});

/** See {@link scatterMaximumOp}. */
export function scatterMaximum(base: Node, ids: Node, updates: Node): Node {
  return base.graph.add(scatterMaximumOp, [base, ids, updates]);
}
