import type { Node } from "../ir/node.js";
import { linearCrossEntropy } from "../ops/cross-entropy.js";
import { reduceSum, reshape } from "../ops/layout.js";
import type { ForwardResult } from "./types.js";

/** What each token's hidden state must predict; the host shifts labels and divides weights by the batch's tokens. */
export interface LossInputs {
  /** Id of the next token, i32 [B*T]; anything where the weight is 0. */
  readonly labels: Node;
  /** Share of each token in the loss, f32 [B*T]; 0 for prompts and padding. */
  readonly weights: Node;
}

/** Weighted cross-entropy of the next token, f32 []. The [tokens, V] logits never exist at once. */
export function tokenLoss(result: ForwardResult, { labels, weights }: LossInputs): Node {
  const { graph } = result.hidden;
  return graph.inScope("loss", () => {
    const rows = linearCrossEntropy(result.hidden, result.head, labels, weights);
    return reshape(reduceSum(rows, [0]), []);
  });
}
