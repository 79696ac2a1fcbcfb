/**
 * Reductions too large for the thread that needs their result: partial results of fixed chunks, made in parallel into
 * the workspace, and combined in order after a barrier. Chunks depend on the shape alone.
 */
import { must } from "../../errors.js";
import { elements } from "../../ir/shape.js";
import { lanesFor, reducesBelow } from "./lanes.js";
import type { Linear, LoopVariable } from "./linear.js";
import { addScaled, atomIndex, constantIndex } from "./linear.js";
import type { Piece, Section, Store } from "./nest.js";
import { Rewriter } from "./rewrite.js";
import type { Loop, ReduceValue, Value, ValueGraph } from "./value.js";
import { loopKey, valuesBelow } from "./value.js";

/** Elements of one chunk of a reduction along the rows in memory. */
const chunkElements = 32768;
/** Fewer rows than this are added up lane by lane where they are used. */
const fewRows = 32;
const mostRowChunks = 64;
const leastRowsPerChunk = 64;
const columnBlock = 1024;

interface Partial {
  readonly reduce: ReduceValue;
  /** Reductions that this one needs are of an earlier wave. */
  readonly wave: number;
  readonly columns: boolean;
  readonly chunks: number;
  /** Steps of the first loop in a chunk. */
  readonly steps: number;
  /** In the workspace, in elements. */
  readonly base: number;
}

/** The workspace handed out so far, in elements of 4 bytes. */
export interface Workspace {
  elements: number;
}

const extentOf = (loops: readonly Loop[]): number => elements(loops.map((loop) => loop.variable.extent));

/** The sections that do the work of one, and the workspace they need. */
export function stageReductions(section: Section, graph: ValueGraph, workspace: Workspace): Section[] {
  const [piece] = section.pieces;
  return piece === undefined || section.pieces.length > 1
    ? [section]
    : new Staging(section, piece, graph, workspace).run();
}

class Staging {
  readonly #partials = new Map<ReduceValue, Partial>();
  readonly #combined = new Map<ReduceValue, Value>();
  readonly #loops: readonly Loop[];
  readonly #lane: LoopVariable | undefined;

  constructor(
    readonly section: Section,
    readonly piece: Piece,
    readonly graph: ValueGraph,
    readonly workspace: Workspace,
  ) {
    this.#loops = [...section.shared, ...piece.loops];
    this.#lane = lanesFor(this.#loops, piece.stores) ? this.#loops.at(-1)?.variable : undefined;
  }

