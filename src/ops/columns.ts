import { invariant, must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { defineGradient } from "./custom-gradient.js";
import { gather } from "./gather.js";
import { pad, permute } from "./layout.js";

/**
 * Columns of x [n, d] by number: [n, r] for i32 `columns` [r], all different. `places` i32 [d] is the inverse, the place
 * of each column among them or r where it is not: with it the gradient is a gather too, and nothing is scattered.
 */
export function gatherColumns(x: Node, columns: Node, places: Node): Node {
  invariant(places.shape[0] === x.shape[1], "columns have a place each");
  return withPlaces(take(x, columns), [x, places]);
}

const withPlaces = defineGradient("gatherColumns", ({ inputs, gradient }) => {
  const places = must(inputs[1], "places");
  // Columns that were not taken read the zero past the end.
  return [take(pad(gradient, [0, 0], [0, 1]), places), undefined];
});

function take(x: Node, columns: Node): Node {
  return permute(gather(permute(x, [1, 0]), columns), [1, 0]);
}
