import type { Interval } from "../plan/offsets.js";
import { largestLive } from "../plan/offsets.js";

/**
 * The least bytes in which intervals can be placed, by branch and bound over all placements in which nothing can be
 * moved down; for a dozen intervals. Such a placement is found by placing in the order of offsets, each interval right
 * on the highest of those below it that are alive with it.
 */
export function exactExtent(intervals: readonly Interval[]): number {
  const items = intervals.filter(({ bytes }) => bytes > 0);
  const bound = largestLive(items);
  const ends = items.map(() => -1);
  let best = items.reduce((sum, { bytes }) => sum + bytes, 0);
  const meet = (a: Interval, b: Interval): boolean => a.start <= b.end && b.start <= a.end;
  /** Where an interval would lie on those placed already. */
  const floor = (item: Interval): number =>
    items.reduce((most, other, index) => (meet(item, other) ? Math.max(most, ends[index] ?? 0) : most), 0);
  const visit = (left: number, extent: number, lowest: number): void => {
    if (left === 0) best = Math.min(best, extent);
    if (left === 0 || best === bound) return;
    const open = items.flatMap((item, index) => (ends[index] === -1 ? [{ item, index, offset: floor(item) }] : []));
    if (open.some(({ item, offset }) => offset + item.bytes >= best)) return;
    for (const { item, index, offset } of open) {
      if (offset < lowest) continue;
      ends[index] = offset + item.bytes;
      visit(left - 1, Math.max(extent, offset + item.bytes), offset);
      ends[index] = -1;
    }
  };
  visit(items.length, 0, 0);
  return best;
}
