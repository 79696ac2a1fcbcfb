/** A buffer to place: its bytes, and the first and last step (inclusive) at which it is alive. */
export interface Interval {
  readonly bytes: number;
  readonly start: number;
  readonly end: number;
}

/** The memory to place buffers in. */
export interface Room {
  /** Bytes that are taken for good at the start of each shard that exists already. */
  readonly used: readonly number[];
  /** Bytes that a shard can have. */
  readonly largest: number;
}

export interface Placement {
  /** Shard and byte offset in it of each interval, in the order given. */
  readonly shards: readonly number[];
  readonly offsets: readonly number[];
  /** Bytes of each shard, those that were taken included. */
  readonly sizes: readonly number[];
  /** Bytes that all shards have beyond those that were taken. */
  readonly extent: number;
  /** No placement can need less: the most bytes alive at one step. */
  readonly bound: number;
}

const unbounded: Room = { used: [], largest: Infinity };

/**
 * Places intervals so that none that are alive together overlap and none crosses from one shard into the next. Greedy
 * by decreasing size into the smallest gap that fits, also by lifetime and by area; the best of the three is kept
 * (Pisarchyk and Lee, arXiv 2001.03288, and XLA's heap simulator). Bytes must be multiples of the alignment wanted,
 * and no more than a shard holds.
 */
export function placeIntervals(intervals: readonly Interval[], room: Room = unbounded): Placement {
  const bound = largestLive(intervals);
  const length = (interval: Interval): number => interval.end - interval.start + 1;
  const orders: ((interval: Interval) => number)[] = [
    (interval) => interval.bytes,
    length,
    (interval) => interval.bytes * length(interval),
  ];
  let best: Placement | undefined;
  for (const weight of orders) {
    const placed = placeInOrder(intervals, weight, room, bound);
    if (best === undefined || placed.extent < best.extent) best = placed;
    if (best.extent === bound) break;
  }
  return best ?? { shards: [], offsets: [], sizes: room.used, extent: 0, bound };
}

interface Placed {
  readonly interval: Interval;
  readonly offset: number;
}

interface Shard {
  readonly base: number;
  /** Sorted by offset. */
  readonly placed: Placed[];
  /** One past the last byte used. */
  size: number;
}

function placeInOrder(
  intervals: readonly Interval[],
  weight: (interval: Interval) => number,
  room: Room,
  bound: number,
): Placement {
  const order = intervals.map((_, index) => index);
  const at = (index: number): Interval => intervals[index] ?? { bytes: 0, start: 0, end: 0 };
  const weights = intervals.map(weight);
  const weightOf = (index: number): number => weights[index] ?? 0;
  order.sort((a, b) => weightOf(b) - weightOf(a) || at(b).bytes - at(a).bytes || a - b);
  const numbers = new Array<number>(intervals.length).fill(0);
  const offsets = new Array<number>(intervals.length).fill(room.used[0] ?? 0);
  const shards = room.used.map((used): Shard => ({ base: used, placed: [], size: used }));
  for (const index of order) {
    const interval = at(index);
    if (interval.bytes === 0) continue;
    const { number, offset } = findPlace(interval, shards, room.largest);
    const shard = shards[number] ?? { base: 0, placed: [], size: 0 };
    shards[number] = shard;
    numbers[index] = number;
    offsets[index] = offset;
    insertByOffset(shard.placed, { interval, offset });
    shard.size = Math.max(shard.size, offset + interval.bytes);
  }
  const extent = shards.reduce((sum, { size, base }) => sum + size - base, 0);
  return { shards: numbers, offsets, sizes: shards.map(({ size }) => size), extent, bound };
}

/** The smallest gap of all shards, else the end at which a shard grows least, else a new shard. */
function findPlace(
  interval: Interval,
  shards: readonly Shard[],
  largest: number,
): { readonly number: number; readonly offset: number } {
  let best = { number: shards.length, offset: 0 };
  let room = Infinity;
  let growth = Infinity;
  shards.forEach((shard, number) => {
    const { gap, end } = smallestGap(interval, shard);
    if (gap !== undefined && gap.room < room) {
      best = { number, offset: gap.offset };
      room = gap.room;
    }
    if (room < Infinity || end + interval.bytes > largest) return;
    const grown = Math.max(0, end + interval.bytes - shard.size);
    if (grown >= growth) return;
    best = { number, offset: end };
    growth = grown;
  });
  return best;
}

interface Gap {
  readonly offset: number;
  readonly room: number;
}

/** The smallest gap of a shard that holds the interval, and where everything alive with it ends. */
function smallestGap(interval: Interval, shard: Shard): { readonly gap: Gap | undefined; readonly end: number } {
  let end = shard.base;
  let offset = -1;
  let smallest = Infinity;
  for (const other of shard.placed) {
    if (other.interval.end < interval.start || other.interval.start > interval.end) continue;
    const room = other.offset - end;
    if (room >= interval.bytes && room < smallest) {
      offset = end;
      smallest = room;
    }
    end = Math.max(end, other.offset + other.interval.bytes);
  }
  return { gap: offset < 0 ? undefined : { offset, room: smallest }, end };
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
  return liveBytes(intervals).reduce((most, live) => Math.max(most, live), 0);
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
