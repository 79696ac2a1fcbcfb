import type { Terminal } from "./terminal.js";
import { status } from "./verb.js";

/**
 * Runs `action` with a signal that the first Ctrl-C gives; the second ends the process at once. `said` is told at the
 * first: what happens now.
 */
export async function interruptible<T>(
  terminal: Terminal,
  said: string,
  action: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { world } = terminal;
  const stop = new AbortController();
  const release = world.onInterrupt(() => {
    if (stop.signal.aborted) {
      world.stderr.write("\n");
      world.abort(status.interrupted);
      return;
    }
    stop.abort();
    world.stderr.write(`\n${said} Ctrl-C again stops at once.\n`);
  });
  try {
    return await action(stop.signal);
  } finally {
    release();
  }
}
