import type { Graph, Node } from "../ir/node.js";
import { leaf } from "../ops/leaves.js";
import type { FixedTensor } from "./types.js";

/** The leaf of a moving tensor (see `AdaptContext.moving`): one leaf in a graph, whoever asks. */
export function movingLeaf(graph: Graph, { name, shape, dtype }: FixedTensor): Node {
  return leaf(graph, { name, role: "state", shape, dtype });
}
