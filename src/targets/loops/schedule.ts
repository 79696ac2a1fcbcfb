/** Puts values into loops: each is computed where the last of the loops it depends on begins, and once. */
import { must } from "../../errors.js";
import { lanesFor, passHasLanes, reducesBelow } from "./lanes.js";
import type { LoopVariable } from "./linear.js";
import { variablesOf } from "./linear.js";
import type { Piece, Section, Stage, Statement, Store } from "./nest.js";
import type { Loop, ReduceValue, Value } from "./value.js";
import { loopKey, operandsOf, valuesBelow } from "./value.js";

interface Scope {
  readonly bound: ReadonlySet<LoopVariable>;
  /** Values that are there already; each scope adds to its own copy. */
  readonly known: Set<Value>;
  readonly insideLanes: boolean;
}

function within(depends: Iterable<LoopVariable>, bound: ReadonlySet<LoopVariable>): boolean {
  for (const variable of depends) if (!bound.has(variable)) return false;
  return true;
}

function entered(scope: Scope, variables: readonly LoopVariable[], lanes: boolean): Scope {
  const bound = new Set([...scope.bound, ...variables]);
  return { bound, known: new Set(scope.known), insideLanes: scope.insideLanes || lanes };
}

export function schedule(section: Section): Stage {
  const { shared, pieces } = laneLoops(section);
  const stores = pieces.flatMap((piece) => piece.stores);
  const count = parallelLoops(shared, stores);
  const root: Scope = { bound: new Set(), known: new Set(), insideLanes: false };
  const prologue = [
    ...hoist(
      root,
      stores.map((store) => store.value),
    ),
    ...storesAt(root, undefined, stores),
  ];
  const parallel = shared.slice(0, count).map((loop) => loop.variable);
  const inside = entered(root, parallel, false);
  const before = parallel.length === 0 ? undefined : root;
  const body = sharedLoops(inside, before, shared.slice(count), pieces);
  const splitLanes = splitsLanes([...prologue, ...body], stores);
  return { barrier: section.barrier, prologue, parallel, splitLanes, body };
}

/** The section with the innermost loop of each piece taken for lanes where that is right. */
function laneLoops(section: Section): Section {
  if (section.pieces.length === 1) {
    const [piece] = section.pieces;
    const { loops, stores, lanes } = must(piece, "piece");
    const all = [...section.shared, ...loops];
    if (!lanes && lanesFor(all, stores)) {
      return { ...section, shared: all.slice(0, -1), pieces: [{ loops: all.slice(-1), lanes: true, stores }] };
    }
    return section;
  }
  const pieces = section.pieces.map((piece): Piece => {
    const lanes = piece.lanes || (piece.loops.length > 0 && lanesFor(piece.loops, piece.stores));
    return { ...piece, lanes };
  });
  return { ...section, pieces };
}

/** How many of the outer loops are dealt to threads: none inside which a row is reduced or a row's value stored. */
function parallelLoops(shared: readonly Loop[], stores: readonly Store[]): number {
  const positions = new Map(shared.map((loop, index) => [loop.variable, index]));
  const depth = (depends: Iterable<LoopVariable>): number =>
    1 + Math.max(-1, ...[...depends].map((variable) => positions.get(variable) ?? shared.length - 1));
  const depths = reducesBelow(stores.map((store) => store.value))
    .filter((reduce) => !isCombination(reduce))
    .filter((reduce) => within(reduce.depends, new Set(positions.keys())))
    .map((reduce) => depth(reduce.depends));
  const stored = stores.map((store) => depth(placeOf(store)));
  return Math.min(shared.length, ...depths, ...stored);
}

/** A few partial results put together: cheap enough for every thread to do. */
function isCombination(reduce: ReduceValue): boolean {
  return reduce.body.kind === "load" && reduce.body.source.kind === "workspace";
}

/** Whether the body is only a loop over lanes, so that its steps can be dealt as well. */
function splitsLanes(body: readonly Statement[], stores: readonly Store[]): boolean {
  const loops = body.filter((statement) => statement.kind === "loop");
  const [loop] = loops;
  if (loop?.lanes !== true || loops.length > 1 || loop.loop.limit !== undefined) return false;
  if (!stores.every((store) => placeOf(store).has(loop.loop.variable))) return false;
  return body.every((statement) =>
    statement.kind !== "pass" ? statement.kind !== "store" : statement.reduces.every((reduce) => isCombination(reduce)),
  );
}

/** The loops inside which a store must stand. */
function placeOf(store: Store): Set<LoopVariable> {
  return new Set([...variablesOf(store.offset), ...store.value.depends]);
}

