import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { add, equal, exp, log, multiply, select, subtract } from "../ops/arithmetic.js";
import { linearCrossEntropy } from "../ops/cross-entropy.js";
import { expand, reduceSum, reshape } from "../ops/layout.js";
import { iota } from "../ops/leaves.js";
import { detach, reduceMaximum } from "../ops/reduce.js";
import type { ForwardResult, ModelDefinition, ModelTask } from "./types.js";

/**
 * What the model must predict, a token or, where it has a task, a row at a time. The host divides weights by their sum
 * over the step.
 */
export interface LossInputs {
  /** Id of the next token, or number of the row's class, i32 [B*T] or [B]; anything where the weight is 0. */
  readonly labels: Node;
  /** Share of each token or row in the loss, f32 [B*T] or [B]; 0 for prompts and padding. */
  readonly weights: Node;
  /** What a regression must tell of each row, f32 [B]. */
  readonly targets?: Node | undefined;
}

/** The model's loss on a micro-batch, f32 []: the weighted sum of the losses of its tokens or rows. */
export function modelLoss({ task }: Pick<ModelDefinition, "task">, result: ForwardResult, inputs: LossInputs): Node {
  if (task === undefined) return tokenLoss(result, inputs);
  const { graph } = result.hidden;
  return graph.inScope("loss", () => reshape(reduceSum(taskLosses(task, result, inputs), [0]), []));
}

/** The losses of each row of a micro-batch, its tokens' added up, times their weights: f32 [rows]. */
export function rowLosses(
  { task }: Pick<ModelDefinition, "task">,
  result: ForwardResult,
  inputs: LossInputs,
  [rows, length]: readonly [number, number],
): Node {
  const { graph } = result.hidden;
  return graph.inScope("loss", () => {
    if (task !== undefined) return taskLosses(task, result, inputs);
    const tokens = linearCrossEntropy(result.hidden, result.head, inputs.labels, inputs.weights);
    return reshape(reduceSum(reshape(tokens, [rows, length]), [1]), [rows]);
  });
}

/** Weighted losses of the rows of a task, f32 [B]. */
function taskLosses({ kind }: ModelTask, result: ForwardResult, inputs: LossInputs): Node {
  const logits = must(result.logits, "logits");
  const rows = kind === "regression" ? squaredErrors(logits, inputs) : classLosses(logits, inputs);
  return multiply(rows, inputs.weights);
}

/** Weighted cross-entropy of the next token, f32 []. The [tokens, V] logits never exist at once. */
export function tokenLoss(result: ForwardResult, { labels, weights }: LossInputs): Node {
  const { graph } = result.hidden;
  return graph.inScope("loss", () => {
    const rows = linearCrossEntropy(result.hidden, result.head, labels, weights);
    return reshape(reduceSum(rows, [0]), []);
  });
}

/** Cross-entropy of each row's class, f32 [B], from logits f32 [B, labels]. */
function classLosses(logits: Node, { labels }: LossInputs): Node {
  const [rows = 0, classes = 0] = logits.shape;
  // The largest logit only keeps the powers in range: whatever it is, the value is the same.
  const peak = detach(reduceMaximum(logits, [1]));
  const total = reduceSum(exp(subtract(logits, peak)), [1]);
  const hit = equal(iota(logits.graph, [rows, classes], 1), expand(reshape(labels, [rows, 1]), [rows, classes]));
  const chosen = reduceSum(select(hit, logits, 0), [1]);
  return reshape(subtract(add(log(total), peak), chosen), [rows]);
}

/** Squared error of each row's number, f32 [B], from logits f32 [B, 1]. */
function squaredErrors(logits: Node, { targets }: LossInputs): Node {
  const error = subtract(reshape(logits, [must(logits.shape[0], "rows")]), must(targets, "targets"));
  return multiply(error, error);
}
