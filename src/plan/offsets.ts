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

/** A search for a better order begins where the best of the three takes so much more than the bound. */
const worthwhile = 1.005;
/** How much such a search may do: intervals compared with one another. */
const searchWork = 20_000_000;

/**
 * Places intervals so that none that are alive together overlap and none crosses from one shard into the next. Greedy
 * by decreasing size into the smallest gap that fits, also by lifetime and by area; the best of the three is kept
 * (Pisarchyk and Lee, arXiv 2001.03288, and XLA's heap simulator). Where even that is far from the bound, the order in
 * which they are placed is improved by a search that is bounded by its work, not by a clock. Bytes must be multiples of
 * the alignment wanted, and no more than a shard holds. Nothing better is sought than an extent of `enough`.
 */
export function placeIntervals(intervals: readonly Interval[], room: Room = unbounded, enough = 0): Placement {
  const bound = largestLive(intervals);
  const length = (interval: Interval): number => interval.end - interval.start + 1;
  const orders: ((interval: Interval) => number)[] = [
    (interval) => interval.bytes,
    length,
    (interval) => interval.bytes * length(interval),
  ];
  let best: Ordered | undefined;
  for (const weight of orders) {
    const placed = placeInOrder(intervals, orderBy(intervals, weight), room, bound);
    if (best === undefined || placed.placement.extent < best.placement.extent) best = placed;
    if (best.placement.extent <= Math.max(bound, enough)) break;
  }
  if (best === undefined) return { shards: [], offsets: [], sizes: room.used, extent: 0, bound };
  const far = best.placement.extent > Math.max(bound * worthwhile, enough);
  return far && room.largest === Infinity ? improve(intervals, best, room, bound) : best.placement;
}

/** A placement, and the order of intervals that led to it. */
interface Ordered {
  readonly order: readonly number[];
  readonly placement: Placement;
}

/**
 * Hill climbing over orders: an interval that reaches beyond the bound is placed earlier, ahead of all others or of
 * one picked by a fixed sequence of numbers; what is no worse is kept.
 */
function improve(intervals: readonly Interval[], start: Ordered, room: Room, bound: number): Placement {
  const count = intervals.length;
  const base = room.used[0] ?? 0;
  let [current, best] = [start, start];
  let state = 1;
  const below = (limit: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  const tries = Math.min(2000, Math.floor(searchWork / (count * count + 1)));
  for (let attempt = 0; attempt < tries && best.placement.extent > bound; attempt++) {
    const { order, placement } = current;
    const beyond = order.flatMap((index, rank) => {
      const end = (placement.offsets[index] ?? 0) + (intervals[index]?.bytes ?? 0) - base;
      return end > bound && rank > 0 ? [rank] : [];
    });
    const from = beyond[below(beyond.length)] ?? 0;
    const to = attempt % 2 === 0 ? 0 : below(from);
    const moved = order.toSpliced(from, 1).toSpliced(to, 0, order[from] ?? 0);
    // A few steps to the worse lead out of orders that no single move improves.
    const next = placeInOrder(intervals, moved, room, bound);
    if (next.placement.extent < best.placement.extent) best = next;
    if (next.placement.extent <= current.placement.extent || below(16) === 0) current = next;
    else if (below(64) === 0) current = best;
  }
  return best.placement;
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

const nothing: Interval = { bytes: 0, start: 0, end: 0 };

function orderBy(intervals: readonly Interval[], weight: (interval: Interval) => number): number[] {
  const order = intervals.map((_, index) => index);
  const bytes = (index: number): number => intervals[index]?.bytes ?? 0;
  const weights = intervals.map(weight);
  const weightOf = (index: number): number => weights[index] ?? 0;
  return order.sort((a, b) => weightOf(b) - weightOf(a) || bytes(b) - bytes(a) || a - b);
}

function placeInOrder(intervals: readonly Interval[], order: readonly number[], room: Room, bound: number): Ordered {
  const numbers = new Array<number>(intervals.length).fill(0);
  const offsets = new Array<number>(intervals.length).fill(room.used[0] ?? 0);
  const shards = room.used.map((used): Shard => ({ base: used, placed: [], size: used }));
  for (const index of order) {
    const interval = intervals[index] ?? nothing;
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
  const sizes = shards.map(({ size }) => size);
  return { order, placement: { shards: numbers, offsets, sizes, extent, bound } };
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
