/** Entries that train give up their places, and others take them: the set moves, and what is kept of entries with it. */
import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import { absolute, lessEqual, select } from "../../ops/arithmetic.js";
import { exchangeSlots } from "../../ops/index-set.js";
import { take, topK } from "../../ops/top-k.js";
import type { RuleResult } from "../../optim/types.js";

/** Who may come: places i32 [C], numbers of candidates from the best on (-1: none), and the slots that hold them (-1). */
export interface Candidates {
  readonly places: Node;
  readonly arriving: Node;
  readonly slots: Node;
}

export interface ExchangeOptions {
  /** The places of the entries before, i32 [K]. */
  readonly places: Node;
  readonly candidates: Candidates;
  /** How many of the smallest may go, i32 []. */
  readonly limit: Node;
  /** States of candidates, f32 [C] by the rule's names; others of the rule stay as they are. */
  readonly seeds: Readonly<Record<string, Node>>;
}

/**
 * Of the entries [K] that an update made, the `limit` smallest in magnitude may go (see `exchangeSlots`). One that is new
 * is 0 and has its candidate's states; one that stays keeps value and states, in its slot.
 */
export function exchangeEntries(
  { value, states }: RuleResult,
  { places, candidates, limit, seeds }: ExchangeOptions,
): RuleResult & { readonly places: Node } {
  const count = must(value.shape[0], "entries");
  const leaving = topK(absolute(value), { count, by: "smallest", order: "rank" }).places;
  const { arriving, slots } = candidates;
  const source = exchangeSlots({ leaving, arriving, slots, limit });
  const isNew = lessEqual(0, source);
  const seeded = Object.entries(states).map(([name, state]) => {
    const seed = seeds[name];
    return [name, seed === undefined ? state : select(isNew, take(seed, source), state)] as const;
  });
  return {
    value: select(isNew, 0, value),
    states: Object.fromEntries(seeded),
    places: select(isNew, take(candidates.places, source), places),
  };
}
