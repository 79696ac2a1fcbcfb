import { peakResidentBytes, residentBytes, resetPeakResident } from "../runtime/memory.js";
import type { Session } from "../session/types.js";
import type { PeakMemory } from "./types.js";

/** Measures resident memory from now on. Create it just before the model is read. */
export class MemoryProbe {
  readonly #before: number;

  constructor() {
    resetPeakResident();
    this.#before = residentBytes();
  }

  peak(session: Session): PeakMemory {
    const { planBytes, composition } = session.report;
    const rssBytes = Math.max(0, peakResidentBytes() - this.#before);
    return { planBytes, arenaBytes: session.arenaBytes, rssBytes, composition };
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.floor(sorted.length / 2)]];
  return low === undefined || high === undefined ? 0 : (low + high) / 2;
}

/** Tokens a second by the median of the steps after the second, or of all where there are no more. */
export function medianSpeed(tokens: number, seconds: readonly number[]): number {
  const settled = seconds.length > 2 ? seconds.slice(2) : seconds;
  const middle = median(settled);
  return middle > 0 ? tokens / middle : 0;
}
