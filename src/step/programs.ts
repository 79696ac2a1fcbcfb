/** Programs of the methods' own, beside the steps: see MethodProgram. */
import { must } from "../errors.js";
import { Graph } from "../ir/node.js";
import type { Node } from "../ir/node.js";
import type { Program } from "../ir/program.js";
import type { MethodProgram, MethodState } from "../methods/programs.js";
import { rowLosses } from "../models/loss.js";
import { leaf } from "../ops/leaves.js";
import { trainedModel } from "./estimate.js";
import type { ForwardOptions } from "./forward.js";
import { programInput, stepScalars } from "./inputs.js";

/** A method's program, and how its outputs go together where a batch is run in parts. */
export interface BuiltProgram {
  readonly program: Program;
  /** Names of the outputs whose parts are put together; those of the others are added up. */
  readonly rows: readonly string[];
}

/**
 * The methods' own programs. Without turns in the options they see all tensors that train in some step, and stay the
 * same whichever blocks have their turn.
 */
export function buildPrograms(options: ForwardOptions & { readonly segments: boolean }): BuiltProgram[] {
  const { programs = [], states = [] } = options.methods ?? {};
  return programs.map((program) => buildProgram(program, states, options));
}

/** The leaf of a method's state: one that no program reads has a place like the others. */
export function stateLeaf(graph: Graph, { name, shape, dtype }: MethodState): Node {
  return leaf(graph, { name, role: "state", shape, dtype });
}

function buildProgram(
  { name, build }: MethodProgram,
  states: readonly MethodState[],
  options: ForwardOptions & { readonly segments: boolean },
): BuiltProgram {
  const graph = new Graph();
  const { batch, definition, length } = options;
  const model = trainedModel(graph, options, stepScalars(graph), "evaluate");
  const {
    rows = {},
    sums = {},
    assignments = [],
    gradients = [],
    loss,
  } = build({
    graph,
    rows: batch,
    length,
    key: model.key,
    step: model.step,
    trainables: () => model.trainables(),
    model: (reads) => model.build(reads).result,
    rowLosses: (reads) => rowLosses(definition, model.build(reads).result, model.inputs, [batch, length]),
    input: (own, shape, dtype = "f32") => leaf(graph, { name: programInput(own), role: "input", shape, dtype }),
    state: (own) =>
      stateLeaf(
        graph,
        must(
          states.find((state) => state.name === own),
          `state ${own}`,
        ),
      ),
  });
  const phases = [{ assignments, outputs: { ...rows, ...sums } }];
  const program = { name, graph, phases, gradients, ...(loss === undefined ? {} : { loss }) };
  return { program, rows: Object.keys(rows) };
}
