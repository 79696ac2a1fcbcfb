import type { Graph, Node } from "../ir/node.js";
import type { ModelDefinition } from "../models/types.js";
import { leaf } from "../ops/leaves.js";

/** What the host writes before a step; see {@link SessionBatch} for the meaning of the batch's part. */
export interface StepInputs {
  readonly ids: Node;
  readonly positions: Node;
  readonly labels: Node;
  readonly weights: Node;
  readonly segments: Node | undefined;
  readonly types?: Node | undefined;
  readonly targets?: Node | undefined;
}

/** The leaves of a micro-batch; where the model has a task, each row has one label and one weight. */
export function batchInputs(
  graph: Graph,
  batch: number,
  length: number,
  packed: boolean,
  { task, tokenTypes = 1 }: Pick<ModelDefinition, "task" | "tokenTypes"> = {},
): StepInputs {
  const tokens = batch * length;
  const told = task === undefined ? tokens : batch;
  const numbers = (name: string): Node => leaf(graph, { name, role: "input", shape: [told], dtype: "f32" });
  const integers = (name: string, shape: readonly number[]): Node =>
    leaf(graph, { name, role: "input", shape, dtype: "i32" });
  return {
    ids: integers("input.ids", [tokens]),
    positions: integers("input.positions", [tokens]),
    labels: integers("input.labels", [told]),
    weights: numbers("input.weights"),
    segments: packed ? integers("input.segments", [batch, length]) : undefined,
    types: tokenTypes > 1 ? integers("input.types", [tokens]) : undefined,
    targets: task?.kind === "regression" ? numbers("input.targets") : undefined,
  };
}

/** Numbers that change from step to step: the optimizer's, and the key of the random bits. */
export interface StepScalars {
  readonly rate: Node;
  readonly correction1: Node;
  readonly correction2: Node;
  readonly seedLow: Node;
  readonly seedHigh: Node;
  readonly step: Node;
}

export function stepScalars(graph: Graph): StepScalars {
  const scalar = (name: string, dtype: "f32" | "u32"): Node =>
    leaf(graph, { name: `scalar.${name}`, role: "input", shape: [], dtype });
  return {
    rate: scalar("rate", "f32"),
    correction1: scalar("correction1", "f32"),
    correction2: scalar("correction2", "f32"),
    seedLow: scalar("seedLow", "u32"),
    seedHigh: scalar("seedHigh", "u32"),
    step: scalar("step", "u32"),
  };
}

/** What depends on the count of steps, for the tensors of a turn: they count their own. */
export function turnScalars(graph: Graph, turn: number): { readonly correction1: Node; readonly correction2: Node } {
  const scalar = (name: string): Node =>
    leaf(graph, { name: turnScalar(name, turn), role: "input", shape: [], dtype: "f32" });
  return { correction1: scalar("correction1"), correction2: scalar("correction2") };
}

/** Name of the leaf of a turn's own scalar. */
export function turnScalar(name: string, turn: number): string {
  return `scalar.turn${turn}.${name}`;
}

/** Name of the leaf of a scalar that a method computes from the step. */
export function methodScalar(name: string): string {
  return `scalar.method.${name}`;
}

/** Name of the leaf of an input of a method's own programs, by `method.input`. */
export function programInput(name: string): string {
  return `input.program.${name}`;
}

/** Prefix of the leaves that hold the number of a stream of random bits: what follows is the number. */
export const streamPrefix = "stream.";

/** A stream of random bits as a leaf, which the host writes once: kernels that differ in it alone are one kernel. */
export function streamLeaf(graph: Graph, stream: number): Node {
  return leaf(graph, { name: `${streamPrefix}${stream}`, role: "input", shape: [], dtype: "u32" });
}
