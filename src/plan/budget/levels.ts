/**
 * Which of a chain's stages start from a value that is kept (level 0), and which from one that is made again, and how
 * late (levels from 1): binomial checkpointing (Griewank and Walther, "revolve", ACM TOMS 799, 2000). With `slots`
 * values kept at a time beside the chain's first, and every stage run at most `repeats` times more, the longest chain
 * has `reach(slots, repeats)` stages. Level of the input of each stage; that of the first is 0.
 */
export function checkpointLevels(stages: number, slots: number, repeats: number): number[] {
  const levels = new Array<number>(stages).fill(0);
  assign(levels, { from: 0, to: stages, slots, repeats, level: 0 });
  return levels;
}

/** The most stages that a chain can have: see {@link checkpointLevels}. */
export function reach(slots: number, repeats: number): number {
  if (repeats === 0) return slots + 1;
  if (slots === 0) return repeats + 1;
  return reach(slots, repeats - 1) + reach(slots - 1, repeats);
}

/** The fewest slots with which a chain can be run. */
export function fewestSlots(stages: number, repeats: number): number {
  let slots = 0;
  while (reach(slots, repeats) < stages) slots++;
  return slots;
}

interface Range {
  readonly from: number;
  readonly to: number;
  readonly slots: number;
  readonly repeats: number;
  readonly level: number;
}

function assign(levels: number[], { from, to, slots, repeats, level }: Range): void {
  if (to - from <= 1) return;
  if (repeats === 0 || slots === 0) {
    levels.fill(level, from + 1, to);
    return;
  }
  let start = from;
  for (let left = slots; ; left--) {
    // As short as the rest allows: what follows has one slot less.
    const shortest = left > 0 ? to - start - reach(left - 1, repeats) : to - start;
    const length = left > 0 ? Math.max(1, Math.min(shortest, reach(left, repeats - 1))) : to - start;
    const end = Math.min(to, start + length);
    assign(levels, { from: start, to: end, slots: left, repeats: repeats - 1, level: level + 1 });
    if (end >= to) return;
    levels[end] = level;
    start = end;
  }
}
