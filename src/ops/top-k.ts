import { must, ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import type { Shape } from "../ir/shape.js";
import { elements } from "../ir/shape.js";
import { allocate } from "../ir/tensor.js";
import { add, multiply } from "./arithmetic.js";
import { expand, reshape } from "./layout.js";
import { constant, iota, result } from "./leaves.js";
import { gather, scatterAdd } from "./gather.js";

/** How many are taken of each row, by what measure, and in which order they are given. */
export interface TopKOptions {
  readonly count: number;
  /** `largest` and `smallest` compare values, `magnitude` absolute values (the largest first). */
  readonly by: "largest" | "smallest" | "magnitude";
  /** `rank`: best first. `index`: in the order in which they stand in the row. */
  readonly order: "rank" | "index";
}

/**
 * The `count` best of each row of x, f32 [..., n]: their values f32 [..., count] and places i32 [..., count]. One order
 * on every target: of equal values the first comes first, -0 equals 0, and NaN comes last whatever is asked for.
 */
export const topKOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "topK",
  cost: "memory",
  infer: (inputs, attributes) => {
    const { shape, dtype } = must(inputs[0], "operand");
    const count = attributes["count"] as number;
    const length = shape.at(-1) ?? 0;
    if (dtype !== "f32" || !Number.isInteger(count) || count < 1 || count > length) {
      throw new ThimbleError("shape", "topK takes between one and all of the elements of each row of f32", {
        given: `${count} of ${dtype} [${shape.join(", ")}]`,
        expected: `1 to ${length}`,
      });
    }
    const taken: Shape = [...shape.slice(0, -1), count];
    return [
      { shape: taken, dtype: "f32" },
      { shape: taken, dtype: "i32" },
    ];
  },
  lowering: { kind: "kernel" },
  evaluate: (inputs, attributes, types) => {
    const x = must(inputs[0], "operand");
    const { count, by, order } = attributes as unknown as TopKOptions;
    const type = must(types[0], "type");
    const length = must(x.shape.at(-1), "row");
    const values = allocate("f32", elements(type.shape));
    const places = new Int32Array(values.length);
    for (let row = 0; row * length < x.data.length; row++) {
      const line = x.data.subarray(row * length, (row + 1) * length);
      const best = bestOf(line, by).slice(0, count);
      if (order === "index") best.sort((a, b) => a - b);
      best.forEach((place, rank) => {
        values[row * count + rank] = line[place] ?? 0;
        places[row * count + rank] = place;
      });
    }
    return [
      { ...type, data: values },
      { ...must(types[1], "type"), data: places },
    ];
  },
  // The values are elements of x: their gradients go back to the places that they came from.
  gradient: ({ node, outputs }) => {
    const [dy] = outputs;
    if (dy === undefined) return [undefined];
    const x = must(node.inputs[0], "operand");
    const zeros = constant(node.graph, 0, [elements(x.shape), 1]);
    const updates = reshape(dy, [elements(dy.shape), 1]);
    return [reshape(scatterAdd(zeros, flatPlaces(node), updates), x.shape)];
  },
});

function bestOf(line: ArrayLike<number>, by: TopKOptions["by"]): number[] {
  const measure = (place: number): number => {
    const value = line[place] ?? 0;
    if (Number.isNaN(value)) return Infinity;
    return by === "magnitude" ? -Math.abs(value) : by === "largest" ? -value : value;
  };
  const nan = (place: number): number => (Number.isNaN(line[place]) ? 1 : 0);
  return Array.from({ length: line.length }, (_, place) => place).sort((a, b) => {
    const [first, second] = [measure(a), measure(b)];
    // Infinities compare as equal here rather than giving NaN.
    return nan(a) - nan(b) || (first < second ? -1 : first > second ? 1 : a - b);
  });
}

/** Places of all rows in x as one line, i32 [rows * count]. */
function flatPlaces(node: Node): Node {
  const x = must(node.inputs[0], "operand");
  const places = result(node, 1);
  const length = must(x.shape.at(-1), "row");
  const rows = elements(x.shape) / length;
  const count = elements(places.shape) / rows;
  const starts = multiply(iota(node.graph, [rows, 1], 0), constant(node.graph, length, [rows, 1], "i32"));
  return reshape(add(reshape(places, [rows, count]), expand(starts, [rows, count])), [rows * count]);
}

/** See {@link topKOp}. */
export function topK(x: Node, options: TopKOptions): { readonly values: Node; readonly places: Node } {
  const { count, by, order } = options;
  const node = x.graph.add(topKOp, [x], { count, by, order });
  return { values: result(node, 0), places: result(node, 1) };
}

/** Elements of a line [n] at i32 places [k], as [k]. */
export function take(line: Node, places: Node): Node {
  return reshape(gather(reshape(line, [elements(line.shape), 1]), places), places.shape);
}
