/** Joins neighbouring loops into one wherever every index allows it, so that inner loops are long. */
import { must } from "../../errors.js";
import type { Linear, LoopVariable } from "./linear.js";
import { atomIndex, coefficientOf, constantIndex, nestedLinears } from "./linear.js";
import type { Piece, Section, Store } from "./nest.js";
import { Rewriter } from "./rewrite.js";
import type { Loop, ReduceValue, Value, ValueGraph } from "./value.js";
import { indicesOf, valuesBelow } from "./value.js";

/** A joined loop, or undefined where a variable was joined into the one inside it. */
type Joined = ReadonlyMap<LoopVariable, LoopVariable | undefined>;

export function collapse(section: Section, graph: ValueGraph): Section {
  const stores = section.pieces.flatMap((piece) => piece.stores);
  const values = valuesBelow(stores.map((store) => store.value));
  const indices = [...stores.map((store) => store.offset), ...values.flatMap(indicesOf)].flatMap(nestedLinears);
  const joined = new Map<LoopVariable, LoopVariable | undefined>();
  for (const loops of loopLists(section, values)) joinNeighbours(loops, indices, graph, joined);
  const rewriter = new Rewriter(graph, {
    variable: (variable) => {
      if (!joined.has(variable)) return undefined;
      const outer = joined.get(variable);
      return outer === undefined ? constantIndex(0) : atomIndex(outer);
    },
    loops: (loops) => joinedLoops(loops, joined),
  });
  const pieces = section.pieces.map((piece): Piece => ({
    ...piece,
    loops: joinedLoops(piece.loops, joined),
    stores: piece.stores.map((store) => rewriteStore(store, rewriter)),
  }));
  return { ...section, shared: joinedLoops(section.shared, joined), pieces };
}

export function rewriteStore(store: Store, rewriter: Rewriter): Store {
  return { ...store, offset: rewriter.index(store.offset), value: rewriter.value(store.value) };
}

/** Every list of directly nested loops, each once. */
function loopLists(section: Section, values: readonly Value[]): (readonly Loop[])[] {
  const reduces = values.filter((value): value is ReduceValue => value.kind === "reduce");
  const byName = new Map(reduces.map(({ loops }) => [loops.map((loop) => loop.variable.name).join(), loops]));
  return [section.shared, ...section.pieces.map((piece) => piece.loops), ...byName.values()];
}

function joinNeighbours(
  loops: readonly Loop[],
  indices: readonly Linear[],
  graph: ValueGraph,
  joined: Map<LoopVariable, LoopVariable | undefined>,
): void {
  let group: LoopVariable[] = [];
  const close = (): void => {
    if (group.length > 1) {
      const inner = must(group.at(-1), "inner loop");
      const extent = group.reduce((product, variable) => product * variable.extent, 1);
      const name = group.map((variable) => variable.name).join("_");
      for (const variable of group) joined.set(variable, undefined);
      joined.set(inner, graph.variable(name, extent, inner.depth));
    }
    group = [];
  };
  for (const { variable } of loops) {
    const outer = group.at(-1);
    if (outer !== undefined && !areOne(outer, variable, indices)) close();
    group.push(variable);
  }
  close();
}

/** Whether every index moves by one step of the outer loop as it does by all steps of the inner one. */
function areOne(outer: LoopVariable, inner: LoopVariable, indices: readonly Linear[]): boolean {
  return indices.every((index) => coefficientOf(index, outer) === coefficientOf(index, inner) * inner.extent);
}

function joinedLoops(loops: readonly Loop[], joined: Joined): Loop[] {
  return loops.flatMap((loop) => {
    if (!joined.has(loop.variable)) return [loop];
    const variable = joined.get(loop.variable);
    return variable === undefined ? [] : [{ variable }];
  });
}
