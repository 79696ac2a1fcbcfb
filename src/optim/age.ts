import type { Node } from "../ir/node.js";
import { exp, less, multiply, add, select, subtract } from "../ops/arithmetic.js";
import { constant } from "../ops/leaves.js";

/** Terms of the series below: the first that is left out is under 1e-8 of the sum. */
const terms = 8;

/**
 * 1 - βᵗ for ages t of 1 and more, f32 of any shape: by the series of 1 - eˣ where x = t ln β is small, since the
 * difference of two numbers near 1 would lose most digits.
 */
export function oneMinusPower(beta: number, age: Node): Node {
  if (beta === 0) return constant(age.graph, 1, age.shape);
  const x = multiply(age, Math.log(beta));
  let series = constant(age.graph, 1, age.shape);
  for (let term = terms; term > 1; term--) series = add(multiply(multiply(x, 1 / term), series), 1);
  return select(less(-0.5, x), multiply(multiply(x, -1), series), subtract(1, exp(x)));
}