  run(): Section[] {
    const point = new Set(this.#loops.map((loop) => loop.variable));
    for (const reduce of reducesBelow(this.piece.stores.map((store) => store.value))) {
      if ([...reduce.depends].every((variable) => point.has(variable))) this.#plan(reduce);
    }
    const sections: Section[] = [];
    const waves = Math.max(0, ...[...this.#partials.values()].map((partial) => partial.wave));
    for (let wave = 1; wave <= waves; wave++) {
      for (const [index, group] of this.#groups(wave).entries())
        sections.push(this.#partialSection(group, index === 0));
    }
    const rewriter = new Rewriter(this.graph, { reduce: (reduce) => this.#result(reduce) });
    const stores = this.piece.stores.map((store) => ({ ...store, value: rewriter.value(store.value) }));
    sections.push({ ...this.section, barrier: sections.length > 0, pieces: [{ ...this.piece, stores }] });
    return sections;
  }

  #plan(reduce: ReduceValue): void {
    const inner = reducesBelow([reduce.body]);
    const own = new Set(reduce.loops.map((loop) => loop.variable));
    const nested = inner.some((other) => [...other.depends].some((variable) => own.has(variable)));
    const columns = this.#lane !== undefined && reduce.depends.has(this.#lane);
    const size = extentOf(reduce.loops);
    if (columns ? size < fewRows && !nested : !this.#isLong(reduce, size)) return;
    const first = must(reduce.loops[0], "loop").variable.extent;
    const steps = columns
      ? Math.max(leastRowsPerChunk, Math.ceil(first / mostRowChunks))
      : Math.max(1, Math.floor(chunkElements / (size / first)));
    const wave = 1 + Math.max(0, ...inner.map((other) => this.#partials.get(other)?.wave ?? 0));
    const chunks = Math.ceil(first / steps);
    this.#partials.set(reduce, { reduce, wave, columns, chunks, steps, base: this.workspace.elements });
    const count = this.#outer(reduce).reduce((product, variable) => product * variable.extent, chunks);
    this.workspace.elements += Math.ceil(count / 16) * 16;
  }

  /** Whether one thread would work on a row for long while others have nothing to do. */
  #isLong(reduce: ReduceValue, size: number): boolean {
    const rows = this.#outer(reduce).reduce((product, variable) => product * variable.extent, 1);
    if (rows >= 16) return false;
    return size > 2 * chunkElements || (rows === 1 && this.#lane !== undefined && size >= chunkElements / 2);
  }

  /** The output loops that the reduction depends on, outermost first. */
  #outer(reduce: ReduceValue): LoopVariable[] {
    return this.#loops.map((loop) => loop.variable).filter((variable) => reduce.depends.has(variable));
  }

  /** Reductions of a wave that can be made in one pass. */
  #groups(wave: number): Partial[][] {
    const groups = new Map<string, Partial[]>();
    for (const partial of this.#partials.values()) {
      if (partial.wave !== wave) continue;
      const { reduce, columns } = partial;
      const key = [columns, ...reduce.loops.map(loopKey), "of", ...this.#outer(reduce).map((v) => v.name)].join();
      groups.set(key, [...(groups.get(key) ?? []), partial]);
    }
    return [...groups.values()];
  }

  /** Where a partial result stands: [outer loops but the lanes, chunk, lanes]. */
  #place({ reduce, chunks, base, columns }: Partial, chunk: Linear): Linear {
    const outer = this.#outer(reduce);
    const lane = columns ? outer.pop() : undefined;
    const row = outer.reduce<Linear>(
      (sum, variable) => addScaled(atomIndex(variable), sum, variable.extent),
      constantIndex(0),
    );
    const place = addScaled(chunk, row, chunks);
    const start = constantIndex(base);
    return lane === undefined
      ? addScaled(start, place)
      : addScaled(addScaled(start, atomIndex(lane)), place, lane.extent);
  }

  /** The value of a staged reduction in later sections. */
  #result(reduce: ReduceValue): Value | undefined {
    const partial = this.#partials.get(reduce);
    if (partial === undefined) return undefined;
    const known = this.#combined.get(reduce);
    if (known !== undefined) return known;
    const variable = this.graph.variable(`chunk${partial.base}`, partial.chunks, 1);
    const chunk = partial.chunks === 1 ? constantIndex(0) : atomIndex(variable);
    const { type } = reduce;
    const load = this.graph.load({
      source: { kind: "workspace" },
      memory: type,
      type,
      offset: this.#place(partial, chunk),
      guards: [],
    });
    const value = partial.chunks === 1 ? load : this.graph.reduce(reduce.combine, [{ variable }], load);
    this.#combined.set(reduce, value);
    return value;
  }

  #partialSection(group: readonly Partial[], first: boolean): Section {
    const { reduce, chunks, steps, columns } = must(group[0], "reduction");
    const barrier = first && must(group[0], "reduction").wave > 1;
    const [outermost, ...rest] = reduce.loops;
    const split = must(outermost, "loop").variable;
    const chunk = this.graph.variable(`${split.name}c`, chunks, 0);
    const step = limited(this.graph, `${split.name}s`, split.extent, steps, chunk);
    const replace = new Map([[split, step.index]]);
    const shared: Loop[] = this.#outer(reduce).map((variable) => ({ variable }));
    const lane = columns ? must(shared.pop(), "lane loop").variable : undefined;
    if (chunks > 1) shared.push({ variable: chunk });
    const lanes = lane === undefined ? undefined : this.#columns(lane, group, shared, replace);
    const rewriter = new Rewriter(this.graph, {
      variable: (variable) => replace.get(variable),
      reduce: (other) => this.#result(other),
    });
    const index = chunks > 1 ? atomIndex(chunk) : constantIndex(0);
    const loops = [step.loop, ...rest];
    const stores = group.map((partial): Store => {
      const offset = rewriter.index(this.#place(partial, index));
      const body = rewriter.value(partial.reduce.body);
      const { combine, type } = partial.reduce;
      const target = { kind: "workspace" } as const;
      if (lanes !== undefined) return { target, memory: type, offset, value: body, combine };
      return { target, memory: type, offset, value: this.graph.reduce(combine, loops, body) };
    });
    if (lanes === undefined) return { barrier, shared, pieces: [{ loops: [], lanes: false, stores }] };
    const accumulate: Piece = { loops: [...loops, lanes], lanes: true, stores };
    return { barrier, shared, pieces: [this.#initial(stores, lanes), accumulate] };
  }

  /** The loop over lanes of a column reduction; wide ones are cut into blocks, which are loops around it. */
  #columns(lane: LoopVariable, group: readonly Partial[], shared: Loop[], replace: Map<LoopVariable, Linear>): Loop {
    const nested = group.some(({ reduce }) => valuesBelow([reduce.body]).some((value) => value.kind === "reduce"));
    if (nested || lane.extent <= 2 * columnBlock) return { variable: lane };
    const block = this.graph.variable(`${lane.name}b`, Math.ceil(lane.extent / columnBlock), 0);
    const column = limited(this.graph, `${lane.name}l`, lane.extent, columnBlock, block);
    shared.push({ variable: block });
    replace.set(lane, column.index);
    return column.loop;
  }

  /** Sets partial results to what changes nothing. */
  #initial(stores: readonly Store[], lanes: Loop): Piece {
    const initial = stores.map(({ combine, ...store }): Store => {
      const { type } = store.value;
      return { ...store, value: this.graph.constant(type, combine === "add" ? 0 : leastOf(type)) };
    });
    return { loops: [lanes], lanes: true, stores: initial };
  }
}

/** What `maximum` leaves unchanged. */
export function leastOf(type: Value["type"]): number {
  return type === "f32" ? -Infinity : type === "i32" ? -2147483648 : 0;
}

/** A loop over one chunk of `total` steps, and the step of the whole that it stands for. */
function limited(
  graph: ValueGraph,
  name: string,
  total: number,
  steps: number,
  chunk: LoopVariable,
): { loop: Loop; index: Linear } {
  if (total <= steps) {
    const variable = graph.variable(name, total, 0);
    return { loop: { variable }, index: atomIndex(variable) };
  }
  const variable = graph.variable(name, steps, 0);
  const start = addScaled(constantIndex(0), atomIndex(chunk), steps);
  return { loop: { variable, limit: { start, total } }, index: addScaled(start, atomIndex(variable)) };
}
