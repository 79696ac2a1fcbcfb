import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { add, multiply } from "../../ops/arithmetic.js";
import { fromOrthonormal } from "../low-rank/orthogonality.js";
import type { RegulariseContext } from "../types.js";
import type { AdaloraTarget } from "./config.js";

/** weight times the mean of ||Pᵀ P - I|| and ||Q Qᵀ - I|| over all layers (norms, as in PEFT, not their squares). */
export function orthogonality(context: RegulariseContext, targets: readonly AdaloraTarget[], weight: number): Node {
  const value = (name: string): Node => must(context.values.get(name), name);
  const distances = targets.flatMap(({ a, b }) => [
    fromOrthonormal(value(a.name), "rows"),
    fromOrthonormal(value(b.name), "columns"),
  ]);
  const sum = distances.reduce((total, distance) => add(total, distance));
  return multiply(sum, weight / distances.length);
}
