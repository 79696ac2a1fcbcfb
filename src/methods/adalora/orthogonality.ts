import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { add, multiply } from "../../ops/arithmetic.js";
import { constant } from "../../ops/leaves.js";
import { fromOrthonormal } from "../low-rank/orthogonality.js";
import type { RegulariseContext } from "../types.js";
import type { AdaloraTarget } from "./config.js";

/**
 * weight times the mean of ||Pᵀ P - I|| and ||Q Qᵀ - I|| over all layers (norms, as in PEFT, not their squares). Of
 * layers that do not train in the step nothing is added: their terms have no gradient.
 */
export function orthogonality(context: RegulariseContext, targets: readonly AdaloraTarget[], weight: number): Node {
  const value = (name: string): Node => must(context.values.get(name), name);
  const trained = targets.filter(({ a }) => context.values.has(a.name));
  const distances = trained.flatMap(({ a, b }) => [
    fromOrthonormal(value(a.name), "rows"),
    fromOrthonormal(value(b.name), "columns"),
  ]);
  const [first = constant(context.graph, 0), ...rest] = distances;
  const sum = rest.reduce((total, distance) => add(total, distance), first);
  return multiply(sum, weight / (2 * targets.length));
}
