import { invariant, must, ThimbleError } from "../errors.js";
import type { Attributes, Node, TensorType } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import { elements } from "../ir/shape.js";
import { allocate } from "../ir/tensor.js";
import { cast } from "./arithmetic.js";
import { gather, scatterAdd, scatterWrite } from "./gather.js";
import { reshape } from "./layout.js";
import { rowsOf } from "./saved.js";

/** The size of a matrix S whose entries are given by place: i32 [K], row * columns + column, all different. */
export interface SparseSize {
  readonly rows: number;
  readonly columns: number;
}

/** Which of x Sᵀ (x [tokens, columns]) and x S (x [tokens, rows]) is made. */
export interface SparseAttributes extends SparseSize {
  readonly transpose: boolean;
}

export function sparseAttributes(attributes: Attributes): SparseAttributes {
  return attributes as unknown as SparseAttributes;
}

/** Places fit in i32 on every target. */
const mostElements = 2 ** 31 - 1;

function checkPlaces(size: SparseSize, places: TensorType | undefined, what: string): number {
  const count = places?.shape[0];
  if (places?.dtype === "i32" && places.shape.length === 1 && count !== undefined) {
    if (size.rows * size.columns <= mostElements) return count;
  }
  throw new ThimbleError("shape", `${what} takes i32 places [K] in a matrix of at most ${mostElements} elements`, {
    given: `places in [${size.rows}, ${size.columns}]`,
  });
}

function checkMatrix({ shape, dtype }: TensorType, width: number, what: string): number {
  const isFloat = dtype === "f32" || dtype === "bf16";
  if (shape.length === 2 && shape[1] === width && isFloat) return must(shape[0], "tokens");
  throw new ThimbleError("shape", `${what} takes f32 or bf16 [tokens, ${width}]`, {
    given: `${dtype} [${shape.join(", ")}]`,
  });
}

/**
 * The product with a sparse matrix S, f32: x [tokens, columns] (f32 or bf16) times Sᵀ, or with `transpose` x [tokens,
 * rows] times S. Inputs are x, places i32 [K] and values f32 [K]; terms are added in the order of the places.
 */
export const sparseDotOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "sparseDot",
  cost: "compute",
  infer: ([x, places, values], given) => {
    const { rows, columns, transpose } = sparseAttributes(given);
    const count = checkPlaces({ rows, columns }, places, "sparseDot");
    const tokens = checkMatrix(must(x, "operand"), transpose ? rows : columns, "sparseDot");
    if (values?.dtype !== "f32" || elements(values.shape) !== count) {
      throw new ThimbleError("shape", "sparseDot takes as many f32 values as places");
    }
    return [{ shape: [tokens, transpose ? columns : rows], dtype: "f32" }];
  },
  lowering: { kind: "kernel" },
  evaluate: (inputs, given, types) => {
    const [x, places, values] = [must(inputs[0], "x"), must(inputs[1], "places"), must(inputs[2], "values")];
    const { rows, columns, transpose } = sparseAttributes(given);
    const type = must(types[0], "type");
    const data = allocate("f32", elements(type.shape));
    const [from, to] = transpose ? [rows, columns] : [columns, rows];
    places.data.forEach((place, entry) => {
      const [row, column] = [Math.floor(place / columns), place % columns];
      const [source, target] = transpose ? [row, column] : [column, row];
      const value = values.data[entry] ?? 0;
      for (let token = 0; token * to < data.length; token++) {
        const at = token * to + target;
        data[at] = (data[at] ?? 0) + value * (x.data[token * from + source] ?? 0);
      }
    });
    return [{ ...type, data }];
  },
  gradient: ({ node, outputs, wants }) => {
    const [x, places, values] = node.inputs as [Node, Node, Node];
    const { transpose, ...size } = sparseAttributes(node.attributes);
    // In bf16 as the gradients of dense products of such operands are.
    const dy = cast(must(outputs[0], "output gradient"), x.dtype);
    const kept = rowsOf(x);
    const [own, other] = kept === undefined ? [x, dy] : [kept.rows, gather(dy, kept.ids)];
    return [
      wants[0] === true ? sparseDot(dy, places, values, { ...size, transpose: !transpose }) : undefined,
      undefined,
      wants[2] === true ? (transpose ? sampledDot(own, other, places) : sampledDot(other, own, places)) : undefined,
    ];
  },
});

