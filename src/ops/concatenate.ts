import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { add } from "./arithmetic.js";
import { scatterWrite } from "./gather.js";
import { reshape } from "./layout.js";
import { constant, iota } from "./leaves.js";

/**
 * Lines f32 [n_i] one after the other, as [sum of n_i]. Each is written into its place by itself, in place, so that
 * hundreds of them do not end in one expression. Has no gradient: it is for scores and other statistics.
 */
export function concatenate(lines: readonly Node[]): Node {
  const { graph } = must(lines[0], "line");
  const lengths = lines.map(({ shape }) => must(shape[0], "length"));
  const total = lengths.reduce((sum, length) => sum + length, 0);
  let start = 0;
  let joined = constant(graph, 0, [total, 1]);
  lines.forEach((line, index) => {
    const length = must(lengths[index], "length");
    const places = add(iota(graph, [length], 0), constant(graph, start, [length], "i32"));
    joined = scatterWrite(joined, places, reshape(line, [length, 1]));
    start += length;
  });
  return reshape(joined, [total]);
}
