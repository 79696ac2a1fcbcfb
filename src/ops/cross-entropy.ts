import { must, ThimbleError } from "../errors.js";
import type { Node, TensorType } from "../ir/node.js";
import type { OpDefinition } from "../ir/op.js";
import { add, cast, divide, equal, exp, less, lessEqual, log, multiply, or, select, subtract } from "./arithmetic.js";
import { dot } from "./dot.js";
import { expand, reduceSum, reshape } from "./layout.js";
import { constant, iota, result } from "./leaves.js";
import { reduceMaximum } from "./reduce.js";

function checkOperands(inputs: readonly TensorType[]): { rows: number; classes: number; width: number } {
  const [x, weight, labels, weights] = inputs;
  const [rows = 0, width = 0] = x?.shape ?? [];
  const [classes = 0, inner = 0] = weight?.shape ?? [];
  if (width !== inner || labels?.shape[0] !== rows || weights?.shape[0] !== rows || labels.dtype !== "i32") {
    throw new ThimbleError(
      "shape",
      "linearCrossEntropy takes x [n, d], weight [V, d], i32 labels [n], f32 row weights [n]",
    );
  }
  return { rows, classes, width };
}

interface Logits {
  /** [n, V]. */
  readonly logits: Node;
  /** Whether a column is its row's label, [n, V]. */
  readonly hit: Node;
  /** Row weights, [n, 1]. */
  readonly counted: Node;
  /** Whether a row is ignored, [n, 1]. */
  readonly unused: Node;
}

function logitsOf(inputs: readonly Node[]): Logits {
  const [x, weight, labels, weights] = inputs as [Node, Node, Node, Node];
  const logits = dot(x, weight, { transposeB: true });
  const [rows = 0, classes = 0] = logits.shape;
  const target = reshape(labels, [rows, 1]);
  const hit = equal(iota(x.graph, [rows, classes], 1), expand(target, [rows, classes]));
  const counted = reshape(weights, [rows, 1]);
  const unused = or(equal(counted, 0), or(less(target, 0), lessEqual(constant(x.graph, classes, [], "i32"), target)));
  return { logits, hit, counted, unused };
}

interface Parts {
  readonly nll: Node;
  /** (softmax - onehot) * row weight, [n, V]. */
  readonly errors: Node;
  /** Logarithm of the sum of the exponentials of a row's logits, [n]; 0 where the row is ignored. */
  readonly normalizer: Node;
  /** 1 - softmax at the label, without cancellation, [n]; 0 where the row is ignored. */
  readonly miss: Node;
}

function parts(inputs: readonly Node[]): Parts {
  const { logits, hit, counted, unused } = logitsOf(inputs);
  const [rows = 0, classes = 0] = logits.shape;
  const peak = reduceMaximum(logits, [1]);
  const powers = exp(subtract(logits, peak));
  const total = reduceSum(powers, [1]);
  const chosen = reduceSum(select(hit, logits, 0), [1]);
  const normalizer = add(log(total), peak);
  const nll = select(unused, 0, multiply(counted, subtract(normalizer, chosen)));
  const softmax = divide(powers, total);
  const misses = multiply(subtract(softmax, cast(hit, "f32")), expand(counted, [rows, classes]));
  const errors = select(expand(unused, [rows, classes]), 0, misses);
  const others = divide(reduceSum(select(hit, 0, powers), [1]), total);
  const perRow = (value: Node): Node => reshape(select(unused, 0, value), [rows]);
  return { nll: reshape(nll, [rows]), errors, normalizer: perRow(normalizer), miss: perRow(others) };
}

/**
 * Output layer and cross-entropy in one: x [n, d], weight [V, d], labels i32 [n], row weights f32 [n]
 * -> weight_i * (logsumexp(logits_i) - logits_i[label_i]), f32 [n]. The [n, V] logits exist in chunks only.
 * Rows of weight 0, or with a label outside 0..V-1, are ignored: their loss and gradients are 0.
 */
