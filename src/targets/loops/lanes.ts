/** Which loop runs over vector lanes. */
import { must } from "../../errors.js";
import type { LoopVariable } from "./linear.js";
import { coefficientOf } from "./linear.js";
import type { Store } from "./nest.js";
import type { Loop, LoadValue, ReduceValue, Value } from "./value.js";
import { valuesBelow } from "./value.js";

export function reducesBelow(roots: Iterable<Value>): ReduceValue[] {
  return valuesBelow(roots).filter((value): value is ReduceValue => value.kind === "reduce");
}

/**
 * Whether the innermost of the loops over outputs takes the lanes. Not where each of its steps reduces a row that lies
 * contiguous in memory: the lanes are needed there.
 */
export function lanesFor(loops: readonly Loop[], stores: readonly Store[]): boolean {
  const inner = loops.at(-1)?.variable;
  if (inner === undefined) return false;
  const reduces = reducesBelow(stores.map((store) => store.value)).filter((reduce) => reduce.depends.has(inner));
  return !reduces.some((reduce) => isRow(reduce, inner));
}

function isRow(reduce: ReduceValue, outer: LoopVariable): boolean {
  const own = must(reduce.loops.at(-1), "loop").variable;
  const loads = valuesBelow([reduce.body]).filter((value): value is LoadValue => value.kind === "load");
  const along = (variable: LoopVariable): number =>
    loads.filter((load) => Math.abs(coefficientOf(load.offset, variable)) === 1).length;
  const rows = along(own);
  return rows > 0 && rows >= along(outer);
}

/** Whether a pass over these reductions can use lanes: not if one inside depends on the innermost loop. */
export function passHasLanes(reduces: readonly ReduceValue[]): boolean {
  const inner = must(reduces[0]?.loops.at(-1), "loop").variable;
  return !reducesBelow(reduces.map((reduce) => reduce.body)).some((other) => other.depends.has(inner));
}
