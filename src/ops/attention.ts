import { must, ThimbleError } from "../errors.js";
import type { Attributes, Node, TensorType } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import {
  add,
  and,
  cast,
  divide,
  equal,
  exp,
  less,
  lessEqual,
  log,
  maximum,
  multiply,
  or,
  select,
  subtract,
} from "./arithmetic.js";
import { dot } from "./dot.js";
import { expand, permute, reduceSum, reshape } from "./layout.js";
import { iota, result } from "./leaves.js";
import { reduceMaximum } from "./reduce.js";

export interface AttentionAttributes {
  /** A query sees only keys at its own position or before. */
  readonly causal: boolean;
  /** Keys further back than this are invisible; 0 = no limit. */
  readonly window: number;
  readonly scale: number;
  /** The input after v is i32 segments [B, T]: only equal ones see each other (packed rows). */
  readonly segments: boolean;
  /** The last input is an i32 scalar: the position of the first query among the keys (decoding from a cache). */
  readonly offset: boolean;
}

export interface AttentionSizes {
  readonly batch: number;
  readonly queries: number;
  readonly keys: number;
  readonly heads: number;
  readonly keyHeads: number;
  readonly width: number;
}

export function attentionAttributes(attributes: Attributes): AttentionAttributes {
  return attributes as unknown as AttentionAttributes;
}

export function attentionSizes(q: TensorType, k: TensorType): AttentionSizes {
  const [batch = 0, queries = 0, heads = 0, width = 0] = q.shape;
  const [batches = 0, keys = 0, keyHeads = 0, keyWidth = 0] = k.shape;
  if (q.shape.length !== 4 || batch !== batches || width !== keyWidth || heads % keyHeads !== 0) {
    throw new ThimbleError("shape", "attention takes q [B, T, H, D] and k, v [B, S, KH, D] with H a multiple of KH", {
      given: `q [${q.shape.join(", ")}], k [${k.shape.join(", ")}]`,
    });
  }
  return { batch, queries, keys, heads, keyHeads, width };
}

/** [B, T, KH, D] -> [B*H, T, D] in f32, each key head repeated for its group of query heads. */
function stack(x: Node, heads: number): Node {
  const [batch = 0, length = 0, own = 0, width = 0] = x.shape;
  const headed = reshape(permute(cast(x, "f32"), [0, 2, 1, 3]), [batch, own, 1, length, width]);
  return reshape(expand(headed, [batch, own, heads / own, length, width]), [batch * heads, length, width]);
}

/** The reverse of {@link stack}: [B*H, T, D] -> [B, T, KH, D], summed over each group. */
function unstack(x: Node, batch: number, own: number): Node {
  const [stacked = 0, length = 0, width = 0] = x.shape;
  const grouped = reshape(x, [batch, own, stacked / batch / own, length, width]);
  return permute(reshape(reduceSum(grouped, [2]), [batch, own, length, width]), [0, 2, 1, 3]);
}

/** Which keys each query sees: bool [B*H, Tq, Tk]. */
function visibility(inputs: readonly Node[], sizes: AttentionSizes, attributes: AttentionAttributes): Node {
  const { batch, queries, keys, heads } = sizes;
  const { graph } = must(inputs[0], "q");
  const shape = [batch, 1, queries, keys];
  const first = attributes.offset ? expand(must(inputs.at(-1), "offset"), shape) : undefined;
  const row = iota(graph, shape, 2);
  const position = first === undefined ? row : add(row, first);
  const key = iota(graph, shape, 3);
  let visible = attributes.causal ? lessEqual(key, position) : equal(row, row);
  if (attributes.window > 0) visible = and(visible, less(subtract(position, key), attributes.window));
  if (attributes.segments) {
    const segments = must(inputs[3], "segments");
    const own = expand(reshape(segments, [batch, 1, queries, 1]), shape);
    const other = expand(reshape(segments, [batch, 1, 1, keys]), shape);
    // Padding (negative) sees only itself, so that no row is empty and none leaks.
    const together = and(equal(own, other), or(lessEqual(0, own), equal(position, key)));
    visible = and(visible, together);
  }
  return reshape(expand(visible, [batch, heads, queries, keys]), [batch * heads, queries, keys]);
}

interface Stacked {
  readonly sizes: AttentionSizes;
  readonly q: Node;
  readonly k: Node;
  readonly v: Node;
  readonly scores: Node;
  readonly visible: Node;
}