export const linearCrossEntropyOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "linearCrossEntropy",
  cost: "compute",
  infer: (inputs) => [{ shape: [checkOperands(inputs).rows], dtype: "f32" }],
  lowering: { kind: "kernel" },
  decompose: (inputs) => [parts(inputs).nll],
  gradient: ({ node, outputs, wants }) => {
    const [x, weight, labels, weights] = node.inputs as [Node, Node, Node, Node];
    if (wants[3] === true) throw new ThimbleError("no-gradient", "linearCrossEntropy has no gradient by row weights");
    // The loss is linear in its row weights, so the upstream gradient goes into them: where it is a known constant,
    // loss and gradients come out of one pass over the logits (see passes/share-loss).
    const scaled = multiply(weights, must(outputs[0], "output gradient"));
    const back = node.graph.add(linearCrossEntropyGradientOp, [x, weight, labels, scaled], {
      weight: wants[1] === true,
    });
    if (wants[1] !== true) return [result(back, 1), undefined];
    const late = node.graph.add(linearCrossEntropyWeightGradientOp, [
      ...[x, weight, labels, scaled],
      ...[result(back, 2), result(back, 3)],
    ]);
    return [wants[0] === true ? result(back, 1) : undefined, late];
  },
});

/**
 * Loss rows and gradient by x (f32 [n, d]) from one pass over the logits. With `weight`, also what the gradient by
 * the weight is made from later: normalizer and miss of each row (f32 [n], 0 where the row is ignored).
 */
export const linearCrossEntropyGradientOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "linearCrossEntropyGradient",
  cost: "compute",
  infer: (inputs, attributes) => {
    const { rows, width } = checkOperands(inputs);
    const types: TensorType[] = [
      { shape: [rows], dtype: "f32" },
      { shape: [rows, width], dtype: "f32" },
    ];
    if (attributes["weight"] === true) types.push({ shape: [rows], dtype: "f32" }, { shape: [rows], dtype: "f32" });
    return types;
  },
  lowering: { kind: "kernel" },
  decompose: (inputs, attributes) => {
    const [x, weight] = inputs as [Node, Node];
    const { nll, errors, normalizer, miss } = parts(inputs);
    const outputs = [nll, dot(asMultiplied(errors, x, weight), weight)];
    return attributes["weight"] === true ? [...outputs, normalizer, miss] : outputs;
  },
});

/** Errors are rounded where products are of bf16 factors. */
function asMultiplied(errors: Node, x: Node, weight: Node): Node {
  return weight.dtype === "bf16" && x.dtype === "bf16" ? cast(errors, "bf16") : errors;
}

/**
 * Gradient of linearCrossEntropy by its weight, f32 [V, d], from x, weight, labels, row weights and the normalizer and
 * miss of each row: a pass of its own over the logits, so it can wait until memory is free for the result.
 */
export const linearCrossEntropyWeightGradientOp: OpDefinition = Object.freeze<OpDefinition>({
  name: "linearCrossEntropyWeightGradient",
  cost: "compute",
  infer: (inputs) => {
    const { rows, classes, width } = checkOperands(inputs);
    if (inputs[4]?.shape[0] !== rows || inputs[5]?.shape[0] !== rows) {
      throw new ThimbleError("shape", "linearCrossEntropyWeightGradient takes a normalizer and a miss of each row");
    }
    return [{ shape: [classes, width], dtype: "f32" }];
  },
  lowering: { kind: "kernel" },
  decompose: (inputs) => {
    const [x, weight, , , normalizer, miss] = inputs as [Node, Node, Node, Node, Node, Node];
    const { logits, hit, counted, unused } = logitsOf(inputs);
    const [rows = 0, classes = 0] = logits.shape;
    const column = (value: Node): Node => expand(reshape(value, [rows, 1]), [rows, classes]);
    const softmax = exp(subtract(logits, column(normalizer)));
    const misses = multiply(select(hit, multiply(column(miss), -1), softmax), expand(counted, [rows, classes]));
    const errors = select(expand(unused, [rows, classes]), 0, misses);
    return [dot(asMultiplied(errors, x, weight), x, { transposeA: true })];
  },
});

export function linearCrossEntropy(x: Node, weight: Node, labels: Node, weights: Node): Node {
  return x.graph.add(linearCrossEntropyOp, [x, weight, labels, weights]);
}
