import { must } from "../../errors.js";
import { sum } from "../../plan/sum.js";

/** How a budget is divided among sources whose shares are no whole numbers. */
export type Division = "proportional" | "balanced";

/**
 * How many of a budget each of several sources gets, in proportion to its members: rounded down, and one more each for
 * the sources that got the fewest (`proportional`), or for such as were rounded, drawn by lot (`balanced`; `draw` gives
 * that many different numbers below a total), until the budget is spent. No source gets more than it has.
 */
export function divideBudget(
  members: readonly number[],
  budget: number,
  division: Division,
  draw: (count: number, total: number) => readonly number[],
): number[] {
  const total = sum(members, (count) => count);
  if (total === 0) return members.map(() => 0);
  const spent = Math.min(budget, total);
  // Whole-number arithmetic: 50 * 40 / 88 must not fall below a whole number by rounding.
  const shares = members.map((count) => Math.floor((count * spent) / total));
  const rounded = members.flatMap((count, source) => ((count * spent) % total === 0 ? [] : [source]));
  const left = spent - sum(shares, (share) => share);
  const open = fewest(shares).filter((source) => must(shares[source], "share") < must(members[source], "members"));
  const more = division === "proportional" ? open.slice(0, left) : drawn(rounded, left, draw);
  return shares.map((share, source) => share + (more.includes(source) ? 1 : 0));
}

/** Sources, those that got the fewest first; of equals, the first. */
function fewest(shares: readonly number[]): number[] {
  return shares.map((_, source) => source).sort((a, b) => must(shares[a], "share") - must(shares[b], "share") || a - b);
}

function drawn(
  rounded: readonly number[],
  count: number,
  draw: (count: number, total: number) => readonly number[],
): number[] {
  return draw(count, rounded.length).map((place) => must(rounded[place], "source"));
}
