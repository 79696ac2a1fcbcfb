import { must } from "../../errors.js";
import { drawDistinct } from "../initial.js";
import type { Turn } from "../types.js";

/** Different blocks of period number `period`, uniformly without replacement: a function of its arguments alone. */
export function drawBlocks(blocks: number, count: number, period: number, seed: number): number[] {
  return drawDistinct(seed, `lisa.${period}`, count, blocks);
}

/**
 * Who has which turn in a step, when `draw` gives the blocks of each period of `interval` steps. A block that is drawn
 * again keeps its turn, and with it its states; the others take the turns that are free, in the order in which they
 * were drawn. What it returns answers by the number of the step; since a run asks for one after the other, it goes on
 * from its last answer where it can, and else from the first period.
 */
export function turnsOf(
  draw: (period: number) => readonly number[],
  interval: number,
): (step: number) => readonly Turn[] {
  const start = { period: 0, turns: draw(0).map((block): Turn => ({ block, since: 0 })) };
  let last = start;
  return (step) => {
    const wanted = Math.floor(step / interval);
    if (last.period > wanted) last = start;
    while (last.period < wanted) last = next(last.turns, last.period + 1);
    return last.turns;
  };

  function next(turns: readonly Turn[], period: number): typeof start {
    const drawn = draw(period);
    const fresh = drawn.filter((block) => !turns.some((turn) => turn.block === block));
    let taken = 0;
    const changed = turns.map((turn) =>
      drawn.includes(turn.block) ? turn : { block: must(fresh[taken++], "a drawn block"), since: period * interval },
    );
    return { period, turns: changed };
  }
}
