import { gradients as differentiate } from "../autodiff/gradients.js";
import { must } from "../errors.js";
import type { Graph, Node } from "../ir/node.js";
import { decays } from "../methods/compose.js";
import type { EstimateContext, Estimator, TrainableLeaf } from "../methods/estimator.js";
import type { ModelReads } from "../methods/programs.js";
import { modelLoss } from "../models/loss.js";
import { leaf, leafAttributes } from "../ops/leaves.js";
import type { BuiltForward, ForwardOptions } from "./forward.js";
import { buildForward, isBlock } from "./forward.js";
import type { StepInputs, StepScalars } from "./inputs.js";
import { batchInputs, streamLeaf } from "./inputs.js";

/** A tensor that trains, with its optimizer settings. */
export interface Trainable extends TrainableLeaf {
  /** Its turn, where it takes one. */
  readonly turn?: number;
  /** What its optimizer states are named by: its place, or its own name where each block keeps its states. */
  readonly states: string;
  readonly rateFactor: number;
  readonly decay: boolean;
}

/** The default: reverse-mode differentiation, whose gradients are what is added up over micro-batches. */
export const backpropagation: Estimator = ({ loss: build, trainables, probes }) => {
  const loss = build({ dropout: true });
  const tensors = trainables();
  const watched = [...probes()];
  const all = differentiate(loss, [...tensors.map(({ node }) => node), ...watched.map(([, node]) => node)]);
  const made = all.slice(0, tensors.length);
  return {
    loss,
    watched: new Map(watched.map(([name], index) => [name, must(all[tensors.length + index], name)])),
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
  if (active === undefined) return all.map(({ name }) => ({ name, place: name, states: name }));
  const found = all.flatMap(({ name, block }): TrainedTensor[] => {
    if (!isBlock(definition, block)) return [{ name, place: name, states: name }];
    const turn = active.indexOf(block);
    if (turn < 0) return [];
    const place = placeOfTurn(name, block, turn);
    return [{ name, place, turn, states: methods?.turns?.states === "block" ? name : place }];
  });
  // By turn, not by block, so that streams of random bits are numbered alike whichever blocks have them.
  return found.sort((a, b) => (a.turn ?? -1) - (b.turn ?? -1));
}

interface TrainedTensor {
  readonly name: string;
  readonly place: string;
  readonly turn?: number;
  readonly states: string;
}

/** `model.layers.7.mlp.up_proj.weight` of turn 0 -> `model.layers.turn0.mlp.up_proj.weight`. */
function placeOfTurn(name: string, block: number, turn: number): string {
  return name.replace(new RegExp(`(^|\\.)${block}\\.`), `$1turn${turn}.`);
}

export interface TrainedModel extends EstimateContext {
  trainables(): readonly Trainable[];
  /** The model as it was built first. */
  forward(): BuiltForward;
  /** The model, reading what is chosen; `dropout` is live only where allowed. */
  build(reads?: ModelReads & { readonly dropout?: boolean }): BuiltForward;
  readonly inputs: StepInputs;
}

/**
 * The model under training as estimators build it: once or more, reading each time what they choose. `without` says
 * what a build without dropout is: one of a step, in which a method's dropout is refused, or one as in evaluation;
 * `version`, how often the step has changed the tensors before the model reads them.
 */
export function trainedModel(
  graph: Graph,
  options: ForwardOptions & { readonly segments: boolean },
  scalars: StepScalars,
  without: "refuse" | "evaluate" = "refuse",
  version = 0,
): TrainedModel {
  const inputs = batchInputs(graph, options.batch, options.length, options.segments, options.definition);
  const numbers = new Map<string, number>();
  trainedTensors(options).forEach(({ place }) => numbers.set(place, numbers.get(place) ?? numbers.size));
  const places = new Map(trainedTensors(options).map((tensor) => [tensor.name, tensor]));
  let first: BuiltForward | undefined;
  const probes = new Map<string, Node>();
  const leafOf = (name: string, node: Node): TrainableLeaf & { turn?: number; states: string } => {
    const { place, turn, states } = must(places.get(name), `place of ${name}`);
    const stream = streamLeaf(graph, must(numbers.get(place), `number of ${place}`) * streamsEach);
    const held = version === 0 ? node : leaf(graph, { ...leafAttributes(node), version });
    return { name, place, states, node: held, stream, ...(turn === undefined ? {} : { turn }) };
  };
  const forward = (): BuiltForward => must(first, "a built model");
  const build: TrainedModel["build"] = ({ read, scale, dropout = false } = {}) => {
    const chosen = read ?? (version === 0 ? undefined : ({ node }: TrainableLeaf) => node);
    const replace = chosen === undefined ? undefined : (name: string, node: Node) => chosen(leafOf(name, node));
    const watched = dropout ? { probes } : {};
    const built = buildForward(
      graph,
      inputs,
      { ...options, replace, scale, ...watched },
      dropout ? scalars : without === "refuse" ? without : undefined,
    );
    first ??= built;
    return built;
  };
  return {
    graph,
    activation: options.activation,
    key: { low: scalars.seedLow, high: scalars.seedHigh },
    step: scalars.step,
    inputs,
    forward,
    build,
    loss: (reads) => modelLoss(options.definition, build(reads).result, inputs),
    probes: () => probes,
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
