/** How the axes of a kernel are taken apart into loops: found by lowering, which starts again after each finding. */
import { must } from "../../errors.js";
import type { Linear, LoopVariable } from "./linear.js";
import { addScaled, atomIndex, constantIndex, shifted, substitute } from "./linear.js";

/** An axis as index of the loops that run over it; one of several where the axis is cut. */
export interface Coordinate {
  readonly index: Linear;
  readonly variables: readonly LoopVariable[];
}

/** Coordinates along several axes, and all their loops, outermost first. */
export interface Coordinates {
  readonly indices: readonly Linear[];
  readonly variables: readonly LoopVariable[];
}

const mostCuts = 4;

/**
 * An axis may be split (a reshape below reads it as two) and cut (padding begins or ends inside it, so that each part
 * gets loops of its own, in which nothing is asked any more).
 */
export class Refinement {
  changed = false;
  readonly #variables = new Map<string, LoopVariable>();
  readonly #splits = new Map<string, number>();
  readonly #cuts = new Map<string, number>();

  /** Starts a new lowering with what was found so far. */
  begin(): void {
    this.changed = false;
    this.#variables.clear();
  }

  split(variable: LoopVariable, radix: number): void {
    this.changed = true;
    this.#splits.set(variable.axis, radix);
  }

  /**
   * Cuts a variable before step `at`, unless there are too many cuts already. Where equal parts result, the variable
   * is split first: its parts then have the inner loop in common, and what they both read is loaded once.
   */
  cut(variable: LoopVariable, at: number): void {
    const { axis, extent } = variable;
    if (this.#cuts.has(axis) || this.#cuts.size === mostCuts) return;
    if (at > 1 && extent % at === 0) this.split(variable, at);
    else {
      this.#cuts.set(axis, at);
      this.changed = true;
    }
  }

  /** The parts of one axis, in order. */
  coordinates(axis: string, extent: number, depth: number): Coordinate[] {
    if (extent === 1) return [{ index: constantIndex(0), variables: [] }];
    const radix = this.#splits.get(axis);
    if (radix !== undefined) {
      const inner = this.coordinates(`${axis}l`, radix, depth);
      return this.coordinates(`${axis}h`, extent / radix, depth).flatMap((high) =>
        inner.map((low) => ({
          index: addScaled(low.index, high.index, radix),
          variables: [...high.variables, ...low.variables],
        })),
      );
    }
    const cut = this.#cuts.get(axis);
    if (cut !== undefined) {
      const after = this.coordinates(`${axis}b`, extent - cut, depth);
      return [
        ...this.coordinates(`${axis}a`, cut, depth),
        ...after.map(({ index, variables }) => ({ index: shifted(index, cut), variables })),
      ];
    }
    const variable: LoopVariable = { kind: "loop", name: axis, extent, axis, depth };
    return [{ index: atomIndex(variable), variables: [variable] }];
  }

  /** All combinations of the parts of several axes. Loops that are not common to all have names of their own. */
  combinations(prefix: string, extents: readonly number[], depth: number): { common: number; parts: Coordinates[] } {
    let parts: Coordinates[] = [{ indices: [], variables: [] }];
    extents.forEach((extent, axis) => {
      const own = this.coordinates(`${prefix}${axis}`, extent, depth);
      parts = parts.flatMap((outer) =>
        own.map(({ index, variables }) => ({
          indices: [...outer.indices, index],
          variables: [...outer.variables, ...variables],
        })),
      );
    });
    const common = commonLength(parts.map((part) => part.variables.map((variable) => variable.name)));
    return {
      common,
      parts: parts.map((part, index) => this.#renamed(part, common, parts.length > 1 ? `@${index}` : "")),
    };
  }

  /** The part with its variables, other than the common ones, renamed; equal names are one object. */
  #renamed(part: Coordinates, common: number, suffix: string): Coordinates {
    const variables = part.variables.map((variable, place) => {
      const name = place < common ? variable.name : variable.name + suffix;
      const known = this.#variables.get(name) ?? { ...variable, name };
      this.#variables.set(name, known);
      return known;
    });
    const byOld = new Map(part.variables.map((old, place) => [old.name, must(variables[place], "variable")]));
    const indices = part.indices.map((index) =>
      substitute(index, (atom) => atomIndex(must(byOld.get(atom.name), `variable ${atom.name}`))),
    );
    return { indices, variables };
  }
}

function commonLength(lists: readonly (readonly string[])[]): number {
  const first = lists[0] ?? [];
  const differs = first.findIndex((name, index) => lists.some((list) => list[index] !== name));
  return differs < 0 ? first.length : differs;
}
