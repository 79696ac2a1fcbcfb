/** Sets of places in a matrix that change while a run goes on: which belong to them, which leave, and which arrive. */
import { must, ThimbleError } from "../errors.js";
import type { Node, TensorType } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import type { Shape } from "../ir/shape.js";
import { bitcast, multiply, multiplyHigh, shiftRight, subtract } from "./arithmetic.js";
import { constant } from "./leaves.js";

function checkLines(name: string, inputs: readonly TensorType[], types: readonly ("i32" | "f32")[]): Shape[] {
  const fits = inputs.every(({ shape, dtype }, index) => dtype === types[index] && shape.length <= 1);
  if (fits && inputs.length === types.length) return inputs.map(({ shape }) => shape);
  throw new ThimbleError("shape", `${name} takes lines of ${types.join(", ")}`, {
    given: inputs.map(({ shape, dtype }) => `${dtype} [${shape.join(", ")}]`).join(", "),
  });
}

const integers = (shape: Shape, values: Iterable<number>) => ({
  shape,
  dtype: "i32" as const,
  data: Int32Array.from(values),
});

/**
 * For each of `queries`, i32 [C], the number of the first of `keys`, i32 [K], that equals it, or -1: i32 [C]. What two
 * sets have in common, and where: values that are kept by number are carried over with a gather.
 */
export const matchPlacesOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "matchPlaces",
  cost: "memory",
  infer: (inputs) => [{ shape: must(checkLines("matchPlaces", inputs, ["i32", "i32"])[1], "queries"), dtype: "i32" }],
  lowering: { kind: "kernel" },
  evaluate: ([keys, queries]) => {
    const found = new Map<number, number>();
    must(keys, "keys").data.forEach((key, number) => {
      if (!found.has(key)) found.set(key, number);
    });
    const { shape, data } = must(queries, "queries");
    return [
      integers(
        shape,
        Array.from(data, (query) => found.get(query) ?? -1),
      ),
    ];
  },
});

/** See {@link matchPlacesOp}. */
export function matchPlaces(keys: Node, queries: Node): Node {
  return keys.graph.add(matchPlacesOp, [keys, queries]);
}

/**
 * Who takes which slot of a set of K, i32 [K]: the number of a candidate, or -1 where the slot stays as it is. Inputs:
 * `leaving` i32 [K], the slots in the order in which they are given up; `arriving` i32 [C], the numbers of the candidates
 * from the best on, -1 for none; `slots` i32 [C], the slot that already holds a candidate's place, or -1; `limit` i32 [].
 * The first `limit` slots leave. A candidate whose slot does not is passed over; of the others the first `limit` arrive.
 * One whose slot leaves keeps it; the rest take what else leaves, in its order, and slots that nobody takes stay.
 */
export const exchangeSlotsOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "exchangeSlots",
  cost: "memory",
  infer: (inputs) => [
    { shape: must(checkLines("exchangeSlots", inputs, ["i32", "i32", "i32", "i32"])[0], "slots"), dtype: "i32" },
  ],
  lowering: { kind: "kernel" },
  evaluate: ([leaving, arriving, slots, limit]) => {
    const { shape, data: order } = must(leaving, "leaving");
    const most = Math.max(0, Math.min(must(limit, "limit").data[0] ?? 0, order.length));
    const leaves = new Set(order.subarray(0, most));
    const fresh: number[] = [];
    const kept = new Set<number>();
    for (const candidate of must(arriving, "arriving").data) {
      if (candidate < 0 || fresh.length + kept.size >= most) continue;
      const slot = must(slots, "slots").data[candidate] ?? -1;
      if (slot < 0) fresh.push(candidate);
      else if (leaves.has(slot)) kept.add(slot);
    }
    const source = new Int32Array(order.length).fill(-1);
    let next = 0;
    for (const slot of order.subarray(0, most)) {
      if (!kept.has(slot) && next < fresh.length) source[slot] = fresh[next++] ?? -1;
    }
    return [integers(shape, source)];
  },
});

