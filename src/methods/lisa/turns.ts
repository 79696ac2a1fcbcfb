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
 * were drawn.
 */
export function turnsOf(draw: (period: number) => readonly number[], interval: number, step: number): Turn[] {
  let turns: Turn[] = draw(0).map((block) => ({ block, since: 0 }));
  for (let period = 1; period <= Math.floor(step / interval); period++) {
    const drawn = draw(period);
    const fresh = drawn.filter((block) => !turns.some((turn) => turn.block === block));
    let next = 0;
    turns = turns.map((turn) =>
      drawn.includes(turn.block) ? turn : { block: must(fresh[next++], "a drawn block"), since: period * interval },
    );
  }
  return turns;
}
