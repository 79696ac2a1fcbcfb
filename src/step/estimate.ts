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
    linear: tensors.map(({ name }, index) => ({ name: `${name}.gradient`, value: must(made[index], "gradient") })),
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
  const numbers = new Map(trainedNames(options).map((name, index) => [name, index]));
  let first: BuiltForward | undefined;
  const leafOf = (name: string, node: Node): TrainableLeaf => ({
    name,
    node,
    stream: streamLeaf(graph, must(numbers.get(name), `number of ${name}`) * streamsEach),
  });
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
        .filter(({ spec }) => options.methods?.trains(spec) === true)
        .map(({ spec, node }) => ({ ...leafOf(spec.name, node), rateFactor: 1, decay: decays(spec) }));
      const added = [...adapters.values()].map(({ tensor: { name, rateFactor, decay }, node }) => ({
        ...leafOf(name, node),
        rateFactor,
        decay,
      }));
      return [...base, ...added];
    },
  };
}
