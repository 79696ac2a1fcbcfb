import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { add } from "./arithmetic.js";
import { pad } from "./layout.js";

/** Lines [n_i] one after the other, as one of their type. */
export function concatenate(lines: readonly Node[]): Node {
  const total = lines.reduce((sum, { shape }) => sum + must(shape[0], "length"), 0);
  let start = 0;
  const parts = lines.map((line) => {
    const length = must(line.shape[0], "length");
    const part = pad(line, [start], [total - start - length]);
    start += length;
    return part;
  });
  const [first, ...rest] = parts;
  return rest.reduce((joined, part) => add(joined, part), must(first, "line"));
}
