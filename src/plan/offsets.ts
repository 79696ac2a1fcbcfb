/** A buffer to place: its bytes, and the first and last step (inclusive) at which it is alive. */
export interface Interval {
  readonly bytes: number;
  readonly start: number;
  readonly end: number;
}

export interface Placement {
  /** Byte offset of each interval, in the order given. */
  readonly offsets: readonly number[];
  /** One past the last byte used. */
  readonly extent: number;
  /** No placement can need less: the most bytes alive at one step. */
  readonly bound: number;
}

/**
 * Places intervals so that none that are alive together overlap. Greedy by decreasing size into the smallest gap that
 * fits, also by lifetime and by area; the best of the three is kept (Pisarchyk and Lee, arXiv 2001.03288, and XLA's
 * heap simulator). Bytes must be multiples of the alignment wanted.
 */
export function placeIntervals(intervals: readonly Interval[]): Placement {
  const bound = largestLive(intervals);
  const length = (interval: Interval): number => interval.end - interval.start + 1;
  const orders: ((interval: Interval) => number)[] = [
    (interval) => interval.bytes,
    length,
    (interval) => interval.bytes * length(interval),
  ];
  let best: Placement | undefined;
  for (const weight of orders) {
    const placed = placeInOrder(intervals, weight);
    if (best === undefined || placed.extent < best.extent) best = { ...placed, bound };
    if (best.extent === bound) break;
  }
  return best ?? { offsets: [], extent: 0, bound };
}

function placeInOrder(
  intervals: readonly Interval[],
  weight: (interval: Interval) => number,
): { offsets: number[]; extent: number } {
  const order = intervals.map((_, index) => index);
  const at = (index: number): Interval => intervals[index] ?? { bytes: 0, start: 0, end: 0 };
  order.sort((a, b) => weight(at(b)) - weight(at(a)) || at(b).bytes - at(a).bytes || a - b);
  const offsets = new Array<number>(intervals.length).fill(0);
  const placed: { readonly interval: Interval; readonly offset: number }[] = [];
  let extent = 0;
  for (const index of order) {
    const interval = at(index);
    if (interval.bytes === 0) continue;
    const offset = smallestGap(interval, placed);
    offsets[index] = offset;
    insertByOffset(placed, { interval, offset });
    extent = Math.max(extent, offset + interval.bytes);
  }
  return { offsets, extent };
}

interface Placed {
  readonly interval: Interval;
  readonly offset: number;
}

/** `placed` is sorted by offset. */
function smallestGap(interval: Interval, placed: readonly Placed[]): number {
  let cursor = 0;
  let best = -1;
  let bestRoom = Infinity;
  for (const other of placed) {
    if (other.interval.end < interval.start || other.interval.start > interval.end) continue;
    const room = other.offset - cursor;
    if (room >= interval.bytes && room < bestRoom) {
      best = cursor;
      bestRoom = room;
    }
    cursor = Math.max(cursor, other.offset + other.interval.bytes);
  }
  return best >= 0 ? best : cursor;
}

function insertByOffset(placed: Placed[], item: Placed): void {
  let low = 0;
  let high = placed.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((placed[middle]?.offset ?? 0) < item.offset) low = middle + 1;
    else high = middle;
  }
  placed.splice(low, 0, item);
}

/** The most bytes alive at one step. */
export function largestLive(intervals: readonly Interval[]): number {
  return Math.max(0, ...liveBytes(intervals));
}

/** Bytes alive at each step. */
export function liveBytes(intervals: readonly Interval[]): number[] {
  const last = intervals.reduce((most, interval) => Math.max(most, interval.end), -1);
  const change = new Array<number>(last + 2).fill(0);
  for (const { bytes, start, end } of intervals) {
    change[start] = (change[start] ?? 0) + bytes;
    change[end + 1] = (change[end + 1] ?? 0) - bytes;
  }
  let live = 0;
  return change.slice(0, last + 1).map((delta) => (live += delta));
}
