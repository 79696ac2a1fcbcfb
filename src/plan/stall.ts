import { bytesOfLeaf } from "../passes/place.js";
import type { Schedule, Step } from "../passes/schedule.js";

/** A disk as it is met today, where nothing was measured: a laptop's reads more, a network's less. */
export const defaultDiskRate = 1e9;

/**
 * Seconds that a program takes when the tensors of its stays are read, one after another and beside the kernels, at
 * `bytesPerSecond`; a kernel waits until what it uses is there. Without stays it is the sum of the kernels' seconds.
 */
export function streamedSeconds(
  { steps, stays = [] }: Schedule,
  secondsOf: (step: Step) => number,
  bytesPerSecond: number = defaultDiskRate,
): number {
  const asked = stays.toSorted((a, b) => a.fetch - b.fetch || a.first - b.first);
  const ready = new Map<number, number>();
  let now = 0;
  let diskFree = 0;
  let next = 0;
  steps.forEach((step, index) => {
    for (let stay = asked[next]; stay !== undefined && stay.fetch <= index; stay = asked[++next]) {
      const moved = bytesOfLeaf(stay.leaf) * (stay.written === undefined ? 1 : 2);
      diskFree = Math.max(diskFree, now) + moved / bytesPerSecond;
      ready.set(stay.first, diskFree);
    }
    now = Math.max(now, ready.get(index) ?? 0) + secondsOf(step);
  });
  return now;
}