/** See {@link sparseDotOp}. */
export function sparseDot(x: Node, places: Node, values: Node, size: SparseSize & { transpose?: boolean }): Node {
  const { rows, columns, transpose = false } = size;
  return x.graph.add(sparseDotOp, [x, places, values], { rows, columns, transpose });
}

/**
 * Single elements of aᵀ b, f32 [K]: for a [tokens, rows] and b [tokens, columns] (f32 or bf16) those at the places, i32
 * [K], row * columns + column. The rest of the product is never made.
 */
export const sampledDotOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "sampledDot",
  cost: "compute",
  infer: ([a, b, places]) => {
    const [left, right] = [must(a, "a"), must(b, "b")];
    const size = { rows: left.shape[1] ?? 0, columns: right.shape[1] ?? 0 };
    const count = checkPlaces(size, places, "sampledDot");
    const tokens = checkMatrix(left, size.rows, "sampledDot");
    if (checkMatrix(right, size.columns, "sampledDot") !== tokens) {
      throw new ThimbleError("shape", "sampledDot takes matrices of as many tokens");
    }
    return [{ shape: [count], dtype: "f32" }];
  },
  lowering: { kind: "kernel" },
  evaluate: (inputs, _given, types) => {
    const [a, b, places] = [must(inputs[0], "a"), must(inputs[1], "b"), must(inputs[2], "places")];
    const [tokens = 0, rows = 0] = a.shape;
    const columns = must(b.shape[1], "columns");
    const data = allocate("f32", places.data.length);
    places.data.forEach((place, entry) => {
      const [row, column] = [Math.floor(place / columns), place % columns];
      let sum = 0;
      for (let token = 0; token < tokens; token++) {
        sum += (a.data[token * rows + row] ?? 0) * (b.data[token * columns + column] ?? 0);
      }
      data[entry] = sum;
    });
    return [{ ...must(types[0], "type"), data }];
  },
  gradient: ({ node, outputs, wants }) => {
    const [a, b, places] = node.inputs as [Node, Node, Node];
    const dy = must(outputs[0], "output gradient");
    const size = { rows: must(a.shape[1], "rows"), columns: must(b.shape[1], "columns") };
    return [
      wants[0] === true ? sparseDot(b, places, dy, size) : undefined,
      wants[1] === true ? sparseDot(a, places, dy, { ...size, transpose: true }) : undefined,
      undefined,
    ];
  },
});

/** See {@link sampledDotOp}. */
export function sampledDot(a: Node, b: Node, places: Node): Node {
  return a.graph.add(sampledDotOp, [a, b, places]);
}

/** A matrix as one column, a row an element: the scatters and gathers of rows then work on single elements. */
function asColumn(matrix: Node): Node {
  return reshape(matrix, [elements(matrix.shape), 1]);
}

/** Elements of a matrix [m, n] at places i32 [K], as [K]. */
export function entriesOf(matrix: Node, places: Node): Node {
  return reshape(gather(asColumn(matrix), places), [elements(places.shape)]);
}

/** The matrix [m, n] with `values` [K] of its type in the place of (or, f32 alone, added to) its elements at `places`. */
export function withEntries(matrix: Node, places: Node, values: Node, mode: "write" | "add"): Node {
  invariant(values.dtype === matrix.dtype, "entries have the type of their matrix");
  const scatter = mode === "add" ? scatterAdd : scatterWrite;
  return reshape(scatter(asColumn(matrix), places, asColumn(values)), matrix.shape);
}
