import { invariant, must, ThimbleError } from "../errors.js";
import type { Attributes, Node, TensorType } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import { elements } from "../ir/shape.js";
import type { Tensor } from "../ir/tensor.js";
import { allocate } from "../ir/tensor.js";
import { cast } from "./arithmetic.js";
import { gather } from "./gather.js";
import { rowsOf } from "./saved.js";

/** Sizes of a product, after transposition: [batch][m, k] x [batch][k, n]. */
export interface DotSizes {
  readonly batch: number;
  readonly m: number;
  readonly k: number;
  readonly n: number;
}

export interface DotAttributes {
  /** The first operand is stored [k, m]. */
  readonly transposeA: boolean;
  /** The second operand is stored [n, k], as weights [out, in] are in a forward pass. */
  readonly transposeB: boolean;
}

export function dotAttributes(attributes: Attributes): DotAttributes {
  return attributes as unknown as DotAttributes;
}

export function dotSizes(a: TensorType, b: TensorType, attributes: DotAttributes): DotSizes {
  const { transposeA, transposeB } = attributes;
  const rank = a.shape.length;
  if ((rank === 2 || rank === 3) && b.shape.length === rank) {
    const [rows = 0, columns = 0] = a.shape.slice(-2);
    const [top = 0, side = 0] = b.shape.slice(-2);
    const [m, k] = transposeA ? [columns, rows] : [rows, columns];
    const [n, inner] = transposeB ? [top, side] : [side, top];
    const batch = rank === 3 ? must(a.shape[0], "batch") : 1;
    if (k === inner && (rank === 2 || batch === b.shape[0])) return { batch, m, k, n };
  }
  throw new ThimbleError("shape", "dot needs two matrices (or two stacks of as many) whose inner sizes agree", {
    given: `[${a.shape.join(", ")}]${transposeA ? "ᵀ" : ""} · [${b.shape.join(", ")}]${transposeB ? "ᵀ" : ""}`,
  });
}

/**
 * Matrix product of the last two axes, summed in f32. Operands of type bf16 are multiplied as bf16, so a step's
 * compute type is visible in its graph; the result is always f32.
 */
export const dotOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "dot",
  cost: "compute",
  infer: (inputs, attributes) => {
    const [a, b] = [must(inputs[0], "a"), must(inputs[1], "b")];
    const { batch, m, n } = dotSizes(a, b, dotAttributes(attributes));
    return [{ shape: a.shape.length === 3 ? [batch, m, n] : [m, n], dtype: "f32" }];
  },
  lowering: { kind: "kernel" },
  evaluate: (inputs, attributes, types) => [
    multiplyMatrices(must(inputs[0], "a"), must(inputs[1], "b"), dotAttributes(attributes), must(types[0], "type")),
  ],
  gradient: ({ node, outputs, wants }) => {
    const [a, b] = [must(node.inputs[0], "a"), must(node.inputs[1], "b")];
    const { transposeA, transposeB } = dotAttributes(node.attributes);
    // Where the forward product was in bf16, so are the backward ones.
    const half = a.dtype === "bf16" && b.dtype === "bf16";
    const full = must(outputs[0], "output gradient");
    const dy = half ? cast(full, "bf16") : full;
    const [left, right] = half ? [a, b] : [cast(a, "f32"), cast(b, "f32")];
    const da = (): Node =>
      transposeA
        ? dot(right, dy, { transposeA: transposeB, transposeB: true })
        : dot(dy, right, { transposeB: !transposeB });
    const kept = rowsOf(a);
    if (wants[1] === true && kept !== undefined) {
      const db = fromRows(kept, full, { half, transposeA, transposeB });
      return [wants[0] === true ? da() : undefined, db];
    }
    const db = (): Node =>
      transposeB
        ? dot(dy, left, { transposeA: true, transposeB: transposeA })
        : dot(left, dy, { transposeA: !transposeA });
    return [wants[0] === true ? da() : undefined, wants[1] === true ? db() : undefined];
  },
});

/** The gradient by the second operand from the rows that are kept of the first, and the same rows of `dy`. */
function fromRows(
  { rows, ids }: { readonly rows: Node; readonly ids: Node },
  dy: Node,
  { half, transposeA, transposeB }: DotAttributes & { readonly half: boolean },
): Node {
  invariant(!transposeA, "rows are kept of an operand that is read as it lies");
  const taken = gather(dy, ids);
  const [left, right] = half ? [rows, cast(taken, "bf16")] : [cast(rows, "f32"), taken];
  return transposeB ? dot(right, left, { transposeA: true }) : dot(left, right, { transposeA: true });
}

function multiplyMatrices(a: Tensor, b: Tensor, attributes: DotAttributes, type: TensorType): Tensor {
  const { batch, m, k, n } = dotSizes(a, b, attributes);
  const data = allocate(type.dtype, elements(type.shape));
  const [rowA, innerA] = attributes.transposeA ? [1, m] : [k, 1];
  const [innerB, columnB] = attributes.transposeB ? [1, k] : [n, 1];
  for (let place = 0; place < batch; place++) {
    for (let row = 0; row < m; row++) {
      for (let column = 0; column < n; column++) {
        let sum = 0;
        for (let inner = 0; inner < k; inner++) {
          const left = a.data[place * m * k + row * rowA + inner * innerA] ?? 0;
          sum += left * (b.data[place * k * n + inner * innerB + column * columnB] ?? 0);
        }
        data[(place * m + row) * n + column] = sum;
      }
    }
  }
  return { ...type, data };
}

export function dot(a: Node, b: Node, options: Partial<DotAttributes> = {}): Node {
  const { transposeA = false, transposeB = false } = options;
  return a.graph.add(dotOp, [a, b], { transposeA, transposeB });
}