function storesAt(scope: Scope, outer: Scope | undefined, stores: readonly Store[]): Statement[] {
  return stores
    .filter((store) => {
      const place = placeOf(store);
      return within(place, scope.bound) && (outer === undefined || !within(place, outer.bound));
    })
    .map((store) => ({ kind: "store", store }));
}

function sharedLoops(
  scope: Scope,
  outer: Scope | undefined,
  loops: readonly Loop[],
  pieces: readonly Piece[],
): Statement[] {
  const stores = pieces.flatMap((piece) => piece.stores);
  const here =
    outer === undefined
      ? []
      : hoist(
          scope,
          stores.map((store) => store.value),
        );
  const stored = outer === undefined ? [] : storesAt(scope, outer, stores);
  const [loop, ...rest] = loops;
  if (loop !== undefined) {
    const inside = entered(scope, [loop.variable], false);
    const body = sharedLoops(inside, scope, rest, pieces);
    return [...here, ...stored, { kind: "loop", loop, lanes: false, body }];
  }
  const parts = pieces.flatMap((piece) => pieceLoops({ ...scope, known: new Set(scope.known) }, piece, piece.loops));
  return [...here, ...stored, ...parts];
}

/** A piece's loops from the given one inwards; what belongs before them is there already. */
function pieceLoops(scope: Scope, piece: Piece, loops: readonly Loop[]): Statement[] {
  const [loop, ...rest] = loops;
  if (loop === undefined) return [];
  const lanes = rest.length === 0 && piece.lanes;
  const inside = entered(scope, [loop.variable], lanes);
  const values = piece.stores.map((store) => store.value);
  const body = [...hoist(inside, values), ...storesAt(inside, scope, piece.stores), ...pieceLoops(inside, piece, rest)];
  return [{ kind: "loop", loop, lanes, body }];
}

/** Everything below `roots` that can be computed in this scope and is not there yet. */
function hoist(scope: Scope, roots: readonly Value[]): Statement[] {
  const { bound, known } = scope;
  const missing = valuesBelow(roots, (value) => known.has(value)).filter(
    (value) => !known.has(value) && value.kind !== "constant" && within(value.depends, bound),
  );
  const rounds = roundsOf(missing);
  for (const value of missing) known.add(value);
  const last = Math.max(-1, ...rounds.values());
  return Array.from({ length: last + 1 }, (_, round) => {
    const now = missing.filter((value) => rounds.get(value) === round);
    const reduces = now.filter((value): value is ReduceValue => value.kind === "reduce");
    const computed = now.filter((value) => value.kind !== "reduce");
    return [...passesOf(scope, reduces), ...computed.map((value): Statement => ({ kind: "compute", value }))];
  }).flat();
}

/** When each value can be computed: reductions that do not wait for each other share a round. */
function roundsOf(missing: readonly Value[]): Map<Value, number> {
  const rounds = new Map<Value, number>();
  for (const value of missing) {
    const before = value.kind === "reduce" ? valuesBelow([value.body]) : operandsOf(value);
    const latest = Math.max(0, ...before.map((operand) => rounds.get(operand) ?? 0));
    rounds.set(value, value.kind === "reduce" ? latest + 1 : latest);
  }
  return rounds;
}

function passesOf(scope: Scope, reduces: readonly ReduceValue[]): Statement[] {
  const groups = new Map<string, ReduceValue[]>();
  for (const reduce of reduces) {
    const key = `${reduce.loops.map(loopKey).join()} ${scope.insideLanes || passHasLanes([reduce])}`;
    groups.set(key, [...(groups.get(key) ?? []), reduce]);
  }
  return [...groups.values()].map((group): Statement => {
    const { loops } = must(group[0], "reduction");
    const lanes = !scope.insideLanes && passHasLanes(group);
    return { kind: "pass", reduces: group, loops, lanes, body: passLoops(scope, group, loops, lanes) };
  });
}

function passLoops(scope: Scope, group: readonly ReduceValue[], loops: readonly Loop[], lanes: boolean): Statement[] {
  const [loop, ...rest] = loops;
  if (loop === undefined) return group.map((reduce) => ({ kind: "accumulate", reduce }));
  const own = rest.length === 0 && lanes;
  const inside = entered(scope, [loop.variable], own);
  const values = group.map((reduce) => reduce.body);
  const body = [...hoist(inside, values), ...passLoops(inside, group, rest, lanes)];
  return [{ kind: "loop", loop, lanes: own, body }];
}
