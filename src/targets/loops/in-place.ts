/** Where an output of a generated kernel may take over the memory of an input. */
import { must } from "../../errors.js";
import { sizeOf } from "../../ir/dtype.js";
import { elements } from "../../ir/shape.js";
import { reducesBelow } from "./lanes.js";
import { atomIndex, linearKey, substitute } from "./linear.js";
import { memoryOf } from "./lower-node.js";
import type { LoopNest, Piece, Section, Store } from "./nest.js";
import type { LoadValue, Loop, ReduceValue } from "./value.js";
import { valuesBelow } from "./value.js";

/**
 * For each output, the numbers of the inputs that it may overwrite: of the same size, and read nowhere after another
 * element of the output may have been written there.
 */
export function inPlaceInputs(nest: LoopNest): number[][] {
  const { inputs, outputs } = nest.kernel;
  return outputs.map((output, index) =>
    inputs.flatMap((input, place) => {
      const memory = memoryOf(input);
      const fits =
        typeof memory === "string" &&
        sizeOf(memory) === sizeOf(output.dtype) &&
        elements(input.shape) === elements(output.shape);
      return fits && mayOverwrite(nest.sections, index, place) ? [place] : [];
    }),
  );
}

const stored = (piece: Piece, output: number): Store[] =>
  piece.stores.filter(({ target }) => target.kind === "output" && target.index === output);

function mayOverwrite(sections: readonly Section[], output: number, input: number): boolean {
  const first = sections.findIndex((section) => section.pieces.some((piece) => stored(piece, output).length > 0));
  return sections.every((section, index) => {
    // All reads of a section are over before the first section with a barrier after it begins.
    if (sections.slice(index + 1, first + 1).some((later) => later.barrier)) return true;
    return section.pieces.every((piece) => {
      const stores = stored(piece, output);
      const values = valuesBelow(piece.stores.map((store) => store.value));
      const loads = values.filter((value): value is LoadValue => value.kind === "load" && readsInput(value, input));
      return loads.every((load) => isAligned(load, stores) || isOwnRow(load, section, piece, stores));
    });
  });
}

function readsInput({ source }: LoadValue, input: number): boolean {
  return source.kind === "input" && source.index === input;
}

/** Reads what the same iteration stores: all loads of an iteration come before its stores. */
function isAligned(load: LoadValue, stores: readonly Store[]): boolean {
  return stores.some((store) => linearKey(store.offset) === linearKey(load.offset));
}

/** Reads, in a pass over a row that comes before, just the row that is stored later by the same thread. */
function isOwnRow(load: LoadValue, section: Section, piece: Piece, stores: readonly Store[]): boolean {
  const [store] = stores;
  if (store === undefined || stores.length > 1 || section.pieces.length > 1) return false;
  const loops = [...section.shared, ...piece.loops];
  return reducesBelow(piece.stores.map(({ value }) => value)).some(
    (reduce) => valuesBelow([reduce.body]).includes(load) && matchesRow(load, reduce, loops, store),
  );
}

function matchesRow(load: LoadValue, reduce: ReduceValue, loops: readonly Loop[], store: Store): boolean {
  const inner = loops.slice(loops.length - reduce.loops.length);
  if (reduce.loops.length > loops.length || inner.some((loop) => reduce.depends.has(loop.variable))) return false;
  const same = inner.every((loop, place) => loop.variable.extent === reduce.loops[place]?.variable.extent);
  const offset = substitute(store.offset, (atom) => {
    const place = inner.findIndex((loop) => loop.variable === atom);
    return place < 0 ? undefined : atomIndex(must(reduce.loops[place], "loop").variable);
  });
  return same && linearKey(offset) === linearKey(load.offset);
}
