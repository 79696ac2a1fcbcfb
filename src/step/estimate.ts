import { gradients as differentiate } from "../autodiff/gradients.js";
import { must } from "../errors.js";
import type { Graph, Node } from "../ir/node.js";
import { decays } from "../methods/compose.js";
import type { EstimateContext, Estimator, TrainableLeaf } from "../methods/estimator.js";
import { tokenLoss } from "../models/loss.js";
import type { BuiltForward, ForwardOptions } from "./forward.js";
import { buildForward } from "./forward.js";
import type { StepScalars } from "./inputs.js";
import { batchInputs, streamLeaf } from "./inputs.js";

/** A tensor that trains, with its optimizer settings. */
export interface Trainable extends TrainableLeaf {
  /** Its turn, where it takes one. */
  readonly turn?: number;
  readonly rateFactor: number;
  readonly decay: boolean;
}

/** The default: reverse-mode differentiation, whose gradients are what is added up over micro-batches. */
export const backpropagation: Estimator = ({ loss: build, trainables }) => {
  const loss = build({ dropout: true });
  const tensors = trainables();
  const made = differentiate(
    loss,
    tensors.map(({ node }) => node),
  );
  return {
    loss,
    phases: [],
    linear: tensors.map(({ place }, index) => ({ name: `${place}.gradient`, value: must(made[index], "gradient") })),
    backward: made,
    finish: (sums) => ({ gradients: sums, outputs: {} }),
  };
};

/** Streams of random bits that one tensor may use. */
const streamsEach = 4;

/** Names of the tensors that train: the base's in the model's order, then those of the methods. */
export function trainedNames({ definition, methods }: Pick<ForwardOptions, "definition" | "methods">): string[] {
  const base = definition.parameters.filter((parameter) => methods?.trains(parameter) === true);
  return [...base, ...(methods?.adapters ?? [])].map(({ name }) => name);
}

/**
 * The tensors that train in the step, in the model's order. Those of blocks that take turns are placed by their turn:
 * the same tensor of another block has the same place in another step, with the same states and random bits.
 */
function trainedTensors(options: Pick<ForwardOptions, "definition" | "methods" | "active">): TrainedTensor[] {
  const { definition, methods, active } = options;
  const base = definition.parameters.filter((parameter) => methods?.trains(parameter) === true);
  const all: readonly { name: string; block?: number }[] = [...base, ...(methods?.adapters ?? [])];
  if (active === undefined) return all.map(({ name }) => ({ name, place: name }));
  const found = all.flatMap(({ name, block }): TrainedTensor[] => {
    if (block === undefined) return [{ name, place: name }];
    const turn = active.indexOf(block);
    return turn < 0 ? [] : [{ name, place: placeOfTurn(name, block, turn), turn }];
  });
  // By turn, not by block, so that streams of random bits are numbered alike whichever blocks have them.
  return found.sort((a, b) => (a.turn ?? -1) - (b.turn ?? -1));
}

interface TrainedTensor {
  readonly name: string;
  readonly place: string;
  readonly turn?: number;
}

/** `model.layers.7.mlp.up_proj.weight` of turn 0 -> `model.layers.turn0.mlp.up_proj.weight`. */
function placeOfTurn(name: string, block: number, turn: number): string {
  return name.replace(new RegExp(`(^|\\.)${block}\\.`), `$1turn${turn}.`);
}

export interface TrainedModel extends EstimateContext {
  trainables(): readonly Trainable[];
  /** The model as it was built first. */
  forward(): BuiltForward;
}

/** The model under training as estimators build it: once or more, reading each time what they choose. */
export function trainedModel(
  graph: Graph,
  options: ForwardOptions & { readonly segments: boolean },
  scalars: StepScalars,
): TrainedModel {
  const inputs = batchInputs(graph, options.batch, options.length, options.segments);
  const numbers = new Map<string, number>();
  trainedTensors(options).forEach(({ place }) => numbers.set(place, numbers.get(place) ?? numbers.size));
  const places = new Map(trainedTensors(options).map((tensor) => [tensor.name, tensor]));
  let first: BuiltForward | undefined;
  const leafOf = (name: string, node: Node): TrainableLeaf & { turn?: number } => {
    const { place, turn } = must(places.get(name), `place of ${name}`);
    const stream = streamLeaf(graph, must(numbers.get(place), `number of ${place}`) * streamsEach);
    return { name, place, node, stream, ...(turn === undefined ? {} : { turn }) };
  };
  const forward = (): BuiltForward => must(first, "a built model");
  return {
    graph,
    key: { low: scalars.seedLow, high: scalars.seedHigh },
    step: scalars.step,
    forward,
    loss: ({ read, dropout = false } = {}) => {
      const replace = read === undefined ? undefined : (name: string, node: Node) => read(leafOf(name, node));
      const built = buildForward(graph, inputs, { ...options, replace }, dropout ? scalars : "refuse");
      first ??= built;
      return tokenLoss(built.result, inputs);
    },
    trainables: () => {
      const { parameters, adapters } = forward();
      const base = [...parameters.values()]
        .filter(({ spec }) => places.has(spec.name))
        .map(({ spec, node }) => ({ ...leafOf(spec.name, node), rateFactor: 1, decay: decays(spec) }));
      const added = [...adapters.values()]
        .filter(({ tensor }) => places.has(tensor.name))
        .map(({ tensor: { name, rateFactor, decay }, node }) => ({ ...leafOf(name, node), rateFactor, decay }));
      return [...base, ...added];
    },
  };
}
