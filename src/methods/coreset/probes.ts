/** Programs that describe the rows of a batch by forward passes, or one backward pass through the last block. */
import { gradients as differentiate } from "../../autodiff/gradients.js";
import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import type { Shape } from "../../ir/shape.js";
import { add, cast, multiply } from "../../ops/arithmetic.js";
import { reduceSum, reshape } from "../../ops/layout.js";
import { constant } from "../../ops/leaves.js";
import { normalFrom } from "../../ops/normal.js";
import { randomBits } from "../../ops/random.js";
import { hostNormal } from "../noise.js";
import type { ProgramContext, ProgramResult } from "../programs.js";

/** A tensor that trains, by whose gradient rows are described. */
export interface ProbeTensor {
  readonly name: string;
  readonly shape: Shape;
}

/** Two-point probes of a tensor along directions z_j ~ N(0, 1). */
export interface TwoPointProbe {
  readonly tensor: ProbeTensor;
  /** eps. */
  readonly epsilon: number;
  readonly directions: number;
  /** Directions stay the same in the whole run, or are drawn anew in each step. */
  readonly resample: "run" | "step";
}

/** Apart from the streams of tensors that train, and from those of dropout. */
const stream = 0xc0115e70;

/**
 * Losses of each row at theta + eps z_j (`above0`, ...) and theta - eps z_j (`below0`, ...). The tensor is read moved and
 * never written; what lies below it in the model is the same in all passes, and is computed once.
 */
export function perturbedLosses(context: ProgramContext, probe: TwoPointProbe): ProgramResult {
  const { tensor, epsilon, directions, resample } = probe;
  const step = resample === "run" ? constant(context.graph, 0, [], "u32") : context.step;
  const at = (scale: number, use: number): Node => {
    const noise = normalFrom(randomBits(context.key, stream, step, tensor.shape, use));
    const moved = (node: Node): Node => cast(add(cast(node, "f32"), multiply(noise, scale)), node.dtype);
    return context.rowLosses({ read: ({ name, node }) => (name === tensor.name ? moved(node) : node) });
  };
  const pairs = Array.from({ length: directions }, (_, use) => [
    [`above${use}`, at(epsilon, use)] as const,
    [`below${use}`, at(-epsilon, use)] as const,
  ]);
  return { rows: Object.fromEntries(pairs.flat()) };
}

/** z_j of a step as the program has it. */
export function probeDirection(
  { tensor, resample }: TwoPointProbe,
  { seed, step }: { readonly seed: number; readonly step: number },
  use: number,
): Float32Array {
  return hostNormal({ seed, stream, step: resample === "run" ? 0 : step, use }, tensor.shape);
}

/** `gradient`: that of the batch's weighted loss by the tensor, f32. */
export function tensorGradient(context: ProgramContext, tensor: ProbeTensor): ProgramResult {
  const loss = reshape(reduceSum(context.rowLosses(), [0]), []);
  const probed = must(
    context.trainables().find(({ name }) => name === tensor.name),
    tensor.name,
  );
  const [made] = differentiate(loss, [probed.node]);
  const gradient = cast(must(made, "gradient"), "f32");
  return { sums: { gradient }, gradients: [gradient], loss };
}

/** `hidden`: the hidden states behind the last norm, f32 [rows, length * width]. */
export function hiddenStates(context: ProgramContext): ProgramResult {
  const { hidden } = context.model();
  const [tokens, width] = [must(hidden.shape[0], "tokens"), must(hidden.shape[1], "width")];
  return { rows: { hidden: reshape(cast(hidden, "f32"), [context.rows, (tokens / context.rows) * width]) } };
}

/** `loss`: the sum of each row's token losses, f32 [rows]. */
export function rowLosses(context: ProgramContext): ProgramResult {
  return { rows: { loss: context.rowLosses() } };
}