export interface Exchange {
  readonly leaving: Node;
  readonly arriving: Node;
  readonly slots: Node;
  readonly limit: Node;
}

/** See {@link exchangeSlotsOp}. */
export function exchangeSlots({ leaving, arriving, slots, limit }: Exchange): Node {
  return leaving.graph.add(exchangeSlotsOp, [leaving, arriving, slots, limit]);
}

/**
 * The places row * n + column of the largest products of an outer product that are not in a set, i32 [count], best
 * first, -1 past the last. Inputs: `rows` f32 [m] and `columns` f32 [n], none of them negative; `taken` i32, the set;
 * `limit` i32 [], how many are wanted. Only products above 0 count. Of equal products the one with the larger row factor
 * comes first, then the one with the larger column factor; equal factors go by their number. NaN is the least factor.
 * The product itself is never made.
 */
export const topOuterOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "topOuter",
  cost: "memory",
  infer: (inputs, attributes) => {
    checkLines("topOuter", inputs, ["f32", "f32", "i32", "i32"]);
    return [{ shape: [attributes["count"] as number], dtype: "i32" }];
  },
  lowering: { kind: "kernel" },
  evaluate: ([rows, columns, taken, limit], attributes) => {
    const count = attributes["count"] as number;
    const [right, down] = [must(columns, "columns").data, must(rows, "rows").data];
    const set = new Set(must(taken, "taken").data);
    const best = { rows: descending(down), columns: descending(right) };
    const found: { product: number; row: number; column: number }[] = [];
    best.rows.forEach((row, rowRank) => {
      best.columns.forEach((column, columnRank) => {
        const product = Math.fround((down[row] ?? 0) * (right[column] ?? 0));
        if (product > 0 && !set.has(row * right.length + column)) {
          found.push({ product, row: rowRank, column: columnRank });
        }
      });
    });
    found.sort((a, b) => b.product - a.product || a.row - b.row || a.column - b.column);
    const places = new Int32Array(count).fill(-1);
    found.slice(0, Math.max(0, Math.min(count, must(limit, "limit").data[0] ?? 0))).forEach((one, rank) => {
      places[rank] = (best.rows[one.row] ?? 0) * right.length + (best.columns[one.column] ?? 0);
    });
    return [integers([count], places)];
  },
});

function descending(values: ArrayLike<number>): number[] {
  const at = (number: number): number => {
    const value = values[number] ?? NaN;
    return Number.isNaN(value) ? -1 : value;
  };
  return Array.from({ length: values.length }, (_, number) => number).sort((a, b) => at(b) - at(a) || a - b);
}

export interface OuterSearch {
  readonly rows: Node;
  readonly columns: Node;
  readonly taken: Node;
  readonly limit: Node;
}

/** See {@link topOuterOp}. */
export function topOuter({ rows, columns, taken, limit }: OuterSearch, count: number): Node {
  return rows.graph.add(topOuterOp, [rows, columns, taken, limit], { count });
}

/** Row and column, i32, of places in a matrix of so many columns: a division by a multiplication, exact below 2^31. */
export function rowsAndColumns(places: Node, columns: number): { readonly rows: Node; readonly columns: Node } {
  const { graph, shape } = places;
  const whole = (value: number, dtype: "i32" | "u32"): Node => constant(graph, value, shape, dtype);
  if (columns === 1) return { rows: places, columns: whole(0, "i32") };
  // Granlund and Montgomery 1994, theorem 4.2: floor(x / d) = floor(x ceil(2^(31 + l) / d) / 2^(31 + l)), l = ceil(log2 d).
  const bits = Math.ceil(Math.log2(columns));
  const factor = Number((2n ** BigInt(31 + bits) + BigInt(columns) - 1n) / BigInt(columns));
  const high = multiplyHigh(bitcast(places, "u32"), whole(factor, "u32"));
  const rows = bitcast(shiftRight(high, whole(bits - 1, "u32")), "i32");
  return { rows, columns: subtract(places, multiply(rows, whole(columns, "i32"))) };
}
