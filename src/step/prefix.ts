/** Rows that methods put in front of every row of the batch, such as soft prompts. */
import { must, ThimbleError } from "../errors.js";
import type { Node } from "../ir/node.js";
import type { ModelDefinition } from "../models/types.js";
import { add, less, select } from "../ops/arithmetic.js";
import { pad, reshape, slice } from "../ops/layout.js";
import { constant, iota } from "../ops/leaves.js";
import type { StepInputs } from "./inputs.js";

export interface PrefixedRows {
  readonly batch: number;
  /** Tokens of a row without what is put in front. */
  readonly length: number;
  /** Rows in front: their ids are 0 and stand for nothing, their positions count from 0. */
  readonly prefix: number;
}

/** The inputs of a forward pass over rows of `prefix + length` tokens; real tokens move on by `prefix` positions. */
export function prefixed(inputs: StepInputs, { batch, length, prefix }: PrefixedRows): StepInputs {
  if (prefix === 0) return inputs;
  const { graph } = inputs.ids;
  const shape = [batch, prefix + length];
  const longer = (x: Node): Node => pad(reshape(x, [batch, length]), [0, prefix], [0, 0]);
  const place = iota(graph, shape, 1);
  const inFront = less(place, constant(graph, prefix, shape, "i32"));
  const moved = add(longer(inputs.positions), constant(graph, prefix, shape, "i32"));
  const flat = (x: Node): Node => reshape(x, [batch * (prefix + length)]);
  return {
    ...inputs,
    ids: flat(longer(inputs.ids)),
    positions: flat(select(inFront, place, moved)),
    segments: inputs.segments === undefined ? undefined : longer(inputs.segments),
    types: inputs.types === undefined ? undefined : flat(longer(inputs.types)),
  };
}

/** The hidden states [B*T, d] of the real tokens alone. */
export function withoutPrefix(hidden: Node, { batch, length, prefix }: PrefixedRows): Node {
  if (prefix === 0) return hidden;
  const width = must(hidden.shape[1], "width");
  const rows = reshape(hidden, [batch, prefix + length, width]);
  return reshape(slice(rows, [0, prefix, 0], [batch, length, width]), [batch * length, width]);
}

/** Rows may not become longer than the model's context. */
export function checkPrefix({ contextLength }: ModelDefinition, { length, prefix }: PrefixedRows): void {
  if (prefix === 0 || prefix + length <= contextLength) return;
  throw new ThimbleError("prefix-length", "The rows with what is put in front of them exceed the model's context", {
    where: "seq",
    given: `${length} tokens behind ${prefix}`,
    expected: `at most ${contextLength} together`,
    fix: `Use rows of at most ${Math.max(0, contextLength - prefix)} tokens, or a shorter prompt.`,
  });
}
