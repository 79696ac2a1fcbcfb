import type { Node } from "../../ir/node.js";
import type { Assignment, Phase } from "../../ir/program.js";
import { absolute, add, and, cast, divide, lessEqual, multiply, select, subtract } from "../../ops/arithmetic.js";
import { constant, leaf, leafAttributes } from "../../ops/leaves.js";
import { normalFrom } from "../../ops/normal.js";
import { randomBits } from "../../ops/random.js";
import type { Estimate, EstimateContext, FinishedEstimate, TrainableLeaf } from "../estimator.js";
import { differenceName } from "../trajectory.js";

export interface SpsaSettings {
  readonly epsilon: number;
  readonly directions: number;
  readonly perturbation: "virtual" | "in_place";
}

const largest = 3.4e38;

/** Z of one direction: standard normal f32 of the tensor's shape, never stored. */
function noiseOf({ key, step }: EstimateContext, { node, stream }: TrainableLeaf, direction: number): Node {
  return normalFrom(randomBits(key, stream, step, node.shape, 1 + direction));
}

/** `from` + scale Z in f32. */
function shifted(context: EstimateContext, tensor: TrainableLeaf, from: Node, scale: number, direction: number): Node {
  return add(cast(from, "f32"), multiply(noiseOf(context, tensor, direction), scale));
}

/** `from` + scale Z, of the tensor's own type. */
function moved(context: EstimateContext, tensor: TrainableLeaf, from: Node, scale: number, direction: number): Node {
  return cast(shifted(context, tensor, from, scale, direction), from.dtype);
}

/** `from` + scale Z as the model computes with it: of the tensor's own type only where that is the activations'. */
function seen(context: EstimateContext, tensor: TrainableLeaf, scale: number, direction: number): Node {
  const { dtype } = tensor.node;
  return cast(shifted(context, tensor, tensor.node, scale, direction), dtype === context.activation ? dtype : "f32");
}

interface Losses {
  readonly phases: Phase[];
  /** L(theta + eps Z) and L(theta - eps Z) of each direction. */
  readonly pairs: { readonly above: Node; readonly below: Node }[];
  readonly restored?: Estimate["restored"];
}

/** Weights stay as they are; the model reads theta + sigma eps Z, made where it is multiplied. */
function virtualLosses(context: EstimateContext, { epsilon, directions }: SpsaSettings): Losses {
  const phases: Phase[] = [];
  const at = (direction: number, scale: number, name: string): Node => {
    const loss = context.loss({ read: (tensor) => seen(context, tensor, scale, direction) });
    // A phase each, so that values of one pass are not kept for the other.
    phases.push({ assignments: [], outputs: { [`${name}${direction}`]: loss } });
    return loss;
  };
  const pairs = Array.from({ length: directions }, (_, direction) => ({
    above: at(direction, epsilon, "above"),
    below: at(direction, -epsilon, "below"),
  }));
  return { phases, pairs };
}

/** The weights themselves are moved: to theta + eps Z, to theta - eps Z, and back together with the next change. */
function inPlaceLosses(context: EstimateContext, { epsilon, directions }: SpsaSettings): Losses {
  const version = (tensor: TrainableLeaf, number: number): Node => {
    const attributes = leafAttributes(tensor.node);
    return leaf(context.graph, { ...attributes, version: attributes.version + number });
  };
  const restored = (tensor: TrainableLeaf, done: number): Node =>
    done === 0 ? tensor.node : moved(context, tensor, version(tensor, 2 * done), epsilon, done - 1);
  const read = (number: number): Node => context.loss({ read: (tensor) => version(tensor, number) });
  const pairs = Array.from({ length: directions }, (_, direction) => ({
    above: read(2 * direction + 1),
    below: read(2 * direction + 2),
  }));
  const all = (value: (tensor: TrainableLeaf) => Node, number: number): Assignment[] =>
    context.trainables().map((tensor) => ({ target: version(tensor, number), value: value(tensor) }));
  const phases = pairs.flatMap(({ above }, direction): Phase[] => {
    const up = (tensor: TrainableLeaf): Node => moved(context, tensor, restored(tensor, direction), epsilon, direction);
    const down = (tensor: TrainableLeaf): Node =>
      moved(context, tensor, version(tensor, 2 * direction + 1), -2 * epsilon, direction);
    const before = pairs[direction - 1]?.below;
    return [
      {
        assignments: all(up, 2 * direction),
        outputs: before === undefined ? {} : { [`below${direction - 1}`]: before },
      },
      { assignments: all(down, 2 * direction + 1), outputs: { [`above${direction}`]: above } },
    ];
  });
  return {
    phases,
    pairs,
    restored: (tensor) => ({ target: version(tensor, 2 * directions), value: restored(tensor, directions) }),
  };
}

/**
 * SPSA along n Gaussian directions (Malladi et al. 2023, equations 1 and 2): the gradient of a tensor is the mean over
 * the directions of g_j Z_j with g_j = (L(theta + eps Z_j) - L(theta - eps Z_j)) / (2 eps), an expression of random
 * bits that each update computes for itself. Micro-batches add up L+ - L-. A step with a loss that is not finite is
 * skipped: all g_j and the learning rate are 0.
 */
export function spsa(settings: SpsaSettings): (context: EstimateContext) => Estimate {
  return (context) => {
    const { phases, pairs, restored } =
      settings.perturbation === "virtual" ? virtualLosses(context, settings) : inPlaceLosses(context, settings);
    const sum = pairs.map(({ above }) => above).reduce((total, above) => add(total, above));
    return {
      loss: divide(sum, pairs.length),
      phases,
      linear: pairs.map(({ above, below }, direction) => ({
        name: differenceName(direction),
        value: subtract(above, below),
      })),
      ...(restored === undefined ? {} : { restored }),
      finish: (sums, step = context.step) => finish({ ...context, step }, settings, sums),
    };
  };
}

function finish(context: EstimateContext, { epsilon }: SpsaSettings, sums: readonly Node[]): FinishedEstimate {
  const finite = sums.map((value) => lessEqual(absolute(value), largest)).reduce(and);
  const factors = sums.map((value) => select(finite, divide(value, 2 * epsilon * sums.length), 0));
  const gradients = context
    .trainables()
    .map((tensor) =>
      factors
        .map((factor, direction) => multiply(noiseOf(context, tensor, direction), factor))
        .reduce((total, term) => add(total, term)),
    );
  const outputs = sums.map((value, direction) => [differenceName(direction), value] as const);
  return {
    gradients,
    rateFactor: select(finite, constant(context.graph, 1), 0),
    outputs: Object.fromEntries(outputs),
  };
}
