import type { Node } from "../../ir/node.js";
import type { Place } from "../../models/types.js";
import { leafAttributes, leafOp } from "../../ops/leaves.js";
import {
  gradientIn,
  keptQuantised,
  quantiseGroups,
  quantiseTensor,
  remadeQuantised,
  roundTensor,
  straightThrough,
} from "../../ops/quantise.js";
import type { Float8Id } from "../../storage/float8.js";

/** What stands for the values of a block. All are straight-through: gradients pass as if they were the values. */
export interface Quantisers {
  /** The input of an op that is not linear, kept in small groups. */
  group(x: Node): Node;
  /** The input of a linear layer, kept with one scale. */
  tensor(x: Node): Node;
  /** The same of a value that backward has anyway: only the scale is kept. */
  remade(x: Node): Node;
  /** The weight of a linear layer, made again wherever it is multiplied. */
  weight(x: Node): Node;
  /** A linear layer's output, whose gradient is quantised. */
  output(x: Node): Node;
}

export interface FlowSettings {
  readonly group: number;
  readonly formats: Readonly<Record<"inputs" | "weights" | "outputs" | "gradients", Float8Id>>;
}

export function float8Quantisers({ group, formats }: FlowSettings): Quantisers {
  return {
    group: (x) => keptQuantised(x, quantiseGroups(x, formats.outputs, group), "f32"),
    tensor: (x) => keptQuantised(x, quantiseTensor(x, formats.inputs), x.dtype),
    remade: (x) => remadeQuantised(x, formats.inputs),
    weight: (x) => straightThrough(roundTensor(x, formats.weights), [x]),
    output: (x) => gradientIn(formats.gradients, x),
  };
}

const dense: readonly string[] = ["f32", "bf16", "f16"];

/** Blocks of a packed base are decoded where they are multiplied; in FP8 they would have to be unpacked in memory. */
function isPacked(weight: Node): boolean {
  return weight.op === leafOp && !dense.includes(leafAttributes(weight).format);
}

/** The FP8 precision flow of a block (Xi et al. 2024, section 5). */
export function represented(quantisers: Quantisers, place: Place, x: Node): Node {
  switch (place.role) {
    case "input":
      // Attention keeps its output for its own backward pass.
      return place.linear.role === "output" ? quantisers.remade(x) : quantisers.tensor(x);
    case "weight":
      return isPacked(x) ? x : quantisers.weight(x);
    case "output":
      return quantisers.output(x);
    default:
      return quantisers.group(x);
  }
}
