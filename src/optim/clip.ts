import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { add, divide, minimum, multiply, sqrt } from "../ops/arithmetic.js";
import { reduceSum, reshape } from "../ops/layout.js";

export interface Clipping {
  /** Norm of all gradients together, before clipping, f32 []. */
  readonly norm: Node;
  /** What to multiply each gradient by, f32 []. */
  readonly scale: Node;
}

/** The sum of the squares of one gradient, f32 []. */
function squares(gradient: Node): Node {
  const axes = gradient.shape.map((_, axis) => axis);
  return reshape(reduceSum(multiply(gradient, gradient), axes), []);
}

/** Global norm of f32 gradients, f32 []. */
export function globalNorm(gradients: readonly Node[]): Node {
  const [first, ...rest] = gradients.map(squares);
  return sqrt(rest.reduce((sum, value) => add(sum, value), must(first, "gradient")));
}

/**
 * Clipping by the global norm as torch.nn.utils.clip_grad_norm_ does it: scale = min(1, limit / (norm + 1e-6)). A
 * norm that is not finite gives a scale that is not, so the fault stays visible.
 */
export function clipGlobalNorm(gradients: readonly Node[], limit: number): Clipping {
  const norm = globalNorm(gradients);
  // minimum(a, b) returns b for a NaN, so the quotient stands second.
  return { norm, scale: minimum(1, divide(limit, add(norm, 1e-6))) };
}