function stacked(inputs: readonly Node[], attributes: AttentionAttributes): Stacked {
  const [queries, keys, values] = [must(inputs[0], "q"), must(inputs[1], "k"), must(inputs[2], "v")];
  const sizes = attentionSizes(queries, keys);
  const [q, k, v] = [stack(queries, sizes.heads), stack(keys, sizes.heads), stack(values, sizes.heads)];
  const scores = multiply(dot(q, k, { transposeB: true }), attributes.scale);
  return { sizes, q, k, v, scores, visible: visibility(inputs, sizes, attributes) };
}

/**
 * Softmax attention with online statistics: q [B, Tq, H, D], k and v [B, Tk, KH, D] -> out [B, Tq, H, D] of q's type
 * and the log-sum-exp of each row's scores, f32 [B, H, Tq]. Never makes a Tq x Tk tensor in compiled targets.
 * Dao, "FlashAttention-2" (arXiv 2307.08691).
 */
export const attentionOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "attention",
  cost: "compute",
  infer: (inputs) => {
    const q = must(inputs[0], "q");
    const { batch, heads, queries } = attentionSizes(q, must(inputs[1], "k"));
    return [q, { shape: [batch, heads, queries], dtype: "f32" }];
  },
  lowering: { kind: "kernel" },
  decompose: (inputs, plain) => {
    const attributes = attentionAttributes(plain);
    const { sizes, v, scores, visible } = stacked(inputs, attributes);
    const { batch, heads, queries } = sizes;
    const masked = select(visible, scores, -1e30);
    const peak = reduceMaximum(masked, [2]);
    const weights = select(visible, exp(subtract(masked, peak)), 0);
    const total = reduceSum(weights, [2]);
    const mixed = divide(dot(weights, v), maximum(total, 1e-30));
    const lse = select(less(0, total), add(log(maximum(total, 1e-30)), peak), -Infinity);
    const out = cast(unstack(mixed, batch, heads), must(inputs[0], "q").dtype);
    return [out, reshape(lse, [batch, heads, queries])];
  },
  gradient: ({ node, outputs }) => {
    if (outputs[1] !== undefined) throw new ThimbleError("no-gradient", "attention's log-sum-exp has no gradient rule");
    const q = must(node.inputs[0], "q");
    const dy = cast(must(outputs[0], "output gradient"), q.dtype);
    const [out, lse] = [result(node, 0), result(node, 1)];
    const back = node.graph.add(attentionBackwardOp, [...node.inputs, out, lse, dy], node.attributes);
    const gradients = [0, 1, 2].map((index) => cast(result(back, index), "f32"));
    return [...gradients, ...node.inputs.slice(3).map(() => undefined)];
  },
});

/** Gradients of attention by q, k and v, from (its inputs..., out, lse, dout); scores are made again, not read. */
export const attentionBackwardOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "attentionBackward",
  cost: "compute",
  infer: (inputs) => inputs.slice(0, 3),
  lowering: { kind: "kernel" },
  decompose: (inputs, plain) => {
    const attributes = attentionAttributes(plain);
    const own = inputs.slice(0, -3);
    const [out, lse, dy] = inputs.slice(-3) as [Node, Node, Node];
    const { sizes, q, k, v, scores, visible } = stacked(own, attributes);
    const { batch, heads, keyHeads, queries } = sizes;
    const [dout, saved] = [stack(dy, heads), stack(out, heads)];
    const weights = select(visible, exp(subtract(scores, reshape(lse, [batch * heads, queries, 1]))), 0);
    const delta = reduceSum(multiply(dout, saved), [2]);
    const dscores = multiply(multiply(weights, subtract(dot(dout, v, { transposeB: true }), delta)), attributes.scale);
    const dq = unstack(dot(dscores, k), batch, heads);
    const dk = unstack(dot(dscores, q, { transposeA: true }), batch, keyHeads);
    const dv = unstack(dot(weights, dout, { transposeA: true }), batch, keyHeads);
    return [dq, dk, dv].map((node, index) => cast(node, must(inputs[index], "input").dtype));
  },
});

export interface AttentionOptions {
  readonly causal?: boolean;
  readonly window?: number;
  readonly scale: number;
  readonly segments?: Node | undefined;
  readonly offset?: Node | undefined;
}

/** Attention; `out` of the tuple. See {@link attentionOp} for shapes. */
export function attention(q: Node, k: Node, v: Node, options: AttentionOptions): Node {
  const { segments, offset } = options;
  const extra = [segments, offset].filter((node) => node !== undefined);
  const attributes: AttentionAttributes = {
    causal: options.causal ?? true,
    window: options.window ?? 0,
    scale: options.scale,
    segments: segments !== undefined,
    offset: offset !== undefined,
  };
  return result(q.graph.add(attentionOp, [q, k, v, ...extra], { ...attributes }), 0);
}
