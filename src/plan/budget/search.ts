import type { SavedValues } from "../../passes/saved.js";
import type { Choice, Choices, Sparse } from "./choice.js";
import { savedValues } from "./choice.js";
import { fewestSlots } from "./levels.js";
import type { Division } from "./stages.js";

/** What a program takes with some choice. */
export interface Measured {
  /** Bytes alive at the peak, persistent ones left out: no placement needs less. */
  readonly bytes: number;
  /** Predicted, of one run. */
  readonly seconds: number;
}

export type Measure = (saved: SavedValues) => Measured;

export interface Found extends Measured {
  readonly choice: Choice;
}

/** So many of the last blocks are looked at for what they need not make again. */
const mostRelaxed = 6;

/** Searches the choices of one program; every one that is looked at is scheduled and measured, none is estimated. */
export class ChoiceSearch {
  private readonly known = new Map<string, Found>();

  constructor(
    private readonly choices: Choices,
    private readonly measure: Measure,
    /** How many neighbours of a choice are looked at in search of the smallest. */
    private readonly effort: number,
  ) {}

  get(choice: Choice): Found {
    const key = JSON.stringify(choice);
    const known = this.known.get(key);
    if (known !== undefined) return known;
    const found = { ...this.measure(savedValues(this.choices, choice)), choice };
    this.known.set(key, found);
    return found;
  }

  private get blocks(): number {
    return this.choices.stages.blocks.length;
  }

  private get lowest(): number {
    return this.choices.ladder.length - 1;
  }

  /** All blocks on one rung, those below `count` one rung further. */
  private dense(rung: number, count: number): Choice {
    return { rungs: Array.from({ length: this.blocks }, (_, block) => rung + (block < count ? 1 : 0)) };
  }

  /**
   * The fastest choice found that needs at most so many bytes; undefined where none was found. Only `sparse` ones keep
   * less than one value a stage: they are slow, so other ways to need less are better tried first.
   */
  fastest(limit: number, sparse: boolean): Found | undefined {
    const dense = this.firstFit(
      this.lowest * this.blocks + 1,
      (place) => this.dense(Math.floor(place / this.blocks), place % this.blocks),
      limit,
    );
    const found = dense ?? (sparse ? this.firstSparse(limit) : undefined);
    return found === undefined ? undefined : this.relax(found, limit);
  }

  /** The first of a row of choices, each smaller and slower than the one before, that fits. */
  private firstFit(count: number, at: (place: number) => Choice, limit: number): Found | undefined {
    if (this.get(at(count - 1)).bytes > limit) return undefined;
    let [low, high] = [0, count - 1];
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (this.get(at(middle)).bytes <= limit) high = middle;
      else low = middle + 1;
    }
    return this.get(at(high));
  }

  private firstSparse(limit: number): Found | undefined {
    for (const family of this.families()) {
      const fit = this.firstFit(family.length, (place) => this.sparse(family[place]), limit);
      if (fit !== undefined) return fit;
    }
    return undefined;
  }

  private sparse(sparse: Sparse | undefined): Choice {
    const rungs = this.dense(this.lowest, 0).rungs;
    return sparse === undefined ? { rungs } : { rungs, sparse };
  }

  /** Ways to keep less than one value a stage, those that repeat less first; each from the least sparse on. */
  private families(): Sparse[][] {
    const { division } = this.choices.stages;
    const divisions = Object.keys(division) as Division[];
    return [1, 2, 3].flatMap((repeats) =>
      divisions.flatMap((name) => {
        const stages = division[name].inputs.length;
        const most = repeats === 1 ? stages - 2 : fewestSlots(stages, repeats - 1) - 1;
        const least = fewestSlots(stages, repeats);
        const count = Math.max(0, most - least + 1);
        const family = Array.from({ length: count }, (_, index) => ({ division: name, slots: most - index, repeats }));
        return family.length === 0 ? [] : [family];
      }),
    );
  }

  /** Undoes what is not needed: what the last blocks keep is there for a short time only, and often costs nothing. */
  private relax(start: Found, limit: number): Found {
    let best = start;
    for (let block = this.blocks - 1; block >= Math.max(0, this.blocks - mostRelaxed); block--) {
      const now = best.choice.rungs[block] ?? 0;
      if (now === 0) break;
      const at = (rung: number): Choice => ({ ...best.choice, rungs: best.choice.rungs.with(block, rung) });
      const fit = this.firstFit(now + 1, at, limit);
      if (fit === undefined || fit.seconds >= best.seconds) break;
      best = fit;
      if (best.choice.rungs[block] !== 0) break;
    }
    return best;
  }

  /** The choice with the fewest bytes found. */
  smallest(): Found {
    const starts = this.families().map((family) => this.sparse(family.at(-1)));
    const best = smallestOf(
      [this.dense(this.lowest, 0), this.dense(0, 0), ...starts].map((choice) => this.get(choice)),
    );
    return this.descend(best);
  }

  /** Changes one thing after another as long as that saves bytes, and as many choices as wanted have been looked at. */
  private descend(start: Found): Found {
    let best = start;
    let left = this.effort;
    for (let better: Found | undefined = start; better !== undefined;) {
      better = undefined;
      for (const choice of this.neighbours(best.choice)) {
        if (left-- <= 0) return best;
        const found = this.get(choice);
        if (found.bytes >= best.bytes) continue;
        best = better = found;
        break;
      }
    }
    return best;
  }

  /** Choices that differ in one thing, or in two values of one block; the most promising first. */
  private *neighbours(choice: Choice): Generator<Choice> {
    const { rungs, sparse, toggled = [] } = choice;
    if (sparse !== undefined) {
      for (const slots of [sparse.slots + 1, sparse.slots - 1]) {
        if (slots > 0) yield { ...choice, sparse: { ...sparse, slots } };
      }
    }
    const last = this.blocks - 1;
    for (let rung = 0; rung <= this.lowest; rung++) yield { ...choice, rungs: rungs.with(last, rung) };
    const count = this.choices.groups.length;
    const toggle = (values: readonly number[]): Choice => ({
      ...choice,
      toggled: symmetricDifference(toggled, values),
    });
    for (let block = last; block >= 0; block--) {
      for (let group = 0; group < count; group++) yield toggle([group + count * block]);
    }
    for (let rung = 0; rung <= this.lowest; rung++) yield { ...choice, rungs: rungs.map(() => rung) };
    for (let block = last; block >= 0; block--) {
      for (let group = 0; group < count; group++) {
        for (let other = 0; other < group; other++) yield toggle([group + count * block, other + count * block]);
      }
    }
  }
}

function symmetricDifference(one: readonly number[], other: readonly number[]): number[] {
  const once = [...one.filter((value) => !other.includes(value)), ...other.filter((value) => !one.includes(value))];
  return once.sort((a, b) => a - b);
}

function smallestOf(found: readonly Found[]): Found {
  return found.reduce((best, one) =>
    one.bytes < best.bytes || (one.bytes === best.bytes && one.seconds < best.seconds) ? one : best,
  );
}
