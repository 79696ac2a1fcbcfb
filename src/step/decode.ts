import { must } from "../errors.js";
import { Graph } from "../ir/node.js";
import type { Node } from "../ir/node.js";
import type { Assignment, Program } from "../ir/program.js";
import type { ForwardContext } from "../models/types.js";
import { cast } from "../ops/arithmetic.js";
import { attention } from "../ops/attention.js";
import { dot } from "../ops/dot.js";
import { scatterWrite } from "../ops/gather.js";
import { reshape, slice } from "../ops/layout.js";
import { leaf } from "../ops/leaves.js";
import type { ForwardOptions } from "./forward.js";
import { buildForward } from "./forward.js";

export interface DecodeOptions extends Omit<ForwardOptions, "batch" | "length"> {
  /** Positions that the cache of keys and values has. */
  readonly capacity: number;
  /** Tokens fed in one run. */
  readonly tokens: number;
}

/** Names of the leaves that the host writes before a run of a decoding program of so many tokens. */
export function decodeInputs(tokens: number): { ids: string; positions: string; offset: string } {
  return { ids: `decode${tokens}.ids`, positions: `decode${tokens}.positions`, offset: `decode${tokens}.offset` };
}

/**
 * Feeds `tokens` tokens at given positions: keys and values go into the cache, attention reads all of it up to them.
 * The output is the logits of the last token, f32 [1, V].
 */
export function buildDecode(options: DecodeOptions): Program {
  const { capacity, tokens, activation } = options;
  const graph = new Graph();
  const names = decodeInputs(tokens);
  const integers = (name: string, shape: readonly number[]): Node =>
    leaf(graph, { name, role: "input", shape, dtype: "i32" });
  const ids = integers(names.ids, [tokens]);
  const positions = integers(names.positions, [tokens]);
  const offset = integers(names.offset, []);
  const assignments: Assignment[] = [];
  const remember = (name: string, rows: Node): Node => {
    const [, , heads = 0, width = 0] = rows.shape;
    const cache = leaf(graph, { name, role: "input", shape: [capacity, heads * width], dtype: activation });
    const value = scatterWrite(cache, positions, cast(reshape(rows, [tokens, heads * width]), activation));
    assignments.push({ target: cache, value });
    return reshape(value, [1, capacity, heads, width]);
  };
  const cached: ForwardContext["attention"] = (block, q, k, v, { window, scale }) => {
    const keys = remember(`cache.${block}.keys`, k);
    const values = remember(`cache.${block}.values`, v);
    return attention(q, keys, values, { window, scale, offset });
  };
  const inputs = { ids, positions, labels: ids, weights: ids, segments: undefined };
  const { result } = buildForward(graph, inputs, { ...options, batch: 1, length: tokens }, undefined, cached);
  const last = slice(result.hidden, [tokens - 1, 0], [1, must(result.hidden.shape[1], "width")]);
  const logits = dot(last, cast(result.head, last.dtype), { transposeB: true });
  return { name: `decode${tokens}`, graph, phases: [{ assignments, outputs: { logits } }], gradients: [] };
}
