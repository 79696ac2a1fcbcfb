import type { Graph, Node } from "../ir/node.js";
import { leaf } from "../ops/leaves.js";

/** What the host writes before a step; see {@link SessionBatch} for the meaning of the batch's part. */
export interface StepInputs {
  readonly ids: Node;
  readonly positions: Node;
  readonly labels: Node;
  readonly weights: Node;
  readonly segments: Node | undefined;
}

export function batchInputs(graph: Graph, batch: number, length: number, packed: boolean): StepInputs {
  const tokens = batch * length;
  const integers = (name: string, shape: readonly number[]): Node =>
    leaf(graph, { name, role: "input", shape, dtype: "i32" });
  return {
    ids: integers("input.ids", [tokens]),
    positions: integers("input.positions", [tokens]),
    labels: integers("input.labels", [tokens]),
    weights: leaf(graph, { name: "input.weights", role: "input", shape: [tokens], dtype: "f32" }),
    segments: packed ? integers("input.segments", [batch, length]) : undefined,
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

/** Prefix of the leaves that hold the number of a stream of random bits: what follows is the number. */
export const streamPrefix = "stream.";

/** A stream of random bits as a leaf, which the host writes once: kernels that differ in it alone are one kernel. */
export function streamLeaf(graph: Graph, stream: number): Node {
  return leaf(graph, { name: `${streamPrefix}${stream}`, role: "input", shape: [], dtype: "u32" });
}
