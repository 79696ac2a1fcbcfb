import { must } from "../errors.js";
import { leafAttributes } from "../ops/leaves.js";
import type { Schedule } from "../passes/schedule.js";
import type { Draft } from "./draft.js";
import { checkSize, round } from "./layout.js";
import type { Buffer, PersistentLayout, PlannedTransfer, TargetFacts } from "./types.js";

interface Slot {
  readonly draft: Draft;
  readonly stored: Buffer;
  readonly first: number;
  readonly last: number;
  readonly written: number | undefined;
}

/** The memory of tensors that lie on disk: a transient buffer for each of their stays. */
export class Slots {
  readonly #slots: readonly Slot[];
  readonly #byName = new Map<string, Slot[]>();

  constructor({ stays = [] }: Schedule, layout: PersistentLayout, { alignment, limits }: TargetFacts) {
    this.#slots = stays.map(({ leaf, fetch, first, last, written }): Slot => {
      const { name } = leafAttributes(leaf);
      const stored = must(layout.buffers.get(name), `place of ${name}`);
      const bytes = round(stored.bytes, alignment);
      checkSize(name, bytes, limits);
      // Alive until the step before which the write is made: what ends at a step may be filled right after it.
      const end = written ?? last;
      // Never the place of another value, whatever is read last from it: hence lastRead.
      const draft: Draft = { name, kind: stored.kind, bytes, start: fetch, end, lastRead: Infinity };
      return { draft, stored, first, last, written };
    });
    // What visits as a whole lies side by side: equal blocks then have equal places, which they take in turn.
    for (const visit of new Set(stays.flatMap((stay) => stay.visit ?? []))) {
      const group = this.#slots.flatMap(({ draft }, index) => (stays[index]?.visit === visit ? [draft] : []));
      for (const draft of group) draft.group = group;
    }
    for (const slot of this.#slots) {
      const { name } = slot.stored;
      this.#byName.set(name, [...(this.#byName.get(name) ?? []), slot]);
    }
  }

  get drafts(): Draft[] {
    return this.#slots.map(({ draft }) => draft);
  }

  /** Whether a leaf lies on disk. */
  has(name: string): boolean {
    return this.#byName.has(name);
  }

  /** Where a tensor on disk is while a step runs. */
  at(name: string, step: number): Draft {
    const slot = this.#byName.get(name)?.find(({ first, last }) => first <= step && step <= last);
    return must(slot, `stay of ${name} at step ${step}`).draft;
  }

  /** Reads before first uses and writes after last ones, in the order in which they are asked for. */
  transfers(place: (draft: Draft) => Buffer): PlannedTransfer[] {
    const all = this.#slots.flatMap(({ draft, stored, first, last, written }): PlannedTransfer[] => {
      const memory = place(draft);
      const read: PlannedTransfer = { direction: "read", stored, memory, start: draft.start, done: first };
      if (written === undefined) return [read];
      return [read, { direction: "write", stored, memory, start: last + 1, done: written }];
    });
    // What was changed is written before it is read again.
    const rank = ({ direction }: PlannedTransfer): number => (direction === "write" ? 0 : 1);
    return all.sort((a, b) => a.start - b.start || rank(a) - rank(b) || a.done - b.done);
  }
}
