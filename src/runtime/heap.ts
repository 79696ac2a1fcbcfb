import { setTimeout as wait } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** V8 gives pages back to the system some time after it has collected what was in them. */
const rounds = 3;
const pause = 150;

/**
 * Collects the JavaScript heap and lets V8 give its pages back: after a search that has built and dropped many plans,
 * the process would otherwise hold memory that its arena is to have.
 */
export async function releaseHeap(): Promise<void> {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  for (let round = 0; round < rounds; round++) {
    collect();
    await wait(pause);
  }
}
